"""The quality classifier: fastText on labelled text; the only module that imports fasttext.

Contract: `build` trains a linear model over words and word n-grams (Joulin et al. 2016) with one
thread and a fixed seed, so the same labels give the same bytes, and writes `model.bin` and `card.json`
with precision, recall and AUC on texts it did not see. Labels are JSON Lines (`text`, `label`: good or
bad). Too few labels, a missing class or an unreadable line is a `UserError`. Cost: seconds for a
thousand labels; prediction about 15 MB/s.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.data_schema import Classifier
from configs.errors import UserError, user_error
from configs.files import atomic_path, sha256_of, write_json
from configs.schema import Recipe
from data_pipeline.reading import normalise, streams

CODE_VERSION = 1
MODEL_FILE = "model.bin"
CARD_FILE = "card.json"

MIN_PER_LABEL = 20
_LABELS = ("good", "bad")
_FIELD = "data.classifiers.quality.train"
_MAX_LINE_BYTES = 8_000_000
_READ_CHARACTERS = 50_000
"""How much of a document the model reads; keeps the cost of the longest ones bounded."""
_BUCKETS = 2**18
"""Slots for hashed word n-grams; x dimensions x 4 bytes is most of the model's size."""
_LEARNING_RATE = 0.5


@dataclass(frozen=True)
class Labelled:
    """One labelled text."""

    text: str
    good: bool


class QualityModel:
    """A trained model, loaded."""

    def __init__(self, path: Path) -> None:
        import fasttext

        self._model = fasttext.load_model(str(path))

    def probability(self, text: str) -> float:
        """Probability that `text` is good, in 0..1."""
        labels, probabilities = self._model.predict(_line(text), k=len(_LABELS))
        return min(1.0, float(dict(zip(labels, probabilities, strict=True)).get("__label__good", 0.0)))


def config(recipe: Recipe) -> dict[str, Any]:
    """What decides the model besides the labelled file, which `fingerprint` stands for."""
    return {"classifier": _settings(recipe).model_dump(mode="json", exclude={"train"}), "seed": recipe.seed}


