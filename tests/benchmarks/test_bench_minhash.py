"""The planted pairs of the MinHash benchmark have the similarity that they say."""

from __future__ import annotations

import random

import pytest

from benchmarks import minhash as bench

TEXT = " ".join(f"낱말{number}" for number in random.Random(0).sample(range(10**6), 600))


@pytest.mark.parametrize("similarity", bench.SIMILARITIES)
def test_an_altered_text_is_as_similar_as_asked(similarity: float) -> None:
    assert bench.jaccard(TEXT, bench.altered(TEXT, similarity, "seed")) == pytest.approx(similarity, abs=0.03)


def test_recall_follows_the_curve_and_strangers_stay_apart() -> None:
    found = bench.recall([TEXT], 40)
    assert found["0.95"]["found_share"] == 1
    assert found["0.50"]["found_share"] < 0.3
    assert bench.strangers([TEXT, TEXT[:3000], "다른 글"])["documents"] == 3
    assert bench.strangers(["하나 둘 셋 넷 다섯", "여섯 일곱 여덟"]) == {
        "documents": 2, "pairs": 0, "pairs_below_half": 0, "precision": 1.0,
    }  # fmt: skip
