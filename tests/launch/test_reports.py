"""What all pages share: figures that say what they show, and an index of a run's pages."""

from __future__ import annotations

import re
from pathlib import Path

from launch import reports
from launch.reports import plots
from launch.reports.report import _in_words


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
