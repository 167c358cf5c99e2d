"""`card.html`: what a classifier is for, its training data and its accuracy, on one page.

Contract: drawn only from `card.json`; self-contained, without scripts, all text escaped; the same bytes for the same
card. Takes under a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from launch import reports
from launch.reports import plots

PURPOSES = {
    "quality": "Scores how similar a document is to those labelled good; rules bound quality_score from below.",
    "toxicity": "Scores how similar a document is to those labelled toxic; rules bound toxicity_score from above.",
    "domain": "Predicts a document's domain; routes move general documents to it if the score is at least min_score.",
}
SET_NAMES = {"all": "all", "ko": "Korean", "en": "English"}
SHARES_SHOWN = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)


def write(folder: Path) -> None:
    """A page beside every `card.json` of the classifiers' artifact."""
    for path in sorted(folder.glob("*/card.json")):
        page = render(json.loads(path.read_text(encoding="utf-8")))
        reports.write(path.with_name("card.html"), page)


def render(card: Mapping[str, Any]) -> str:
    """The page of one card."""
    judged = {SET_NAMES[name]: result for name, result in card["test"].items()}
    return reports.render(
        "model_card.html",
        card=card,
        purpose=PURPOSES[card["name"]],
        judged=judged,
        figures=[title for title in ("auc", "precision", "recall", "f1") if title in card["test"]["all"]]
        or ["accuracy", "mean_auc", "mean_precision", "mean_recall", "mean_f1"],
        tables=tables(card),
        reliability=Markup(_reliability(judged)),
        curves=Markup(_curves(card)),
    )


def tables(card: Mapping[str, Any]) -> dict[str, list[dict[str, float]]]:
    """Threshold tables by set of test texts, or by label if there are more than two."""
    return {name: at_shares(columns) for name, columns in _thresholds(card).items()}


def _thresholds(card: Mapping[str, Any]) -> dict[str, Mapping[str, list[float]]]:
    everything = card["test"]["all"]
    if "labels" in everything:
        return {label: row["thresholds"] for label, row in everything["labels"].items()}
    return {SET_NAMES[name]: result["thresholds"] for name, result in card["test"].items()}


def at_shares(columns: Mapping[str, list[float]]) -> list[dict[str, float]]:
    """The rows whose share of the largest choice is nearest to each of SHARES_SHOWN, lowest threshold first."""
    if not columns["share"]:
        return []
    largest = columns["share"][0]
    nearest = {
        min(range(len(columns["share"])), key=lambda row: abs(columns["share"][row] - share * largest))
        for share in (1.0, *SHARES_SHOWN)
    }
    return [{name: values[row] for name, values in columns.items()} for row in sorted(nearest)]


def _reliability(judged: Mapping[str, Any]) -> str:
    series = {
        name: (result["reliability"]["confidence"], result["reliability"]["share_right"])
        for name, result in judged.items()
    }
    return plots.shares(series, "predicted probability", "observed share", diagonal=True)


def _curves(card: Mapping[str, Any]) -> str:
    """Precision over recall."""
    series = {name: (table["recall"], table["precision"]) for name, table in _thresholds(card).items()}
    return plots.shares(series, "recall", "precision")
