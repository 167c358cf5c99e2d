"""What all pages share: figures that say what they show, and an index of a run's pages."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.recipe import load_recipe
from launch import reports
from launch.reports import plots, report
from launch.reports.report import _in_words
from pretrain.goodput import CAUSES, Start
from tests.launch.conftest import SMOKE


def test_figures_say_what_they_show_and_are_the_same_for_the_same_numbers() -> None:
    series = {"a": ([1, 2, 3], [3.0, 2.0, 1.0])}
    drawn = plots.panels({"loss": (series, 2.0), "rate <&>": (series, 1.5)}, "tokens", [(1, 3, "general")])
    assert drawn.startswith('<svg role="img" aria-label="loss, rate &lt;&amp;&gt;, by tokens" ')
    assert drawn == plots.panels({"loss": (series, 2.0), "rate <&>": (series, 1.5)}, "tokens", [(1, 3, "general")])
    assert drawn.count('id="axes_') == 2
    for figure in (
        plots.lines(series, "tokens", "loss"),
        plots.shares(series, "recall", "precision"),
        plots.areas([1, 2], {"a": [0.5, 1.0], "b": [0.5, 0.0]}, "tokens", "share"),
        plots.dots({"a": [1.0, 2.0]}, "loss"),
        plots.stacked_bars({"a": {"kept": 1.0}}, "documents"),
    ):
        assert re.match(r'<svg role="img" aria-label="\w[^"]+"', figure)


def test_reasons_are_read_as_words() -> None:
    assert [_in_words(reason) for reason in ("words<30", "near_duplicate", "mean_word_length > 10")] == [
        "words < 30",
        "near duplicate",
        "mean word length > 10",
    ]


def test_the_index_links_the_pages_that_a_run_has(tmp_path: Path) -> None:
    run = tmp_path / "my run & more"
    (run / "artifacts").mkdir(parents=True)
    reports.write(run / "plan.html", "<p>")
    (run / "classifiers" / "quality").mkdir(parents=True)
    reports.write(run / "classifiers" / "quality" / "card.html", "<p>")
    reports.write(run / "plan-8-h100.html", "<p>")
    page = (run / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'href="([^"]+)"', page)
    assert links == ["classifiers/quality/card.html", "plan.html", "plan-8-h100.html"]
    assert all((run / link).exists() for link in links)
    assert "my run &amp; more" in page


def test_a_page_elsewhere_makes_no_index(tmp_path: Path) -> None:
    reports.write(tmp_path / "plan.html", "<p>")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.html"]


def test_every_page_adapts_to_dark_paper_and_narrow_screens() -> None:
    page = reports.render("index.html", name="n", pages=[])
    for query in ("prefers-color-scheme: dark", "@media print", "max-width: 600px"):
        assert query in page


def test_numbers_of_axes_are_read_as_words_and_limits_are_labelled() -> None:
    assert [plots._number(value) for value in (0, 0.05, 512, 4096, 1.5e6, 2e9, 8e12)] == [
        *("0", "0.05", "512", "4.096K", "1.5M", "2B", "8T")
    ]
    bars = plots.stacked_bars({"a": {"weights": 40.0}}, "GB", (80.0, "h100: 80 GB"))
    assert "h100: 80 GB" in bars
    assert "512 devices" in plots.lines({"days": ([8, 512], [9.0, 1.0])}, "devices", "days", mark=(512, "512 devices"))


def _artifacts(root: Path, missing: bool) -> dict[str, Any]:
    """What the page reads of a run; `missing`: no number of training is finite."""
    number = None if missing else 1.5
    source = {
        "read": 2,
        "kept": 1,
        "kept_bytes": 10,
        "dropped": {"words<30": 1},
        "rejects": {},
        "personal_information": {},
    }
    bits = {"ko-web": number, "law": number}
    phase = {"name": "general", "tokens_by_source": {"ko-web": 64}, "last_loss": number, "bits_per_byte": bits}
    trained = {
        "steps": 3,
        "tokens": 64,
        "phases": [phase, {**phase, "name": "domain"}],
        "start_bits_per_byte": bits,
        "world_size": 2,
        "device": "cpu",
        "hardware": "Some CPU",
        "wall_time_s": 5.0,
        "tps": number,
        "made_with": {"torch": "2.13.0"},
        "lineage": [{"step": 2, "run": "runs/first"}],
    }
    counts = {
        "extract": {"sources": {"ko-web": source}},
        "filter": {"sources": {"ko-web": source}},
        "train": trained,
        "tokenizer": {"held_out": {}},
        "shards": {},
        "export": {},
    }
    found = {}
    for stage, numbers in counts.items():
        (root / stage).mkdir(parents=True)
        made_by = {"revision": "abc", "seconds": "12.5"}
        manifest = SimpleNamespace(identity="0" * 64, inputs={}, files=[], made_by=made_by, created="2026-01-01T00:00")
        found[stage] = SimpleNamespace(path=root / stage, counts=numbers, manifest=manifest)
    (root / "export" / "samples.json").write_text("[]")
    (root / "shards" / "index.json").write_text(json.dumps({"splits": {"train": {}, "validation": {}}}))
    step = {"event": "train", "step": 1, "tokens": 64, "loss": number, "lr": number, "grad_norm": number, "tps": number}
    events = [step, {"event": "validation", "step": 1, "tokens": 64, "bits_per_byte": bits}]
    (root / "train" / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return found


@pytest.mark.parametrize("missing", [False, True])
def test_the_report_shows_hardware_versions_lineage_and_where_the_time_went(tmp_path: Path, missing: bool) -> None:
    artifacts = _artifacts(tmp_path, missing)
    start = Start(0, 4 * 10**9, dict.fromkeys(CAUSES, 0) | {"stepping": 3 * 10**9, "starting": 10**9}, outcome="done")
    (tmp_path / "train" / "times").mkdir()
    (tmp_path / "train" / "times" / "start-000001.json").write_text(json.dumps(asdict(start)))
    recipe = load_recipe(SMOKE, ["launch.environment={LOGIN: hunter2}"])
    report.write_page(recipe, artifacts, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for shown in ("2 ranks (Some CPU)", "torch 2.13.0", "Branched at step 2 from runs/first", "12.5"):
        assert shown in page
    assert '<td>stepping</td><td class="n">3s</td><td class="n">75.0%</td>' in page
    assert '<td>starting</td><td class="n">1s</td><td class="n">25.0%</td>' in page
    assert ('<td class="n">–</td>' in page) == missing
    assert "hunter2" not in page
