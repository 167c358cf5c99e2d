"""Metrics of classifiers: AUC, precision and recall by threshold, confusion, calibration. Pure numpy.

Contract: `probabilities` are float arrays of shape (texts, labels), `truth` is the index of each text's label,
`positive` a boolean array of shape (texts,). Results are plain JSON. Cost: milliseconds for ten thousand texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipeline.classification.fasttext_model import softmax

_BINS = 10
_QUANTILES = 100
_LOG_TEMPERATURES = (math.log(0.5), math.log(50))
_STEPS = 60
_MIN_CALIBRATION_TEXTS = 100


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive text scores above a negative one; ties count half (Mann-Whitney U)."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int(positive.sum())
    negatives = len(positive) - positives
    assert 0 < positives < len(positive), "an AUC needs both kinds"
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def precision_recall(chosen: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of `chosen`; precision is 0 if nothing is chosen."""
    hits = int((chosen & positive).sum())
    precision = hits / max(1, int(chosen.sum()))
    recall = hits / max(1, int(positive.sum()))
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(1e-12, precision + recall)}


def thresholds(scores: np.ndarray, positive: np.ndarray, eligible: np.ndarray | None = None) -> dict[str, list[float]]:
    """At up to 100 quantiles of the scores: share of all texts at or above it, their precision, and recall.

    Only `eligible` texts (default: all) can be chosen.
    """
    eligible = np.ones(len(scores), bool) if eligible is None else eligible
    candidates = np.sort(scores[eligible])
    hits_sorted = np.sort(scores[eligible & positive])
    if not len(candidates):
        return {"threshold": [], "share": [], "precision": [], "recall": []}
    bounds = np.unique(np.quantile(candidates, np.arange(_QUANTILES) / _QUANTILES, method="higher"))
    chosen = len(candidates) - np.searchsorted(candidates, bounds)
    hits = len(hits_sorted) - np.searchsorted(hits_sorted, bounds)
    columns = {
        "threshold": np.floor(bounds * 1e6) / 1e6,
        "share": chosen / len(scores),
        "precision": hits / chosen,
        "recall": hits / max(1, int(positive.sum())),
    }
    return {name: np.round(values, 6).tolist() for name, values in columns.items()}


def confusion(truth: np.ndarray, predicted: np.ndarray, labels: int) -> list[list[int]]:
    """Row: true label, column: predicted."""
    table = np.bincount(truth * labels + predicted, minlength=labels**2)
    return table.reshape(labels, labels).tolist()


def reliability(confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Mean confidence and accuracy in ten equal bins of confidence, and their mean gap (ECE)."""
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    filled = counts > 0
    means = np.bincount(bins, confidence, _BINS)[filled] / counts[filled]
    shares = np.bincount(bins, right.astype(float), _BINS)[filled] / counts[filled]
    return {
        "texts": counts[filled].tolist(),
        "confidence": means.tolist(),
        "share_right": shares.tolist(),
        "expected_calibration_error": float((np.abs(means - shares) * counts[filled]).sum() / counts.sum()),
    }


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The T whose softmax(logits / T) has the least cross-entropy with the labels (Guo et al. 2017, 4.2).

    The loss is convex in 1/T, so a golden-section search finds its minimum. T is at least 0.5, since it would
    go to 0 if the model made no mistakes; fewer than 100 texts are too few (T = 1).
    """
    if len(truth) < _MIN_CALIBRATION_TEXTS:
        return 1.0
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        return -float(np.log(softmax(logits / math.exp(log_temperature))[rows, truth] + 1e-300).sum())

    low, high = _LOG_TEMPERATURES
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return round(math.exp((low + high) / 2), 6)


def judge(probabilities: np.ndarray, truth: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Everything that a model card says about a set of texts; of two labels, the first is the positive one."""
    if len(labels) == 2:
        return _judge_binary(probabilities[:, 0], truth == 0)
    return _judge_many(probabilities, truth, labels)


def _judge_binary(scores: np.ndarray, positive: np.ndarray) -> dict[str, Any]:
    return {
        "texts": len(scores),
        "positive": int(positive.sum()),
        "auc": auc(scores, positive),
        **precision_recall(scores >= 0.5, positive),
        "reliability": reliability(scores, positive),
        "thresholds": thresholds(scores, positive),
    }


def _judge_many(probabilities: np.ndarray, truth: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    by_label = {
        label: {
            "texts": int((truth == index).sum()),
            "auc": auc(probabilities[:, index], truth == index),
            **precision_recall(predicted == index, truth == index),
            "thresholds": thresholds(confidence, truth == index, predicted == index),
        }
        for index, label in enumerate(labels)
        if 0 < (truth == index).sum() < len(truth)
    }
    means = {
        f"mean_{name}": float(np.mean([row[name] for row in by_label.values()]))
        for name in ("auc", "precision", "recall", "f1")
    }
    return {
        "texts": len(truth),
        "accuracy": float((predicted == truth).mean()),
        **means,
        "labels": by_label,
        "confusion": confusion(truth, predicted, len(labels)),
        "reliability": reliability(confidence, predicted == truth),
    }
