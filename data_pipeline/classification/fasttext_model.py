"""Linear text classifiers (fastText, Joulin et al. 2016); the only module that imports fasttext.

Contract: `train` uses one thread and a fixed seed, so the same lines give the same bytes, and leaves a complete
model file or none (fastText itself ignores a full disk). `Predictor` returns calibrated probabilities: the
softmax of the model's logits over a temperature (Guo et al. 2017). Logits are computed here from the document's
vector, since fastText's own probabilities saturate within 1e-5 of 0 and 1 and tie. Only the first
`READ_CHARACTERS` of a text are read. Cost: about 20 MB/s per core over words, half of that with character
n-grams; training on ten thousand short texts takes seconds.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.data_schema import Classifier
from twofold.files import atomic_path

READ_CHARACTERS = 20_000
"""Code points of a document that models read, which bounds the cost of long ones."""
_MARK = "__label__"
_BUCKETS = 2**18
"""Slots for hashed n-grams; times dimensions times 4 bytes, they are most of the model's size."""


class Predictor:
    """A loaded model; probabilities are in the order of `labels`."""

    def __init__(self, path: Path, labels: Sequence[str], temperature: float = 1.0) -> None:
        import fasttext

        self.labels = tuple(labels)
        self._model = fasttext.load_model(str(path))
        known = self._model.get_labels()
        rows = [known.index(_MARK + label) for label in labels]
        self._weights = self._model.get_output_matrix()[rows].astype(np.float64)
        self._temperature = temperature

    def logits(self, text: str) -> np.ndarray:
        """Uncalibrated scores, float64 of shape (labels,)."""
        return self._weights @ self._model.get_sentence_vector(as_line(text)).astype(np.float64)  # type: ignore[no-any-return]

    def probabilities(self, text: str) -> np.ndarray:
        """Calibrated probabilities, float64 of shape (labels,), that sum to 1."""
        return softmax(self.logits(text) / self._temperature)

    def probability(self, text: str) -> float:
        """The probability of the first label."""
        return float(self.probabilities(text)[0])

    def label_and_probability(self, text: str) -> tuple[str, float]:
        """The likeliest label (the first of equals) and its probability."""
        values = self.probabilities(text)
        best = int(values.argmax())
        return self.labels[best], float(values[best])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis, without overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def as_line(text: str) -> str:
    """The form that models read: lower case, one line, single spaces, no label marks in the text itself."""
    return " ".join(text[:READ_CHARACTERS].lower().replace(_MARK, " ").split())


def train(labelled: Iterable[tuple[str, str]], settings: Classifier, lines: Path, target: Path) -> None:
    """Fit (label, text) pairs in this order and write the model to `target`; `lines` is a scratch file."""
    import fasttext

    with atomic_path(lines) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.writelines(f"{_MARK}{label} {as_line(text)}\n" for label, text in labelled)
    shortest, longest = settings.character_ngrams
    model = fasttext.train_supervised(
        input=str(lines),
        dim=settings.dimensions,
        epoch=settings.epochs,
        wordNgrams=settings.word_ngrams,
        minn=shortest,
        maxn=longest,
        lr=settings.learning_rate,
        bucket=_BUCKETS,
        minCount=1,
        thread=1,
        seed=1,
        verbose=0,
    )
    with atomic_path(target) as partial:
        model.save_model(str(partial))
        if not _holds(partial, model):
            # fastText ignores a short write and would load a truncated model.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))


def version() -> str:
    """The fastText package and its version, for model cards."""
    return f"fasttext-community {importlib.metadata.version('fasttext-community')}"


def _holds(saved: Path, model: Any) -> bool:
    """Whether the saved file has all of the model's weights."""
    import fasttext

    try:
        copy = fasttext.load_model(str(saved))
    except (ValueError, MemoryError):
        return False
    return np.array_equal(model.get_input_matrix(), copy.get_input_matrix()) and np.array_equal(
        model.get_output_matrix(), copy.get_output_matrix()
    )
