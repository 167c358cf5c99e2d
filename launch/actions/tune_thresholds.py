"""`twofold tune-thresholds`: thresholds for a language from good text, as a recipe fragment with a plot.

Contract: reads the scores that `twofold run RECIPE --until score` made, and writes two files, atomically:

    OUT.yaml   `extends: RECIPE` and the new bounds, each with its evidence as a comment; it is a valid
               recipe by itself, checked by loading it, and its `data:` section can be pasted elsewhere
    OUT.html   a histogram of every rule's feature, by source, with the former and the new bound

The method is data_pipeline/decisions/thresholds.py's; docs/tuning-thresholds.md derives the shipped values.
No score is recomputed and no text read: seconds.
"""

from __future__ import annotations

import csv
import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from configs.data_schema import Language
from configs.recipe import load_recipe
from configs.schema import Recipe
from data_pipeline.decisions.thresholds import (
    GOOD,
    Columns,
    Settings,
    Threshold,
    columns_of,
    joined,
    judged,
    share_failing,
    thresholds,
)
from launch.runner import existing
from twofold.errors import user_error
from twofold.files import atomic_path

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#5F5F5F")
_WIDTH, _HEIGHT, _BINS = 720, 200, 72


def settings_of(reference: str, drop_shares: Sequence[str]) -> Settings:
    """The command line's `--reference A,B+C` and `--drop-share 0.01 FEATURE=0.02 …`."""
    common = 0.01
    by_feature: dict[str, float] = {}
    for word in drop_shares:
        name, _, number = word.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            raise user_error("--drop-share", word, "is not a number", "write 0.01, or feature=0.02") from None
        if name:
            by_feature[name] = share
        else:
            common = share
    return Settings(tuple(name.strip() for name in reference.split(",") if name.strip()), common, by_feature)


def tune_thresholds(
    recipe_path: Path,
    recipe: Recipe,
    language: Language,
    settings: Settings,
    out: Path,
    console: Console,
    verdicts: Path | None = None,
) -> list[Threshold]:
    """Derive, write, show; returns the thresholds."""
    if out.suffix not in (".yaml", ".yml") or out.resolve() == recipe_path.resolve():
        raise user_error("--out", str(out), "cannot hold a recipe fragment", "name a new .yaml file")
    for source in (part for reference in settings.reference for part in reference.split("+")):
        if source not in recipe.sources:
            raise user_error("--reference", source, "is not a source", f"use one of {', '.join(recipe.sources)}")
    scored = existing(recipe).get("score")
    if scored is None:
        command = f"twofold run {recipe_path} --until score"
        raise user_error("--reference", None, "cannot be measured: the recipe has no scores yet", f"run `{command}`")
    measured = columns_of(scored.path / "attributes", language, getattr(recipe.data.rules, language))
    columns = joined(measured, settings.reference)
    if verdicts:
        columns |= judged(scored.path / "attributes", language, verdicts_of(verdicts))
        if GOOD not in columns:
            problem = f"judges no {language} document of this run good"
            raise user_error("--verdicts", str(verdicts), problem, "use the ids of the recipe's documents")
        settings = replace(settings, reference=(*settings.reference, GOOD))
    found = thresholds(columns, getattr(recipe.data.rules, language), settings)
    text = fragment(found, language, settings, os.path.relpath(recipe_path, out.parent))
    with atomic_path(out) as partial:
        partial.write_text(text, encoding="utf-8")
        load_recipe(partial)
    with atomic_path(out.with_suffix(".html")) as partial:
        partial.write_text(page(found, columns, language, settings), encoding="utf-8")
    _show(found, columns, settings, console)
    return found


