"""`twofold explain`: all that is known of one document, safely."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from configs.recipe import load_recipe
from configs.schema import Recipe
from launch.actions import explain
from tests.conftest import ROOT
from tests.launch.conftest import SMOKE, twofold
from twofold.errors import UserError


@pytest.fixture
def recipe(packed_run: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.chdir(ROOT)
    return load_recipe(SMOKE, [f"run_dir={packed_run}"])


def said(recipe: Recipe, identity: str) -> str:
    stream = io.StringIO()
    explain.explain(recipe, identity, Console(file=stream, width=160, highlight=False))
    return stream.getvalue()


@pytest.mark.parametrize(("identity", "expected"), [
    ("ko-text/laughter", ["dropped", "characters<150", "fails", "goes to nowhere", "rules for ko"]),
    ("ko-text/quiz-evening", ["dropped", "contaminated", "is in quiz, first in quiz#"]),
])  # fmt: skip
def test_a_dropped_document_is_explained(recipe: Recipe, identity: str, expected: list[str]) -> None:
    text = said(recipe, identity)
    assert [part for part in expected if part not in text] == []
    rows = [line for line in text.splitlines() if "passes" in line or "fails" in line]
    verdicts = ["fails" in line for line in rows]
    assert verdicts == sorted(verdicts, reverse=True), "failed rules come first"


def test_a_rejected_record_is_found(recipe: Recipe, packed_run: Path) -> None:
    import json

    rejects = [json.loads(line) for line in (packed_run / "extract" / "rejects.jsonl").read_text().splitlines()]
    assert rejects, "the sample has broken records"
    text = said(recipe, f"{rejects[0]['source']}/{rejects[0]['file']}#{rejects[0]['index']}")
    assert text.startswith("rejected")
    assert rejects[0]["reason"] in text


def test_an_unknown_id_is_refused_with_its_neighbours(recipe: Recipe, packed_run: Path) -> None:
    unknown = r"is neither in the decisions nor among the rejects.*try ko-text/laughter"
    with pytest.raises(UserError, match=unknown):
        explain.explain(recipe, "ko-text/laugter", Console(quiet=True))
    code, _, err = twofold("explain", str(SMOKE), "nowhere/x", f"run_dir={packed_run}")
    assert code == 2
    assert err.startswith("error: DOC_ID = 'nowhere/x'")
    assert "Traceback" not in err


def test_json_is_the_whole_row(packed_run: Path) -> None:
    code, out, err = twofold("explain", str(SMOKE), "ko-text/laughter", f"run_dir={packed_run}", "--json")
    row = json.loads(out)
    assert (code, err, row["id"], row["decision"]) == (0, "", "ko-text/laughter", "dropped")


def test_without_decisions_it_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"has no decisions yet.*--until filter"):
        explain.explain(load_recipe(SMOKE, [f"run_dir={tmp_path}"]), "ko-text/x", Console(quiet=True))


def test_what_a_document_says_is_not_obeyed() -> None:
    assert explain.shown("\x1b[31mred\x07 [bold]x[/bold]\u202e") == r"\x1b[31mred\x07 \[bold]x\[/bold]\u202e"
    assert "900101-1234567" not in explain.excerpt("주민등록번호 900101-1234568 입니다. " * 3)
    long = explain.excerpt("가" * 5000)
    assert len(long) == explain._EXCERPT + 2


def test_only_scores_that_were_measured_are_shown(recipe: Recipe) -> None:
    assert list(recipe.data.classifiers.configured) == ["quality"]
    text = said(recipe, "ko-text/quiz-evening")
    assert ("quality_score" in text, "toxicity_score" in text) == (True, False)
