"""The data report in a real browser: nothing planted runs, and moved thresholds decide as `twofold filter` does."""

from __future__ import annotations

import base64
import copy
import hashlib
import html
import json
import random
import re
import shutil
import subprocess
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
from data_pipeline.decisions import duplicates, rules
from data_pipeline.stages import dedup
from launch.actions import data_report
from launch.reports import document_sample
from launch.runner import existing, run_recipe
from tests.conftest import ROOT
from tests.launch.conftest import SMOKE
from twofold.errors import UserError

QUIET = Console(quiet=True)
PLANTED = (
    "</script><script>document.documentElement.dataset.planted = 1</script>"
    "<img src=x onerror='document.documentElement.dataset.planted = 1'><!--\u2028"
)
PROSE = (
    "The harbour was built of stone in the spring of that year, and people have walked to it ever since. "
    "It has two lamps of iron, which the keeper lights when the evening comes. {} That is what visitors see. "
)


def browse(page: Path, folder: Path, fragment: str = "") -> str:
    """The page's elements after its script has run."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium here")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}"]
    command = [chromium, *options, "--virtual-time-budget=5000", "--dump-dom", f"file://{page.resolve()}{fragment}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture
def decided(packed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.chdir(ROOT)
    shutil.copytree(packed_run, tmp_path / "run", symlinks=True)
    return load_recipe(SMOKE, [f"run_dir={tmp_path / 'run'}"])


def test_a_moved_threshold_judges_as_the_stage_does(decided: Recipe, tmp_path: Path) -> None:
    page = data_report.write(decided, tmp_path / "page.html", 5_000)
    shipped = browse(page, tmp_path)
    assert _kept(shipped) == existing(decided)["filter"].counts["kept"]
    moved = browse(page, tmp_path, "#ko.words.min=130&en.characters.min=1500&en.words.min=")
    words = ["data.rules.ko.words.min=130", "data.rules.en.characters.min=1500", "data.rules.en.words={min: 0}"]
    recipe = load_recipe(SMOKE, [f"run_dir={decided.run_dir}", *words])
    counts = run_recipe(recipe, QUIET, until="filter").artifacts["filter"].counts
    assert _kept(moved) == counts["kept"] < _kept(shipped)
    for number, source in enumerate(counts["sources"].values()):
        assert f'data-kept="source.{number}">{source["kept"]:,}<' in moved
    fragment = moved.split('aria-label="recipe fragment"')[0]
    assert "newly dropped" in fragment


def test_page_and_stage_decide_the_same_over_random_thresholds(tmp_path: Path) -> None:
    """Reasons in their order, duplicates' included, over random documents, clusters and bounds."""
    draw = random.Random(13)
    table = rules.decision_table(load_recipe(SMOKE, ["data.personal_information=drop"]))
    cases, expected = [], []
    for _ in range(60):
        documents = _random_documents(draw, 40)
        pairs = _random_pairs(draw, documents)
        for check in table["checks"]:
            if check["language"] is not None:
                check["bound"] = draw.choice([None, None, None, draw.choice(documents[check["column"]].to_pylist())])
        columns = data_report.table_columns(table, documents)
        languages = documents["language"].to_pylist()
        expected.append(_stage_reasons(table["checks"], columns, languages, documents, pairs))
        codes = [LANGUAGES.index(language) for language in languages]
        cases.append(copy.deepcopy({"table": table, "columns": {**columns, "language": codes}, "pairs": pairs}))
    script = (ROOT / "launch/reports/templates/decisions.js").read_text(encoding="utf-8")
    (tmp_path / "cases.html").write_text(
        f"<pre></pre><script>{script}\nconst cases = {data_report.as_script_data(cases)};"
        f"const found = cases.map(({{table, columns, pairs}}) =>"
        f" judge(table, columns, {json.dumps(LANGUAGES)}, pairs));"
        'document.querySelector("pre").textContent = JSON.stringify(found);</script>',
        encoding="utf-8",
    )
    found = re.search(r"<pre>(.*?)</pre>", browse(tmp_path / "cases.html", tmp_path), re.S)
    assert found
    assert json.loads(html.unescape(found[1])) == expected
    told = {reason for case in expected for reasons in case for reason in reasons}
    known = [*rules.DUPLICATES["equal"], rules.DUPLICATES["similar"]]
    assert {*(link["reason"] for link in known), rules.PERSONAL_INFORMATION} <= told


