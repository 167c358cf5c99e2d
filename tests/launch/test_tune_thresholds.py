"""`twofold tune-thresholds` over a small run: a fragment that loads, a page without surprises, errors with hints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from rich.console import Console

from configs.features import FEATURES
from configs.recipe import load_recipe
from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.decisions.thresholds import Settings
from launch.actions import tune_thresholds
from launch.cli import main
from launch.stages import stages_of
from tests.conftest import ROOT
from twofold.artifacts import Artifact, ensure
from twofold.errors import UserError

Scored = tuple[Path, Recipe]


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scored:
    """A recipe with made-up scores of its sources; what is under test reads no other artifact."""
    path = tmp_path / "recipe.yaml"
    path.write_text(f"extends: {ROOT}/configs/smoke.yaml\nrun_dir: {tmp_path / 'run'}\n", encoding="utf-8")
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(path)
    dice = np.random.default_rng(0)

    def build(out: Path, work: Path) -> Mapping[str, Any]:
        for source in ("ko-text", "ko-web") if out.name.startswith("score") else ():
            values = {name: dice.random(800) * 0.5 for name in FEATURES}
            large = dict.fromkeys(
                ("characters", "words", "stop_words", "hangul_frac", "language_score", "running_text_frac"),
                np.full(800, 999.0),
            )
            ids = [f"{source}/{number}" for number in range(800)]
            zeros = ("spam_terms_per_1000_words", "broken_character_frac", "symbol_frac")
            values |= large | dict.fromkeys(zeros, np.zeros(800)) | {"quality_score": np.ones(800)}
            table = pa.table({"id": ids, "language": ["ko"] * 800, **values})
            tables.write_table(tables.task_path(out / "attributes", source, 0), table)
        return {}

    artifacts: dict[str, Artifact] = {}
    for stage in stages_of(recipe):
        artifacts[stage.name] = ensure(tmp_path / "run", stage.specify(recipe, artifacts), build)
        if stage.name == "score":
            break
    return path, recipe


def test_the_fragment_is_a_recipe_with_the_new_bounds(scored: Scored, tmp_path: Path) -> None:
    path, recipe = scored
    out = tmp_path / "sub" / "ko.yaml"
    settings = tune_thresholds.settings_of("ko-text", ["0.02", "ellipsis_line_frac=0.1"])
    found = tune_thresholds.tune_thresholds(path, recipe, "ko", settings, out, Console(quiet=True))
    loaded = load_recipe(out)
    for threshold in found:
        assert getattr(loaded.data.rules.ko[threshold.feature], threshold.side) == threshold.value
    ellipses = next(threshold for threshold in found if threshold.feature == "ellipsis_line_frac")
    assert ellipses.dropped["ko-text"] == pytest.approx(0.1, abs=0.02)
    assert loaded.data.rules.ko["characters"] == recipe.data.rules.ko["characters"], "policy stays"
    assert loaded.data.rules.en == recipe.data.rules.en
    assert yaml.safe_load(out.read_text())["extends"] == "../recipe.yaml"
    assert not list(tmp_path.rglob(".*partial*"))


def test_no_bound_drops_a_document_that_was_judged_good(scored: Scored, tmp_path: Path) -> None:
    path, recipe = scored
    verdicts, settings = tmp_path / "read.tsv", Settings(("ko-text",))
    verdicts.write_text("id\tverdict\treason\n" + "".join(f"{n}\tgood\tread\n" for n in range(40)), encoding="utf-8")
    out, quiet = tmp_path / "ko.yaml", Console(quiet=True)
    found = tune_thresholds.tune_thresholds(path, recipe, "ko", settings, out, quiet, verdicts)
    assert found
    for threshold in found:
        assert threshold.dropped["judged good"] == 0, threshold.feature


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id\tverdict\n1\tfine\n", "--verdicts = 'fine': is no verdict on 1.* Hint: write good or junk"),
        ("id\tverdict\nnobody\tgood\n", "judges no ko document of this run good"),
        ("name\tverdict\n1\tgood\n", "cannot be read as verdicts"),
    ],
)
def test_a_mistake_in_the_verdicts_is_told(scored: Scored, tmp_path: Path, text: str, message: str) -> None:
    path, recipe = scored
    verdicts = tmp_path / "read.tsv"
    verdicts.write_text(text, encoding="utf-8")
    settings, quiet = Settings(("ko-text",)), Console(quiet=True)
    with pytest.raises(UserError, match=message):
        tune_thresholds.tune_thresholds(path, recipe, "ko", settings, tmp_path / "ko.yaml", quiet, verdicts)


def test_the_page_shows_every_rule_and_is_safe_with_any_name(scored: Scored, tmp_path: Path) -> None:
    path, recipe = scored
    settings = Settings(("ko-text",))
    found = tune_thresholds.tune_thresholds(path, recipe, "ko", settings, tmp_path / "ko.yaml", Console(quiet=True))
    page = (tmp_path / "ko.html").read_text()
    assert page.count("<svg") == len(found)
    assert "<script" not in page
    columns = {"<script>": {name: np.arange(800) / 800 for name in FEATURES}}
    assert "<script" not in tune_thresholds.page([], columns, "ko", Settings(("<script>",)))


@pytest.mark.parametrize(
    ("reference", "shares", "out", "message"),
    [
        ("nowhere", [], "ko.yaml", "--reference = 'nowhere': is not a source"),
        ("ko-text", ["much"], "ko.yaml", "--drop-share = 'much': is not a number"),
        ("ko-text", [], "ko.txt", "cannot hold a recipe fragment"),
        ("ko-text", [], "recipe.yaml", "cannot hold a recipe fragment"),
        ("law", [], "ko.yaml", "has 0 documents"),
    ],
)
def test_a_mistake_is_told(
    scored: Scored, tmp_path: Path, reference: str, shares: list[str], out: str, message: str
) -> None:
    path, recipe = scored

    def command() -> None:
        settings = tune_thresholds.settings_of(reference, shares)
        tune_thresholds.tune_thresholds(path, recipe, "ko", settings, tmp_path / out, Console(quiet=True))

    with pytest.raises(UserError, match=message):
        command()
    assert not (tmp_path / "ko.yaml").exists()


def test_a_recipe_without_scores_is_told_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = ROOT / "configs" / "smoke.yaml"
    recipe = load_recipe(path, [f"run_dir={tmp_path}"])
    with pytest.raises(UserError, match=r"twofold run .*smoke.yaml --until score"):
        tune_thresholds.tune_thresholds(
            path, recipe, "ko", Settings(("ko-text",)), tmp_path / "ko.yaml", Console(quiet=True)
        )


REFERENCE = "encyclopaedia,statutes+articles,manuals+books+guides+help+news,pages,mathematics,medicine+finance"
"""As docs/tuning-thresholds.md says."""


@pytest.mark.corpus
def test_no_shipped_korean_threshold_is_tighter_than_the_documented_calibration(
    corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if corpus_dir.resolve() != (ROOT.parent / "shared" / "corpus").resolve():
        pytest.skip("the recipe expects the corpus at ../shared/corpus")
    assert f"--reference {REFERENCE}" in (ROOT / "docs" / "tuning-thresholds.md").read_text(encoding="utf-8")
    monkeypatch.chdir(ROOT)
    recipe, place = "configs/calibration-ko.yaml", f"run_dir={tmp_path / 'run'}"
    assert main(["run", recipe, place, "--until", "score"]) == 0
    command = ["--language", "ko", "--reference", REFERENCE, "--out", str(tmp_path / "ko.yaml")]
    assert main(["tune-thresholds", recipe, place, *command]) == 0
    shipped = load_recipe(recipe).data.rules.ko
    for feature, tuned in load_recipe(tmp_path / "ko.yaml").data.rules.ko.items():
        assert tuned.min is None or shipped[feature].min <= tuned.min, feature
        assert tuned.max is None or shipped[feature].max >= tuned.max, feature