def fingerprint(recipe: Recipe) -> str:
    """SHA-256 of the labelled file."""
    path = Path(_settings(recipe).train[0])
    try:
        return sha256_of(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def build(recipe: Recipe, out: Path, work: Path) -> Mapping[str, Any]:
    """Train, judge on held-out texts, write; returns the card."""
    settings = _settings(recipe)
    labelled = _read(Path(settings.train[0]))
    training, held_out = _split(labelled, settings.held_out_share, recipe.seed)
    lines = work / "labelled.txt"
    with atomic_path(lines) as partial:
        marked = [f"__label__{_LABELS[not item.good]} {_line(item.text)}\n" for item in training]
        partial.write_text("".join(marked), encoding="utf-8")
    _train(lines, settings, out / MODEL_FILE)
    model = QualityModel(out / MODEL_FILE)
    card = {
        "labels_sha256": fingerprint(recipe),
        "training": _tally(training),
        "held_out": _tally(held_out),
        **_judgement(np.array([model.probability(item.text) for item in held_out]), held_out),
    }
    write_json(out / CARD_FILE, card)
    return card


def auc(scores: np.ndarray, good: np.ndarray) -> float:
    """Probability that a good text scores above a bad one, ties counting half (Mann-Whitney U)."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int(good.sum())
    negatives = len(good) - positives
    return float((ranks[good].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _settings(recipe: Recipe) -> Classifier:
    assert recipe.data.classifiers.quality is not None, "the classifier stage runs only where the recipe has one"
    return recipe.data.classifiers.quality


def _train(lines: Path, settings: Classifier, target: Path) -> None:
    import fasttext

    model = fasttext.train_supervised(
        input=str(lines), dim=settings.dimensions, epoch=settings.epochs, wordNgrams=settings.word_ngrams,
        lr=_LEARNING_RATE, bucket=_BUCKETS, minCount=1, thread=1, seed=1, verbose=0,
    )  # fmt: skip
    with atomic_path(target) as partial:
        model.save_model(str(partial))
        if not _equal(model, partial):
            # fastText ignores a short write, and would load what is left of its model.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))


def _equal(model: Any, saved: Path) -> bool:
    """Whether the saved file holds the model's weights in full."""
    import fasttext

    try:
        copy = fasttext.load_model(str(saved))
    except (ValueError, MemoryError):
        return False
    return np.array_equal(model.get_input_matrix(), copy.get_input_matrix()) and np.array_equal(
        model.get_output_matrix(), copy.get_output_matrix()
    )


def _line(text: str) -> str:
    """fastText's form: one line, words apart by single spaces, no label marks of the text's own."""
    return " ".join(text[:_READ_CHARACTERS].lower().replace("__label__", " ").split())


def _read(path: Path) -> list[Labelled]:
    """Distinct labelled texts in file order; a text with both labels counts by its first."""
    found: dict[str, Labelled] = {}
    try:
        for number, line in enumerate(streams.lines(path, _MAX_LINE_BYTES), start=1):
            if isinstance(line, streams.LineTooLong) or line.strip():
                item = _parse(path, number, line)
                found.setdefault(item.text, item)
    except OSError as error:
        raise _unreadable(path, error) from error
    except streams.BrokenStream as error:
        raise user_error(_FIELD, str(path), f"is damaged ({error})", "restore the file") from error
    labelled = list(found.values())
    tally = _tally(labelled)
    for label in _LABELS:
        if tally[label] < MIN_PER_LABEL:
            raise user_error(
                _FIELD, str(path), f"holds {tally[label]} distinct texts labelled {label}, fewer than {MIN_PER_LABEL}",
                "label more, or remove data.classifiers.quality and every rule on quality_score",
            )  # fmt: skip
    return labelled


def _parse(path: Path, number: int, line: bytes | streams.LineTooLong) -> Labelled:
    problem = f"is longer than {_MAX_LINE_BYTES} bytes"
    if isinstance(line, bytes):
        try:
            record = json.loads(line)
            text, label = record["text"], record["label"]
            if isinstance(text, str) and label in _LABELS:
                return Labelled(normalise.normalise(normalise.repair(text)), label == "good")
            problem = f"has the label {label!r}"
        except (ValueError, KeyError, TypeError, RecursionError):
            problem = "is not a JSON object with `text` and `label`"
    mend = 'write {"text": "…", "label": "good"} (or "bad") there, or remove the line'
    raise user_error(f"{path}, line {number}", None, problem, mend)


def _split(labelled: Sequence[Labelled], share: float, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """Training and held-out texts; each label gives `share` of its texts, at least one, by a hash."""
    training: list[Labelled] = []
    held_out: list[Labelled] = []
    for good in (True, False):
        items = sorted((item for item in labelled if item.good == good), key=lambda item: _order(item.text, seed))
        cut = min(len(items) - 1, max(1, round(share * len(items))))
        held_out += items[:cut]
        training += items[cut:]
    # fastText learns in file order: labels in runs would leave it with the last one's bias.
    training.sort(key=lambda item: _order(item.text, seed))
    return training, held_out


def _order(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()


def _tally(items: Sequence[Labelled]) -> dict[str, int]:
    good = sum(item.good for item in items)
    return {"good": good, "bad": len(items) - good}


def _judgement(scores: np.ndarray, held_out: Sequence[Labelled]) -> dict[str, float]:
    """Precision and recall of `good` at 0.5, and AUC."""
    good = np.array([item.good for item in held_out])
    chosen = scores >= 0.5
    hits = int((chosen & good).sum())
    return {
        "precision": hits / int(chosen.sum()) if chosen.any() else 0.0,
        "recall": hits / int(good.sum()),
        "auc": auc(scores, good),
    }


def _unreadable(path: Path, error: OSError) -> UserError:
    return user_error(
        _FIELD, str(path), f"cannot be read ({error.strerror or error})", "name a readable JSON Lines file"
    )