def test_the_fragment_of_moved_thresholds_is_yaml(decided: Recipe, tmp_path: Path) -> None:
    page = data_report.write(decided, tmp_path / "page.html", 5_000).read_text(encoding="utf-8")
    # A text area's value is not part of the document, so the script writes it into the title instead.
    script = (ROOT / "launch/reports/templates/data_report.js").read_text(encoding="utf-8")
    shown = 'document.getElementById("fragment").value = fragment(moved);'
    assert shown in script
    copied = page.replace(shown, "document.title = fragment(moved);")
    old, new = (_script_hash(text) for text in (page, copied))
    (tmp_path / "copied.html").write_text(copied.replace(old, new), encoding="utf-8")
    dom = browse(tmp_path / "copied.html", tmp_path, "#ko.words.min=70&en.hash_to_word_ratio.max=0.05")
    found = re.search(r"<title>(.*?)</title>", dom, re.S)
    assert found
    korean, english = {"words": {"min": 70, "max": 100000}}, {"hash_to_word_ratio": {"max": 0.05}}
    assert yaml.safe_load(found[1])["data"]["rules"] == {"ko": korean, "en": english}


def test_what_a_document_says_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    texts = [PLANTED + PROSE.format(f"On day {n} there was a storm.") * (n + 2) for n in range(8)]
    records = [
        {"id": f"{n}{PLANTED}", "text": text, "url": f"http://example.org/{PLANTED}", "licence": PLANTED}
        for n, text in enumerate([*texts, texts[3]])
    ]
    (tmp_path / "planted.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(
        f"name: planted\nseed: 1\nrun_dir: {tmp_path}/run\n"
        f"sources: {{planted: {{path: {tmp_path}/planted.jsonl, format: jsonl, license: CC0-1.0}}}}\n"
        "data:\n  validation_share: 0.5\n"
        "  rules: {ko: {}, en: {words: {min: 5}, hash_to_word_ratio: {max: 0.1}}, code: {}}\n"
        "tokenizer: {vocab_size: 1024}\n"
        "model: {d_model: 16, n_layers: 1, n_heads: 2, n_kv_heads: 1, d_ff: 32}\n"
        "phases: [{name: general, tokens: 4096, sequence_length: 32, global_batch_size: 1024, "
        "lr_scheduler: {lr: 1e-3}, mixture: {planted: 1}}]\nengine: {micro_batch_size: 1}\ncheckpoints: {every: 4096}\n"
        "validation: {every: 4096}\nlaunch: {device: cpu}\n"
    )
    recipe = load_recipe(recipe_file)
    run_recipe(recipe, QUIET, until="filter")
    page = data_report.write(recipe, tmp_path / "page.html", 5_000)
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "script-src 'sha256-" in text
    assert not re.search(r"<(img|link|iframe|object|embed|a)|url\(|@import", text), "nothing is loaded"
    dom = browse(page, tmp_path)
    assert "data-planted" not in dom
    assert _kept(dom) > 0, "our own script did run"
    assert "near dropped" in dom
    assert "&lt;img src=x" in dom, "it is shown as text"


