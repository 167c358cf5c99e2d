"""Keys and sketches against exact Jaccard similarity, the banding curve and the estimate's standard error."""

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


def _edited(seed: int, count: int, edits: int) -> tuple[str, str]:
    words = _words(seed, count)
    edited = list(words)
    for place in random.Random(seed).sample(range(count), edits):
        edited[place] = f"다른{place}"
    return " ".join(words), " ".join(edited)


def _sign(text: str, settings: NearDuplicates = SETTINGS) -> minhash.Signature:
    return minhash.sign(minhash.words(text), settings)


def _sketches(*texts: str) -> minhash.Sketches:
    return np.array([np.frombuffer(_sign(text).sketch, np.uint8) for text in texts])


def _jaccard(left: str, right: str, n: int = 5) -> float:
    """Of the texts' own n-grams, without hashes."""
    sets = []
    for text in (left, right):
        words = text.lower().split()
        sets.append({tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_signature_estimates_jaccard():
    for seed, edits in enumerate((1, 5, 20, 60)):
        left, right = _edited(seed, 600, edits)
        signatures = [minhash.minima(minhash.n_grams(minhash.words(text), 5), 1024) for text in (left, right)]
        assert np.mean(signatures[0] == signatures[1]) == pytest.approx(_jaccard(left, right), abs=0.06)


def test_keys_agree_as_the_banding_curve_says():
    hits, similarities = 0, []
    for seed in range(400):
        left, right = _edited(seed, 200, 6)
        similarities.append(_jaccard(left, right))
        hits += bool((_sign(left).keys == _sign(right).keys).any())
    expected = np.mean([1 - (1 - s**SETTINGS.hashes_per_bucket) ** SETTINGS.num_buckets for s in similarities])
    assert hits / 400 == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(("count", "edits"), [(60, 1), (250, 5), (3000, 60)])
def test_sketches_estimate_jaccard_within_their_error(count: int, edits: int) -> None:
    texts = [_edited(seed, count, edits) for seed in range(200)]
    left, right = (_sketches(*side) for side in zip(*texts, strict=True))
    estimate, error = minhash.similarity(left, right)
    deviations = (estimate - [_jaccard(*pair) for pair in texts]) / error
    assert abs(deviations.mean()) < 0.3
    assert 0.8 < deviations.std() < 1.2


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_short_texts_are_estimated_exactly_unless_two_n_grams_share_a_bin(left: list[int], right: list[int]) -> None:
    one, other = (" ".join(map(str, numbers)) for numbers in (left, right))
    estimate, _ = minhash.similarity(_sketches(one), _sketches(other))
    assert estimate[0] == pytest.approx(_jaccard(one, other), abs=0.15)
    assert (estimate[0] == 1) == (left == right or _jaccard(one, other) == 1)


def test_strangers_share_nothing():
    keys = [_sign(" ".join(_words(seed, 100))).keys for seed in range(50)]
    assert len({int(key) for bucket in keys for key in bucket}) == 50 * SETTINGS.num_buckets


def test_case_and_space_do_not_count_but_words_signs_and_numbers_do():
    first = _sign("The sum of 3 + 4\n\n is  7 today")
    assert (first.keys == _sign("the SUM of 3 + 4 is 7 today").keys).all()
    for other in ("the sum of 3 - 4 is 7 today", "the sum of 3 + 5 is 7 today", "the sum of 3 + 4 is 7 here"):
        assert first.sketch != _sign(other).sketch


def test_hangul_stays_composed():
    text = "가을 하늘은 높고 푸르다 아이들은 논다"
    grams = minhash.n_grams(minhash.words(text), 1)
    assert minhash.n_grams(minhash.words(text), 5).size == 2
    assert (grams != minhash.n_grams(minhash.words(unicodedata.normalize("NFD", text)), 1)).all()


@given(st.lists(st.sampled_from(["a", "b", "가", "나다"]), min_size=1, max_size=20), st.integers(1, 6))
def test_equal_n_grams_and_no_others_have_equal_hashes(words: list[str], n: int) -> None:
    grams = minhash.n_grams(" ".join(words).encode(), n).tolist()
    plain = [tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]
    assert len(grams) == len(plain)
    assert len({*zip(grams, plain, strict=True)}) == len(set(grams)) == len(set(plain))


@given(st.text(max_size=100), st.integers(1, 6))
def test_any_text_has_keys_and_they_are_its_own(text, n):
    settings = NearDuplicates(ngram_words=n, num_buckets=3, hashes_per_bucket=2)
    text = text.encode("utf-8", "ignore").decode()
    signature = _sign(text, settings)
    assert signature.keys.shape == (3,)
    assert any(signature.sketch)
    assert (signature.keys == _sign(text, settings).keys).all()


def test_a_long_text_equals_its_chunks_put_together():
    grams = minhash.n_grams(minhash.words(" ".join(_words(3, 2000))), 5)
    parts = [minhash.minima(part, 16) for part in np.array_split(grams, 7)]
    assert (minhash.minima(grams, 16) == np.min(parts, axis=0)).all()


def test_keys_are_the_same_on_every_machine_and_version():
    text = "나라의 말이 중국과 달라 문자와 서로 통하지 아니하니"
    keys = _sign(text, NearDuplicates(num_buckets=3, hashes_per_bucket=4)).keys.tolist()
    assert [f"{key:016x}" for key in keys] == ["51fad5f83515922c", "07b1c0d55d7f556b", "17f304608ebbad61"]
