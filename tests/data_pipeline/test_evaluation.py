"""Figures of a classifier, against the slow obvious way of counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.classification import evaluation
from data_pipeline.classification.fasttext_model import softmax

scored = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=60).filter(
    lambda pairs: len({positive for _, positive in pairs}) == 2
)


def _arrays(pairs):
    return np.array([score / 20 for score, _ in pairs]), np.array([positive for _, positive in pairs])


@given(scored)
def test_auc_is_the_share_of_rightly_ordered_pairs(pairs):
    scores, positive = _arrays(pairs)
    ordered = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert evaluation.auc(scores, positive) == pytest.approx(sum(ordered) / len(ordered))


@given(scored, st.data())
def test_thresholds_count_what_lies_at_or_above_them(pairs, data):
    scores, positive = _arrays(pairs)
    eligible = np.array(data.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs))))
    table = evaluation.thresholds(scores, positive, eligible)
    assert table["threshold"] == sorted(set(table["threshold"]))
    assert bool(table["threshold"]) == bool(eligible.any())
    for threshold, share, precision, recall in zip(*table.values(), strict=True):
        chosen = (scores >= threshold) & eligible
        assert share == pytest.approx(chosen.mean(), abs=1e-6)
        assert precision == pytest.approx(positive[chosen].mean(), abs=1e-6)
        assert recall == pytest.approx(chosen[positive].mean(), abs=1e-6)


def test_precision_recall_and_f1():
    chosen = np.array([True, True, False, False])
    positive = np.array([True, False, True, False])
    assert evaluation.precision_recall(chosen, positive) == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert evaluation.precision_recall(~(chosen | ~chosen), positive)["precision"] == 0


def test_confusion_has_a_row_for_each_true_label():
    truth, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    assert evaluation.confusion(truth, predicted, 3) == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_reliability_compares_confidence_with_what_is_right():
    confidence = np.array([0.05, 0.06, 0.95, 1.0])
    table = evaluation.reliability(confidence, np.array([False, True, True, True]))
    assert table["texts"] == [2, 2]
    assert table["confidence"] == pytest.approx([0.055, 0.975])
    assert table["share_right"] == [0.5, 1.0]
    assert table["expected_calibration_error"] == pytest.approx((0.445 + 0.025) / 2)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("labels", [2, 5])
def test_the_temperature_that_made_the_labels_is_found_again(temperature, labels):
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(20_000, labels)) * 3
    cumulated = softmax(logits / temperature).cumsum(axis=1)
    truth = (generator.random((len(logits), 1)) > cumulated).sum(axis=1)
    assert evaluation.fit_temperature(logits, truth) == pytest.approx(temperature, rel=0.05)


def test_few_or_faultless_texts_do_not_drive_the_temperature_away():
    logits = np.array([[4.0, -4.0], [-4.0, 4.0]] * 60)
    truth = np.array([0, 1] * 60)
    assert evaluation.fit_temperature(logits, truth) == pytest.approx(0.5, abs=0.01)
    assert evaluation.fit_temperature(logits[:99], truth[:99]) == 1.0


@settings(max_examples=30)
@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=1, max_size=5))
def test_softmax_adds_up_to_one_whatever_the_logits(rows):
    probabilities = softmax(np.array(rows))
    assert np.isfinite(probabilities).all()
    assert probabilities.sum(axis=-1) == pytest.approx(1)


def test_labels_without_test_texts_are_left_out_of_the_means():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1]])
    judged = evaluation.judge(probabilities, np.array([0, 1, 0]), ["law", "math", "code"])
    assert set(judged["labels"]) == {"law", "math"}
    assert judged["accuracy"] == pytest.approx(2 / 3)
    assert judged["mean_recall"] == pytest.approx((0.5 + 1) / 2)