def verdicts_of(path: Path) -> dict[str, str]:
    """Id -> good or junk, of a tab-separated file with the columns `id` and `verdict`."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = {row["id"]: row["verdict"] for row in csv.DictReader(file, delimiter="\t")}
    except (OSError, UnicodeDecodeError, KeyError) as error:
        problem = f"cannot be read as verdicts: {error}"
        raise user_error("--verdicts", str(path), problem, "give columns `id` and `verdict`, tab-separated") from None
    for identity, verdict in found.items():
        if verdict not in ("good", "junk"):
            raise user_error("--verdicts", verdict, f"is no verdict on {identity}", "write good or junk")
    return found


def fragment(found: Sequence[Threshold], language: str, settings: Settings, base: str) -> str:
    """The recipe fragment as YAML."""
    lines = [
        f"# Thresholds for {language}, from {', '.join(settings.reference)}: each drops at most a share of "
        f"{settings.drop_share:g} of each.",
        f"extends: {base}",
        "data:",
        "  rules:",
        f"    {language}:",
    ]
    for feature in dict.fromkeys(threshold.feature for threshold in found):
        sides = [threshold for threshold in found if threshold.feature == feature]
        bounds = ", ".join(f"{threshold.side}: {threshold.value:g}" for threshold in sides)
        evidence = "; ".join(_evidence(threshold, settings) for threshold in sides)
        lines.append(f"      {feature}: {{{bounds}}}  # {evidence}")
    return "\n".join(lines) + "\n"


def _evidence(threshold: Threshold, settings: Settings) -> str:
    if not threshold.measured:
        return "kept: the reference has no tail here"
    dropped = max(threshold.dropped[source] for source in settings.reference)
    return f"was {threshold.former:g}; drops at most {dropped:.2%} of {threshold.documents} documents"


def _show(found: Sequence[Threshold], columns: Mapping[str, Columns], settings: Settings, console: Console) -> None:
    names = [*settings.reference, *(name for name in columns if name not in settings.reference)]
    table = Table("rule", "was", "now", *(f"{name} %" for name in names), title="share dropped by each rule (now)")
    for threshold in found:
        shares = [f"{100 * threshold.dropped[name]:.2f}" for name in names]
        now = f"{threshold.value:g}" if threshold.measured else "kept"
        table.add_row(f"{threshold.feature} {threshold.side}", f"{threshold.former:g}", now, *shares)
    for label, former in (("all of them, before", True), ("all of them, now", False)):
        table.add_row(label, "", "", *(f"{100 * share_failing(columns[name], found, former):.2f}" for name in names))
    table.add_row("documents measured", "", "", *(str(len(columns[name]["words"])) for name in names))
    console.print(table)


# --- the page -----------------------------------------------------------------------------------


def page(found: Sequence[Threshold], columns: Mapping[str, Columns], language: str, settings: Settings) -> str:
    """One self-contained page: a figure for each rule."""
    figures = "".join(_figure(threshold, columns, settings) for threshold in found)
    colours = dict(zip(columns, _COLOURS * len(columns), strict=False))
    legend = " ".join(
        f'<span style="color:{colours[name]}">&#9632; {html.escape(name)}</span>'
        f"{' (reference)' if name in settings.reference else ''} {len(values['words'])}"
        for name, values in columns.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Calibration, {html.escape(language)}</title>'
        "<style>body{font:15px/1.5 sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}"
        "svg{width:100%;height:auto}h2{font-size:1rem;margin:2rem 0 0}p{margin:.2rem 0}</style>"
        f"<h1>Calibration, {html.escape(language)}</h1>"
        f"<p>Each new bound (solid) drops at most {settings.drop_share:.2%} of each reference source, "
        "unless its line says otherwise; the former one is dashed. Heights: square root of the share "
        "of a source's documents.</p>"
        f"<p>{legend}</p>{figures}</html>\n"
    )


def _figure(threshold: Threshold, columns: Mapping[str, Columns], settings: Settings) -> str:
    every = np.concatenate([values[threshold.feature] for values in columns.values()])
    low, high = np.quantile(every, (0.001, 0.999))
    low, high = min(low, threshold.value, threshold.former), max(high, threshold.value, threshold.former)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    shapes = []
    for colour, (source, values) in zip(_COLOURS * len(columns), columns.items(), strict=False):
        counts, _ = np.histogram(np.clip(values[threshold.feature], edges[0], edges[-1]), edges)
        # The square root keeps thin tails visible, which is where the bounds are.
        heights = np.sqrt(counts / len(values[threshold.feature]))
        points = " ".join(
            f"{_WIDTH * bin_ / _BINS:.1f},{_HEIGHT * (1 - height):.1f} "
            f"{_WIDTH * (bin_ + 1) / _BINS:.1f},{_HEIGHT * (1 - height):.1f}"
            for bin_, height in enumerate(heights)
        )
        width = 2.2 if source in settings.reference else 1
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
    for value, dashes in ((threshold.former, "5 4"), (threshold.value, "")):
        x = _WIDTH * (value - edges[0]) / (edges[-1] - edges[0])
        shapes.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT}" stroke="#222" stroke-dasharray="{dashes}"/>'
        )
    labels = (
        f'<text x="0" y="{_HEIGHT + 16}">{edges[0]:.3g}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 16}" text-anchor="end">{edges[-1]:.3g}</text>'
    )
    return (
        f"<h2>{threshold.feature} {threshold.side} {threshold.value:g}</h2>"
        f"<p>{html.escape(_evidence(threshold, settings))}.</p>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 20}" font-size="12">{"".join(shapes)}{labels}</svg>'
    )
