"""`twofold train-classifier RECIPE [--name N] [--target-share S | --target-precision P]`.

Contract: makes the chain up to the stage `classifiers`, shows each model's card as a table, and prints
the thresholds that reach the target as lines of a recipe. Shares are of the recipe's own documents, by
language, where the stage `score` has been made with these models; else of the test texts. Precision is
of the good among the kept, of the toxic among the dropped, of a domain among those routed to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from configs.schema import Recipe
from data_pipeline import tables
from launch.reports import model_card
from launch.runner import existing, run_recipe
from twofold.artifacts import Artifact
from twofold.errors import user_error

_FIGURES = ("auc", "precision", "recall", "f1", "accuracy", "mean_auc", "mean_f1")


@dataclass(frozen=True)
class Target:
    """What a threshold is to reach; one of the two, or neither."""

    share: float | None = None
    """Of documents that are kept."""
    precision: float | None = None

    def __post_init__(self) -> None:
        if self.share is not None and self.precision is not None:
            raise user_error("--target-share", self.share, "is given with --target-precision", "give one of them")
        for flag, value in (("--target-share", self.share), ("--target-precision", self.precision)):
            if value is not None and not 0 < value < 1:
                raise user_error(flag, value, "is outside 0..1", "write a share such as 0.3")


def train_classifier(recipe: Recipe, name: str | None, target: Target, console: Console) -> None:
    """Train what is missing, show the cards, choose the thresholds."""
    configured = recipe.data.classifiers.configured
    if not configured:
        hint = "add one: `classifiers: {quality: {train: [labelled.jsonl]}}`"
        raise user_error("data.classifiers", None, "has no classifier", hint)
    if name is not None and name not in configured:
        raise user_error("--name", name, "is not a classifier of this recipe", f"use one of {', '.join(configured)}")
    if name == "domain" and target.share is not None:
        raise user_error("--target-share", target.share, "does not apply to domains", "use --target-precision")
    made = run_recipe(recipe, console, until="classifiers").artifacts["classifiers"]
    scored = existing(recipe).get("score")
    lines: list[str] = []
    for chosen in [name] if name else configured:
        card = json.loads((made.path / chosen / "card.json").read_text(encoding="utf-8"))
        _show(card, made.path / chosen, console)
        lines += thresholds(card, target, _scores(scored, f"{chosen}_score") if target.share and scored else {})
    if lines:
        console.print("\nFor the recipe, below `data:`")
        console.print("\n".join(lines), markup=False, soft_wrap=True)


def thresholds(card: Mapping[str, Any], target: Target, scores: Mapping[str, np.ndarray]) -> list[str]:
    """Lines of a recipe: a bound for each language, or a route for each domain; none without a target."""
    if target.share is None and target.precision is None:
        return []
    if card["name"] == "domain":
        return [] if target.precision is None else ["  routes:", *_routes(card, target.precision)]
    bound = "max" if card["name"] == "toxicity" else "min"
    lines = ["  rules:"]
    for language in ("ko", "en"):
        judged = card["test"].get(language, card["test"]["all"])
        if language in scores:
            value, note = _quantile(scores[language], target, bound), f"of {len(scores[language]):,} documents scored"
        else:
            value, note = _row(judged["thresholds"], target, bound, card["name"]), f"of {judged['texts']:,} test texts"
        aim = f"keeps {target.share:.1%}" if target.share else f"precision {target.precision:.1%}"
        lines.append(f"    {language}: {{{card['name']}_score: {{{bound}: {value}}}}}  # {aim} {note}")
    return lines


def _routes(card: Mapping[str, Any], precision: float) -> Iterator[str]:
    for label, row in card["test"]["all"]["labels"].items():
        columns = row["thresholds"]
        reached = [index for index, value in enumerate(columns["precision"]) if value >= precision]
        if label == "general":
            continue
        if not reached:
            yield f"    # {label}: no threshold has precision {precision:.1%}"
            continue
        value, recall = columns["threshold"][reached[0]], columns["recall"][reached[0]]
        yield f"    to-{label}: {{domain: {label}, min_score: {value}, sources: […]}}  # recall {recall:.1%}"


def _row(columns: Mapping[str, list[float]], target: Target, bound: str, name: str) -> float:
    """The threshold whose share is nearest to the target, or the lowest that reaches the precision."""
    if target.share is not None:
        share = target.share if bound == "min" else 1 - target.share
        nearest = min(range(len(columns["share"])), key=lambda row: abs(columns["share"][row] - share))
        return columns["threshold"][nearest]
    assert target.precision is not None
    for threshold, precision in zip(columns["threshold"], columns["precision"], strict=True):
        if precision >= target.precision:
            return threshold
    best = max(columns["precision"], default=0.0)
    raise user_error(
        "--target-precision",
        target.precision,
        f"is not reached by any threshold of {name} (the best has {best:.3f})",
        "lower it, or label more texts",
    )


def _quantile(scores: np.ndarray, target: Target, bound: str) -> float:
    assert target.share is not None
    value = float(np.quantile(scores, 1 - target.share if bound == "min" else target.share))
    return math.floor(value * 1e6) / 1e6


def _scores(scored: Artifact, column: str) -> dict[str, np.ndarray]:
    """Language -> scores of the recipe's own documents."""
    found: dict[str, list[np.ndarray]] = {"ko": [], "en": []}
    for _, _, path in tables.task_files(scored.path / "attributes"):
        table = tables.read_table(path, ["language", column])
        languages = np.array(table["language"].to_pylist(), dtype=object)
        for code, parts in found.items():
            parts.append(table[column].to_numpy()[languages == code])
    joined = {code: np.concatenate(parts) for code, parts in found.items() if parts}
    return {code: scores for code, scores in joined.items() if len(scores)}


def _show(card: Mapping[str, Any], folder: Path, console: Console) -> None:
    figures = [key for key in _FIGURES if key in card["test"]["all"]]
    table = Table("test texts", "number", *figures, "calibration error", title=f"{card['name']} classifier")
    for name, judged in card["test"].items():
        error = judged["reliability"]["expected_calibration_error"]
        numbers = [f"{judged[key]:.4f}" for key in figures]
        table.add_row(model_card.SET_NAMES[name], f"{judged['texts']:,}", *numbers, f"{error:.4f}")
    console.print(table)
    for name, rows in model_card.tables(card).items():
        table = Table("threshold", "share", "precision", "recall", title=f"{card['name']}, {name}")
        for row in rows:
            table.add_row(f"{row['threshold']:.4f}", *(f"{row[key]:.1%}" for key in ("share", "precision", "recall")))
        console.print(table)
    console.print(f"model card: {escape(str(folder / 'card.html'))}", soft_wrap=True)
