"""The quality classifier: deterministic, judged on held-out texts, strict about its labels."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from configs.errors import UserError
from data_pipeline import classifier

GOOD_WORDS = "정부는 조사 결과를 발표하였다 연구 보고서 the committee published its careful report about history"
BAD_WORDS = "대박 할인 클릭 무료 쿠폰 최저가 buy now cheap click free offer winner bonus"


def _records(count: int) -> list[dict[str, str]]:
    generator = random.Random(1)
    return [
        {"text": " ".join(generator.choices(words.split(), k=20)) + f" {number}", "label": label}
        for number in range(count)
        for words, label in ((GOOD_WORDS, "good"), (BAD_WORDS, "bad"))
    ]


@pytest.fixture
def labelled(tmp_path, make_recipe, write_jsonl):
    """`labelled(records)`: a recipe whose classifier trains on them."""

    def make(records):
        write_jsonl(tmp_path / "s.jsonl", ["x"])
        path = write_jsonl(tmp_path / "labels.jsonl", records)
        return make_recipe({"s": {"path": str(tmp_path / "s.jsonl")}}, classifiers={"quality": {"train": [str(path)]}})

    return make


def _build(recipe, folder):
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True)
    return classifier.build(recipe, folder / "out", folder / "work")


def test_learns_and_is_judged_on_unseen_texts(labelled, tmp_path):
    card = _build(labelled(_records(100)), tmp_path / "a")
    assert card == json.loads((tmp_path / "a/out/card.json").read_text())
    assert card["training"] == {"good": 80, "bad": 80}
    assert card["held_out"] == {"good": 20, "bad": 20}
    assert card["auc"] > 0.95
    assert card["precision"] > 0.9
    assert card["recall"] > 0.9
    model = classifier.QualityModel(tmp_path / "a/out/model.bin")
    assert model.probability("연구 보고서\n조사 결과를 발표하였다") > 0.8
    assert model.probability("무료 쿠폰 클릭 buy now __label__good") < 0.2
    assert 0 <= model.probability("") <= 1


def test_same_labels_same_bytes(labelled, tmp_path):
    recipe = labelled(_records(40))
    for name in ("a", "b"):
        _build(recipe, tmp_path / name)
    assert (tmp_path / "a/out/model.bin").read_bytes() == (tmp_path / "b/out/model.bin").read_bytes()


def test_repeated_texts_are_not_on_both_sides(labelled, tmp_path):
    card = _build(labelled(_records(30) * 3), tmp_path)
    assert sum(card["training"].values()) + sum(card["held_out"].values()) == 60


@pytest.mark.parametrize(("records", "problem"), [
    (_records(10), "holds 10 distinct texts labelled good"),
    ([r for r in _records(60) if r["label"] == "good"], "holds 0 distinct texts labelled bad"),
    ([*_records(30), {"text": "x", "label": "maybe"}], "line 61.*has the label 'maybe'"),
    ([*_records(30), {"text": "x"}], "line 61.*not a JSON object with"),
    ([], "holds 0 distinct"),
])  # fmt: skip
def test_labels_that_cannot_teach_are_refused(labelled, tmp_path, records, problem):
    with pytest.raises(UserError, match=problem):
        _build(labelled(records), tmp_path / "x")


def test_missing_and_damaged_files_are_refused(labelled, tmp_path, monkeypatch):
    recipe = labelled(_records(30))
    path = tmp_path / "labels.jsonl"
    path.write_bytes(b"\x1f\x8b\x08\x00" + b"\x00" * 30)
    with pytest.raises(UserError, match="is damaged"):
        _build(recipe, tmp_path / "a")
    path.write_text('{"text": "' + "x" * 200 + '", "label": "good"}')
    monkeypatch.setattr(classifier, "_MAX_LINE_BYTES", 100)
    with pytest.raises(UserError, match="longer than"):
        _build(recipe, tmp_path / "b")
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        classifier.fingerprint(recipe)
    with pytest.raises(UserError, match="cannot be read"):
        _build(recipe, tmp_path / "c")


def test_auc_is_the_share_of_rightly_ordered_pairs():
    scores = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
    good = np.array([True, True, False, False, True])
    pairs = [(a > b) + (a == b) / 2 for a in scores[good] for b in scores[~good]]
    assert classifier.auc(scores, good) == pytest.approx(sum(pairs) / len(pairs))
