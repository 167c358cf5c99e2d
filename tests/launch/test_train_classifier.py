"""`twofold train-classifier`: cards, thresholds for a target, refusals; hostile texts in the card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from configs.recipe import load_recipe
from data_pipeline.classification import evaluation
from launch.actions.train_classifier import Target, thresholds, train_classifier
from launch.reports import model_card
from tests.launch.conftest import SMOKE
from twofold.errors import UserError


def _card(name: str, labels: list[str], probabilities: np.ndarray, truth: np.ndarray) -> dict:
    judged = evaluation.judge(probabilities, truth, labels)
    return {
        "name": name,
        "labels": labels,
        "temperature": 1.5,
        "model_sha256": "ab" * 32,
        "model_bytes": 10,
        "seed": 1,
        "made_with": "fasttext-community",
        "settings": {"labels": {"<script>alert(1)</script>": labels[0]}},
        "inputs": [{"entry": "a.jsonl", "records": 4, "files": [{"file": "<img src=x>", "bytes": 1, "sha256": "cd"}]}],
        "texts": {"test": {labels[0]: {"ko": 2}}},
        "left_out": {"repeated": 0},
        "uncalibrated_error": 0.1,
        "test": {"all": judged, "ko": judged},
    }


@pytest.fixture
def binary() -> dict:
    scores = np.arange(100) / 100
    return _card("quality", ["good", "bad"], np.stack([scores, 1 - scores], axis=1), (scores < 0.6).astype(int))


def _bounds(lines: list[str]) -> dict[str, float]:
    return {line.split(":")[0].strip(): float(line.split("}}")[0].rsplit(" ", 1)[1]) for line in lines[1:]}


def test_a_share_is_that_of_the_kept(binary: dict) -> None:
    lines = thresholds(binary, Target(share=0.3), {})
    assert lines[0] == "  rules:"
    assert "quality_score: {min:" in lines[1]
    assert _bounds(lines) == pytest.approx({"ko": 0.7, "en": 0.7}, abs=0.011)
    toxic = thresholds({**binary, "name": "toxicity"}, Target(share=0.3), {})
    assert "toxicity_score: {max:" in toxic[1]
    assert _bounds(toxic)["ko"] == pytest.approx(0.3, abs=0.011)


def test_a_share_of_the_recipes_own_documents_goes_first(binary: dict) -> None:
    lines = thresholds(binary, Target(share=0.3), {"ko": np.arange(1000) / 10_000})
    assert _bounds(lines) == pytest.approx({"ko": 0.07, "en": 0.7}, abs=0.011)
    assert "of 1,000 documents scored" in lines[1]
    assert "of 100 test texts" in lines[2]


def test_a_precision_takes_the_lowest_threshold_that_reaches_it(binary: dict) -> None:
    lines = thresholds(binary, Target(precision=0.8), {})
    assert _bounds(lines)["ko"] == pytest.approx(0.5, abs=0.011)
    scores = np.arange(100) / 100
    blind = _card("quality", ["good", "bad"], np.stack([scores, 1 - scores], axis=1), np.arange(100) % 2)
    with pytest.raises(UserError, match=r"--target-precision.*is not reached by any threshold of quality"):
        thresholds(blind, Target(precision=0.99), {})
    assert thresholds(binary, Target(), {}) == []


def test_domains_get_routes(binary: dict) -> None:
    labels = ["general", "law", "math"]
    truth = np.repeat([0, 1, 2], 50)
    probabilities = np.full((150, 3), 0.05)
    probabilities[np.arange(150), truth] = 0.9
    probabilities[100:] = (0.2, 0.5, 0.3)  # mathematics is taken for law
    card = _card("domain", labels, probabilities, truth)
    lines = thresholds(card, Target(precision=0.9), {})
    assert lines[1].startswith("    to-law: {domain: law, min_score: 0.9,")
    assert lines[2] == "    # math: no threshold has precision 90.0%"
    assert thresholds(card, Target(share=0.5), {}) == []
    page = model_card.render(card)
    assert "Confusion" in page


def test_the_card_escapes_what_it_shows(binary: dict) -> None:
    page = model_card.render(binary)
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert page == model_card.render(json.loads(json.dumps(binary)))
    assert page.count("<svg") == 2


@pytest.mark.parametrize(
    ("name", "target", "overrides", "problem"),
    [
        (None, Target(), ["data.classifiers.quality=null"], "has no classifier"),
        ("toxicity", Target(), [], "--name = 'toxicity': is not a classifier of this recipe"),
        ("domain", Target(share=0.3), ["data.classifiers.domain={train: [x]}"], "does not apply to domains"),
    ],
)
def test_what_cannot_be_trained_is_refused(name, target, overrides, problem) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=problem):
        train_classifier(load_recipe(SMOKE, overrides), name, target, Console(quiet=True))


@pytest.mark.parametrize(
    ("share", "precision", "problem"),
    [(0.3, 0.9, "is given with --target-precision"), (1.5, None, "is outside"), (None, 0.0, "is outside")],
)
def test_targets_that_make_no_sense(share: float | None, precision: float | None, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        Target(share, precision)


def test_trains_shows_and_takes_the_share_of_scored_documents(packed_run: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    recipe = load_recipe(SMOKE, [f"run_dir={packed_run}"])
    console = Console(width=140, highlight=False)
    train_classifier(recipe, "quality", Target(share=0.5), console)
    shown = capsys.readouterr().out
    assert "quality classifier" in shown
    assert "documents scored" in shown
    assert "    ko: {quality_score: {min:" in shown
    card = packed_run / "classifiers" / "quality" / "card.html"
    assert card.read_text(encoding="utf-8").startswith("<!doctype html>")