def test_a_sample_holds_clusters_whole_and_is_a_function_of_the_decisions(decided: Recipe) -> None:
    made = existing(decided)
    decisions, read = made["filter"].path / "decisions", made["filter"].counts["read"]
    everything = document_sample.sample(decisions, read, read)
    assert everything.num_rows == read
    part = document_sample.sample(decisions, read, read // 3)
    assert part.equals(document_sample.sample(decisions, read, read // 3))
    assert 0 < part.num_rows < read
    sizes = {row["cluster"]: row["size"] for row in _cluster_sizes(everything)}
    assert all(sizes[row["cluster"]] == row["size"] for row in _cluster_sizes(part))


def test_documents_on_both_sides_of_a_threshold_are_found() -> None:
    values = np.arange(10.0)
    table = pa.table({"language": ["ko"] * 9 + ["en"], "words": values})
    assert document_sample.nearest(table, "ko", "words", 4.0, 2) == [3, 4, 5, 6]
    assert document_sample.nearest(table, "ko", "words", 99.0, 2) == [7, 8]
    assert document_sample.nearest(table, "fr", "words", 4.0, 2) == []


def test_what_cannot_be_drawn_is_refused(decided: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--sample = 0"):
        data_report.write(decided, tmp_path / "page.html", 0)
    empty = load_recipe(SMOKE, [f"run_dir={tmp_path / 'none'}"])
    with pytest.raises(UserError, match="has no decisions yet"):
        data_report.write(empty, None, 10)
    assert not (tmp_path / "page.html").exists()


LANGUAGES = ["ko", "en", "other"]


def _random_documents(draw: random.Random, number: int) -> pa.Table:
    """Rows of the decision table's columns, sorted by id."""
    columns: dict[str, list[Any]] = {"id": [f"{row:03d}" for row in range(number)]}
    columns["bytes"] = [draw.randint(1, 4) for _ in range(number)]
    columns["language"] = [draw.choice(LANGUAGES) for _ in range(number)]
    columns["reasons"] = [draw.choice([[], [], [rules.PERSONAL_INFORMATION]]) for _ in range(number)]
    columns["cluster"] = [draw.choice([None, 0, 100, 200]) for _ in range(number)]
    columns["document"] = list(range(number))
    links = [link["column"] for link in rules.DUPLICATES["equal"]]
    for link in links:
        columns[link] = [
            None if name is None else draw.choice([None, name + 1, name + 2]) for name in columns["cluster"]
        ]
    for feature in FEATURES:
        columns[feature] = [round(draw.choice([draw.random(), 100 * draw.random()]), 3) for _ in range(number)]
    return pa.table(columns)


def _random_pairs(draw: random.Random, documents: pa.Table) -> list[tuple[int, int]]:
    """Near duplicates within clusters; a document's number is its row."""
    clusters = documents["cluster"].to_pylist()
    rows = [row for row, cluster in enumerate(clusters) if cluster is not None]
    pairs = [(one, other) for one in rows for other in rows if one < other and clusters[one] == clusters[other]]
    return [pair for pair in pairs if draw.random() < 0.1]


def _stage_reasons(
    checks: list[rules.Check],
    columns: dict[str, Any],
    languages: list[str],
    documents: pa.Table,
    pairs: list[tuple[int, int]],
) -> list[list[str]]:
    """What the filter stage decides."""
    read = {check["column"]: np.array(columns[check["column"]]) for check in checks}
    reasons = rules.judge(read, languages, checks)
    number = documents.num_rows
    given = {"passes": [not found for found in reasons], **{name: [0] * number for name in ("hash", "destination")}}
    candidates = {
        field.name: pa.array(given.get(field.name) or documents[field.name].to_pylist(), field.type)
        for field in duplicates.CANDIDATES
    }
    clustered = pa.table(candidates).filter(documents["cluster"].is_valid())
    near = pa.table([[one for one, _ in pairs], [other for _, other in pairs], [0.9] * len(pairs)], schema=dedup.PAIRS)
    for row in duplicates.settle(clustered, near).lost.to_pylist():
        reasons[row["document"]].append(row["reason"])
    return reasons


def _script_hash(page: str) -> str:
    script = page.rsplit("<script>", 1)[1].split("</script>")[0]
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _kept(dom: str) -> int:
    found = re.search(r'<b id="kept">([\d,]+)</b>', dom)
    assert found, "the page's script did not run"
    return int(found[1].replace(",", ""))


def _cluster_sizes(table: pa.Table) -> list[dict[str, object]]:
    rows = table.filter(pa.compute.is_valid(table["cluster"])).group_by("cluster").aggregate([("id", "count")])
    return [{"cluster": row["cluster"], "size": row["id_count"]} for row in rows.to_pylist()]


def test_every_column_that_is_read_is_in_the_decisions(decided: Recipe) -> None:
    path = next(iter(tables.task_files(existing(decided)["filter"].path / "decisions")))[2]
    assert set(document_sample._COLUMNS) <= set(tables.read_table(path).column_names)
