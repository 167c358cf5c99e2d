"""MinHash bucket keys for near-duplicate search; the only module that imports rensa.

Contract: `bucket_keys(text, settings)` is a pure function of the text's words (lower-cased `\\w+` runs of NFC text,
so Hangul stays composed): shape (num_buckets,), uint64. Documents with an equal key are probably near duplicates:
if the Jaccard similarity of their word n-grams is s, they share at least one key with probability
1 - (1 - s^h)^b for b buckets of h hashes (Broder 1997; Leskovec et al., Mining of Massive Datasets, section 3.4);
14 buckets of 8 put the steep part near 0.75. A text shorter than an n-gram is one n-gram, and a text without
words matches only itself. Letters are those of the interpreter's Unicode version. Cost: 10 to 17 MB/s per core,
mostly for splitting and hashing words.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import xxhash
from rensa import RMinHash

from configs.data_schema import NearDuplicates

Keys = npt.NDArray[np.uint64]

_WORD = re.compile(r"\w+")
_SEED = 0x2F0D
_ODD = np.uint64(0x9E3779B97F4A7C15)


def bucket_keys(text: str, settings: NearDuplicates) -> Keys:
    """One key per bucket."""
    signature = minima(n_grams(text, settings.ngram_words), settings.num_buckets * settings.hashes_per_bucket)
    keys = np.zeros(settings.num_buckets, dtype=np.uint64)
    for row in signature.reshape(settings.num_buckets, settings.hashes_per_bucket).T:
        keys = _mixed(keys * _ODD + row)
    return keys


def n_grams(text: str, n: int) -> Keys:
    """A 64-bit hash of each word n-gram, in text order."""
    words = _WORD.findall(text.lower())
    if not words:
        return np.array([xxhash.xxh3_64_intdigest(text.encode())], dtype=np.uint64)
    hashes = {word: xxhash.xxh3_64_intdigest(word.encode()) for word in set(words)}
    sequence = np.array([hashes[word] for word in words], dtype=np.uint64)
    width = min(n, len(words))
    count = len(words) - width + 1
    grams = np.zeros(count, dtype=np.uint64)
    for offset in range(width):
        grams = _mixed(grams * _ODD + sequence[offset : offset + count])
    return grams


def minima(grams: Keys, count: int) -> Keys:
    """The MinHash signature: the minimum of each of `count` hash functions over the n-grams."""
    bounds = np.array([0, len(grams)], dtype=np.uint64)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(grams, bounds, count, _SEED).to_rows()
    return np.array(rows[0], dtype=np.uint64)


def _mixed(values: Keys) -> Keys:
    """The finalizer of splitmix64 (Steele et al. 2014): every input bit affects every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
