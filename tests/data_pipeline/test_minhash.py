"""Bucket keys against exact Jaccard similarity and the banding curve."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.data_schema import NearDuplicates
from data_pipeline.features import minhash

SETTINGS = NearDuplicates()


def _words(seed: int, count: int) -> list[str]:
    generator = random.Random(seed)
    return [f"단어{generator.randrange(5000)}" for _ in range(count)]


def _jaccard(left: str, right: str) -> float:
    first, second = (set(minhash.n_grams(text, 5).tolist()) for text in (left, right))
    return len(first & second) / len(first | second)


def test_signature_estimates_jaccard():
    for seed, edits in enumerate((1, 5, 20, 60)):
        words = _words(seed, 600)
        edited = list(words)
        for place in random.Random(seed).sample(range(600), edits):
            edited[place] = f"다른{place}"
        left, right = " ".join(words), " ".join(edited)
        signatures = [minhash.minima(minhash.n_grams(text, 5), 1024) for text in (left, right)]
        assert np.mean(signatures[0] == signatures[1]) == pytest.approx(_jaccard(left, right), abs=0.06)


def test_keys_agree_as_the_banding_curve_says():
    shared, hits, similarities = 0, 0, []
    for seed in range(120):
        words = _words(seed, 200)
        edited = list(words)
        for place in random.Random(seed).sample(range(200), 6):
            edited[place] = f"다른{place}"
        left, right = " ".join(words), " ".join(edited)
        similarities.append(_jaccard(left, right))
        hits += bool((minhash.bucket_keys(left, SETTINGS) == minhash.bucket_keys(right, SETTINGS)).any())
        shared += 1
    expected = np.mean([1 - (1 - s**SETTINGS.hashes_per_bucket) ** SETTINGS.num_buckets for s in similarities])
    assert hits / shared == pytest.approx(expected, abs=0.12)


def test_strangers_share_nothing():
    keys = [minhash.bucket_keys(" ".join(_words(seed, 100)), SETTINGS) for seed in range(50)]
    assert len({int(key) for bucket in keys for key in bucket}) == 50 * SETTINGS.num_buckets


def test_case_space_and_punctuation_do_not_count_but_words_do():
    first = minhash.bucket_keys("The cat, sat on\n the mat today!", SETTINGS)
    assert (first == minhash.bucket_keys("the CAT sat on the mat today", SETTINGS)).all()
    assert (first != minhash.bucket_keys("the dog sat in the hat today", SETTINGS)).all()


def test_hangul_stays_composed():
    text = "가을 하늘은 높고 푸르다 아이들은 논다"
    assert minhash.n_grams(text, 5).size == 2
    assert (minhash.n_grams(text, 1) != minhash.n_grams(unicodedata.normalize("NFD", text), 1)).all()


@given(st.text(max_size=100), st.integers(1, 6))
def test_any_text_has_keys_and_they_are_its_own(text, n):
    settings = NearDuplicates(ngram_words=n, num_buckets=3, hashes_per_bucket=2)
    text = text.encode("utf-8", "ignore").decode()
    keys = minhash.bucket_keys(text, settings)
    assert keys.shape == (3,)
    assert (keys == minhash.bucket_keys(text, settings)).all()


def test_a_long_text_equals_its_chunks_put_together():
    grams = minhash.n_grams(" ".join(_words(3, 2000)), 5)
    parts = [minhash.minima(part, 16) for part in np.array_split(grams, 7)]
    assert (minhash.minima(grams, 16) == np.min(parts, axis=0)).all()


def test_keys_are_the_same_on_every_machine_and_version():
    text = "나라의 말이 중국과 달라 문자와 서로 통하지 아니하니"
    keys = minhash.bucket_keys(text, NearDuplicates(num_buckets=3, hashes_per_bucket=4)).tolist()
    assert keys == [0x91FE4A873D575295, 0x91496F4D39B4FD51, 0x9F9976EA52090537]
