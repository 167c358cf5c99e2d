"""Byte-pair encoding the slow and obvious way: what the tests compare merges with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from tokenizer.formats import Record
from tokenizer.patterns import unmap_bytes

LONGEST = 64
"""No longer piece is made."""


def learn(words: Mapping[str, int], merges: int, encode: Callable[[str], Sequence[str]] = list) -> list[str]:
    """Greedy BPE: count all pairs, merge the most frequent, again, until `merges` pieces or no pair is left.

    Ties go to the shorter piece, then to code point order, as in sentencepiece. `encode` gives the parts of a word
    to begin with: its bytes.
    """
    split = {word: list(encode(word)) for word in words}
    pieces: list[str] = []
    while len(pieces) < merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in pairwise(parts):
                if len(pair[0] + pair[1]) <= LONGEST:
                    pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], len(pair[0] + pair[1]), pair[0] + pair[1]))
        pieces.append(best[0] + best[1])
        split = {word: merge(parts, best) for word, parts in split.items()}
    return pieces


def merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """`parts` with every `pair` merged, leftmost first."""
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def encode_slowly(word: str, record: Record, merges: int) -> list[int]:
    """Ids of one word in mapped code points by the first `merges` merges, one merge at a time."""
    ids = [int(record.byte_ids[byte]) for byte in unmap_bytes(word)]
    for left, right, result in record.merges[:merges].tolist():
        at = 0
        while at + 1 < len(ids):
            if (ids[at], ids[at + 1]) == (left, right):
                ids[at : at + 2] = [result]
            at += 1
    return ids
