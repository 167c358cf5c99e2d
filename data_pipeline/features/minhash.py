"""A text's words -> MinHash bucket keys, which find similar texts, and a sketch, which says how similar two are.

Contract: a word is what stands between spaces, in lower case: signs and numbers count as a reader sees them. `words`
joins them by single spaces, and `sign` is a pure function of that and of the settings. The similarity of two texts is
the Jaccard similarity of their sets of word n-grams; a text with fewer words than an n-gram is one n-gram.

`keys`: two texts share at least one of b keys of h hashes with probability 1 - (1 - s^h)^b at similarity s (Broder
1997; Leskovec et al., Mining of Massive Datasets, section 3.4); 14 keys of 8 hashes put the steep part near 0.75.

`sketch`: one-permutation hashing (Li, Owen and Zhang 2012) with 8 bits for each of 1,024 bins (Li and König 2010), 0
for an empty bin. `similarity` estimates from two sketches: exact for texts of few n-grams, a standard error of 0.0125
at 0.8 for long ones. Equal bytes of unequal n-grams add at most 0.004 (1 - s).

Cost: 1 kB of memory per sketch; `benchmarks/minhash.py` measures the speed.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from configs.data_schema import NearDuplicates
from twofold.compiled import compiled, entry_point

BINS = 1024
Keys = npt.NDArray[np.uint64]
Sketches = npt.NDArray[np.uint8]
"""Shape (documents, BINS)."""

_ODD = np.uint64(0x9E3779B97F4A7C15)
_ONE, _TWO = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SMALL_ONE, _SMALL_TWO = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
_SPACE = 0x20
_BIN_SHIFT = np.uint64(54)
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


class Signature(NamedTuple):
    """What dedup needs to know of a text."""

    keys: Keys
    """Shape (num_buckets,)."""
    sketch: bytes
    """`BINS` bytes."""


def words(text: str) -> bytes:
    """The words of a text in lower case, separated by single spaces, in UTF-8."""
    return " ".join(text.lower().split()).encode()


def sign(found: bytes, settings: NearDuplicates) -> Signature:
    """The signature of `words(text)`; without keys if near duplicates are not looked for."""
    grams = n_grams(found, settings.ngram_words)
    sketch = np.empty(BINS, np.uint8)
    _sketch(grams, sketch)
    buckets = settings.num_buckets if settings.enabled else 0
    keys = np.zeros(buckets, np.uint64)
    if buckets:
        _keys(minima(grams, buckets * settings.hashes_per_bucket), settings.hashes_per_bucket, keys)
    return Signature(keys, sketch.tobytes())


def n_grams(found: bytes, n: int) -> Keys:
    """A 64-bit hash of each n-gram of `words(text)`, in text order; at least one."""
    grams: Keys = _n_grams(np.frombuffer(found, np.uint8), n)
    return grams


def minima(grams: Keys, count: int) -> npt.NDArray[np.uint32]:
    """The MinHash signature: the minimum of each of `count` hash functions over the n-grams."""
    smallest = np.full(count, 0xFFFFFFFF, np.uint32)
    _minima(grams, _seeds(count), smallest)
    return smallest


def similarity(left: Sketches, right: Sketches) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The estimated similarity of each row of `left` to that of `right`, and its standard error.

    Of the m bins that either text fills, the share with equal bytes. The n-grams in these bins are drawn without
    replacement from the u of both texts, and u = -BINS ln(1 - m / BINS), so the variance is s(1 - s) / m (1 - m / u).
    """
    same, filled = np.empty((2, len(left)), np.int64)
    _compare(np.ascontiguousarray(left), np.ascontiguousarray(right), same, filled)
    share = same / filled
    free = np.maximum(1 - filled / BINS, 1e-9)
    drawn = np.minimum(1.0, filled / np.maximum(1, -BINS * np.log(free)))
    return share, np.sqrt(share * (1 - share) / filled * (1 - drawn))


@functools.cache
def _seeds(count: int) -> npt.NDArray[np.uint32]:
    with np.errstate(over="ignore"):
        values = np.arange(1, count + 1, dtype=np.uint64) * _ODD
        values = (values ^ (values >> np.uint64(30))) * _ONE
        values = (values ^ (values >> np.uint64(27))) * _TWO
    return (values >> np.uint64(32)).astype(np.uint32)


# --- compiled ----------------------------------------------------------------------------------


@compiled
def _mixed(value):  # type: ignore[no-untyped-def]
    """The finalizer of splitmix64 (Steele et al. 2014): every input bit affects every output bit."""
    value = (value ^ (value >> np.uint64(30))) * _ONE
    value = (value ^ (value >> np.uint64(27))) * _TWO
    return value ^ (value >> np.uint64(31))


def hash_n_grams(data, n):  # type: ignore[no-untyped-def]
    """Rolling polynomial of the hashes of the last n words."""
    grams = np.empty(len(data) // 2 + 1, np.uint64)
    recent = np.zeros(n, np.uint64)
    lead = np.uint64(1)
    for _ in range(n):
        lead *= _ODD
    rolled = word = np.uint64(0)
    count = 0
    for place in range(len(data) + 1):
        if place < len(data) and data[place] != _SPACE:
            word = word * _ONE + np.uint64(data[place]) + np.uint64(1)
            continue
        word = _mixed(word)
        rolled = rolled * _ODD + word - recent[count % n] * lead
        recent[count % n] = word
        count += 1
        if count >= n:
            grams[count - n] = _mixed(rolled)
        word = np.uint64(0)
    if count < n:
        grams[0] = _mixed(rolled)
    return grams[: max(1, count - n + 1)]


def fill_minima(grams, seeds, smallest):  # type: ignore[no-untyped-def]
    """Hash function i is a 32-bit finalizer of the n-gram's hash xor seeds[i]."""
    for gram in grams:
        short = np.uint32(gram)
        for i in range(len(seeds)):
            value = np.uint32((short ^ seeds[i]) * _SMALL_ONE)
            value = np.uint32((value ^ np.uint32(value >> np.uint32(15))) * _SMALL_TWO)
            smallest[i] = min(smallest[i], value)


def fill_keys(smallest, hashes, keys):  # type: ignore[no-untyped-def]
    """Bucket i has the hashes from i * `hashes` on."""
    for bucket in range(len(keys)):
        key = np.uint64(0)
        for i in range(bucket * hashes, (bucket + 1) * hashes):
            key = _mixed(key * _ODD + np.uint64(smallest[i]))
        keys[bucket] = key


def fill_sketch(grams, sketch):  # type: ignore[no-untyped-def]
    """The first ten bits choose the bin; of its smallest hash, the last bits are kept."""
    smallest = np.full(len(sketch), _EMPTY, np.uint64)
    for gram in grams:
        place = gram >> _BIN_SHIFT
        smallest[place] = min(smallest[place], gram)
    for place in range(len(sketch)):
        value = smallest[place]
        sketch[place] = 0 if value == _EMPTY else np.uint8(1 + (value & np.uint64(0xFFFF)) % np.uint64(255))


def compare(left, right, same, filled):  # type: ignore[no-untyped-def]
    """Counts of bins with equal bytes, and of bins filled in either."""
    for row in range(len(left)):
        equal = either = 0
        for place in range(left.shape[1]):
            one, other = left[row, place], right[row, place]
            either += (one | other) != 0
            equal += (one == other) & (one != 0)
        same[row], filled[row] = equal, either


_n_grams = entry_point(hash_n_grams)
_minima = entry_point(fill_minima)
_keys = entry_point(fill_keys)
_sketch = entry_point(fill_sketch)
_compare = entry_point(compare)
