"""Labelled text -> quality, toxicity and domain models, each with its model card.

Contract: for each classifier of the recipe writes

    <name>/model.bin    fastText model; the same labels give the same bytes
    <name>/card.json    data and hashes, settings, temperature, and results on the held-out test part:
                        precision, recall, F1, AUC, calibration, thresholds

The stage of the command line adds `<name>/card.html` (launch/reports/model_card.py). Texts are split by hash
(data_pipeline/classification/labelled.py); probabilities are calibrated by one temperature, fitted on the calibration
part. Too few labels, a missing label or an unreadable line is a `UserError`. Cost: reading the labelled
files, and seconds for ten thousand short texts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.data_schema import CLASSIFIER_LABELS, Classifier
from configs.schema import Recipe
from data_pipeline.classification import evaluation, fasttext_model, labelled
from data_pipeline.classification.fasttext_model import Predictor
from data_pipeline.features import language
from twofold.artifacts import digest
from twofold.files import sha256_of, write_json
from twofold.stage import Stage

CODE_VERSION = 2
MODEL_FILE = "model.bin"
CARD_FILE = "card.json"
_SUMMARY = ("auc", "precision", "recall", "f1", "accuracy", "mean_auc", "mean_f1")


def config(recipe: Recipe) -> dict[str, Any]:
    """What the models depend on besides the labelled files, which `fingerprints` covers."""
    settings = recipe.data.classifiers.configured.items()
    return {name: item.model_dump(mode="json", exclude={"train"}) for name, item in settings} | {"seed": recipe.seed}


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Classifier -> hash of its labelled files' contents and of the labels given by `LABEL=PATH`."""
    found = {}
    for name, settings in recipe.data.classifiers.configured.items():
        entries = labelled.entries(settings, CLASSIFIER_LABELS[name], _field(name))
        files = [[entry.label, [file["sha256"] for file in labelled.hashes(entry, _field(name))]] for entry in entries]
        found[name] = digest(files)
    return found


def build(recipe: Recipe, out: Path, work: Path) -> Mapping[str, Any]:
    """Train and evaluate every classifier of the recipe; returns the main metrics of each."""
    counts = {}
    for name, settings in recipe.data.classifiers.configured.items():
        card = _build_one(name, settings, recipe.seed, out / name, work / name)
        counts[name] = {"test_texts": card["test"]["all"]["texts"]} | {
            key: round(card["test"]["all"][key], 4) for key in _SUMMARY if key in card["test"]["all"]
        }
    return counts


STAGE = Stage(
    name="classifiers",
    makes="models of quality, toxicity, domain",
    code_version=CODE_VERSION,
    config=config,
    build=build,
    fingerprints=fingerprints,
    in_recipe=lambda recipe: bool(recipe.data.classifiers.configured),
)


def load(folder: Path) -> dict[str, Predictor]:
    """The stage's models by name, ready to predict."""
    return {path.parent.name: _predictor(path.parent) for path in sorted(folder.glob(f"*/{CARD_FILE}"))}


def _predictor(folder: Path) -> Predictor:
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    return Predictor(folder / MODEL_FILE, card["labels"], card["temperature"])


def _build_one(name: str, settings: Classifier, seed: int, out: Path, work: Path) -> dict[str, Any]:
    known, where = CLASSIFIER_LABELS[name], _field(name)
    entries = labelled.entries(settings, known, where)
    data = labelled.read(entries, settings, known, seed, where)
    training, calibration, test = (data.parts[part] for part in labelled.PARTS)
    labels = [label for label in known if any(text.label == label for text in training)]
    model = out / MODEL_FILE
    fasttext_model.train(((item.label, item.text) for item in training), settings, work / "labelled.txt", model)

    predictor = Predictor(model, labels)
    temperature = evaluation.fit_temperature(*_logits(predictor, calibration))
    logits, truth = _logits(predictor, test)
    languages = np.array([_language(item) for item in test])
    card = {
        "name": name,
        "labels": labels,
        "temperature": temperature,
        "model_sha256": sha256_of(model),
        "model_bytes": model.stat().st_size,
        "made_with": fasttext_model.version(),
        "seed": seed,
        "settings": settings.model_dump(mode="json", exclude={"train"}),
        "inputs": [
            {"entry": entry.name, "records": data.records[number], "files": labelled.hashes(entry, where)}
            for number, entry in enumerate(entries)
        ],
        "texts": {part: _tally(items) for part, items in data.parts.items()},
        "left_out": data.left_out,
        "test": _judgements(fasttext_model.softmax(logits / temperature), truth, languages, labels),
        "uncalibrated_error": _calibration_error(fasttext_model.softmax(logits), truth),
    }
    write_json(out / CARD_FILE, card)
    return card


def _judgements(
    probabilities: np.ndarray, truth: np.ndarray, languages: np.ndarray, labels: Sequence[str]
) -> dict[str, Any]:
    """Results on all test texts, and on each language with enough texts of two labels."""
    found = {"all": evaluation.judge(probabilities, truth, labels)}
    for code in ("ko", "en"):
        of = languages == code
        if (np.bincount(truth[of]) >= labelled.MIN_PER_LABEL).sum() >= 2:
            found[code] = evaluation.judge(probabilities[of], truth[of], labels)
    return found


def _calibration_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    if probabilities.shape[1] == 2:
        table = evaluation.reliability(probabilities[:, 0], truth == 0)
    else:
        table = evaluation.reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth)
    return float(table["expected_calibration_error"])


def _logits(predictor: Predictor, items: Sequence[labelled.Text]) -> tuple[np.ndarray, np.ndarray]:
    """Logits (texts, labels) and label indices (texts,)."""
    truth = np.array([predictor.labels.index(item.label) for item in items])
    return np.array([predictor.logits(item.text) for item in items]), truth


def _tally(items: Sequence[labelled.Text]) -> dict[str, dict[str, int]]:
    """Label -> language -> texts."""
    counts = Counter((item.label, _language(item)) for item in items)
    table: dict[str, dict[str, int]] = {}
    for (label, code), count in sorted(counts.items()):
        table.setdefault(label, {})[code] = count
    return table


def _language(item: labelled.Text) -> str:
    return item.language or language.identify(item.text)[0]


def _field(name: str) -> str:
    return f"data.classifiers.{name}.train"
