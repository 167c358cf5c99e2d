"""Files of words with counts -> the pieces of byte-level BPE, in rank order.

Contract: exact greedy BPE (merges.py); the same table gives the same pieces on any machine. Fewer than asked
for are given where the words support no more.

Superwords (SuperBPE, Liu et al. 2025): the last merges are learnt from stretches of several words, to which the
first ones have already been applied. Every border of a stretch is a border of words, so encoding a stretch by
all merges in order of rank gives what training saw, and tokenizer.json needs no second stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokenizer.engine import bpe_encoder
from tokenizer.engine.bpe_trainer import MOST_PLACES, learn_merges
from tokenizer.engine.patterns import CODE_POINT_OF_BYTE, map_piece, unmap_bytes
from tokenizer.engine.pretokenizer import cutter_of
from tokenizer.engine.word_counts import Bytes, Integers
from tokenizer.formats import merges_of
from tokenizer.training.word_files import batches_of, read_batch
from twofold.errors import user_error

_BYTES = [bytes([byte]) for byte in range(256)]
_WHOLE = r"(?:\p{L}|[^\p{L}])+"
"""A pattern that cuts nothing."""
_END = np.uint32(bpe_encoder.LARGEST_ID)
"""Stands behind each stretch, and for no piece."""


def learn_words(table: Path, merges: int) -> list[str]:
    """The first `merges` pieces, as mapped code points, of a file of words."""
    data, bounds, counts = _whole(table)
    return [map_piece(piece) for piece in learn_merges(data, bounds, counts, _BYTES, merges)]


def learn_superwords(table: Path, pieces: Sequence[str], merges: int) -> list[str]:
    """The next `merges` pieces after `pieces`, of a file of stretches of words."""
    known = [*_BYTES, *map(unmap_bytes, pieces)]
    numbers, bounds, counts = _encoded(table, pieces)
    return [map_piece(piece) for piece in learn_merges(numbers, bounds, counts, known, merges)]


def _whole(table: Path) -> tuple[Bytes, Integers, Integers]:
    """Bytes, bounds and counts of all batches."""
    batches = [read_batch(table, number) for number in range(batches_of(table))]
    sizes = np.concatenate([np.zeros(0, np.int64), *(np.diff(batch.bounds) for batch in batches)])
    _require_places(int(sizes.sum()))
    data = [batch.data[batch.bounds[0] : batch.bounds[-1]] for batch in batches]
    counts = np.concatenate([np.zeros(0, np.int64), *(batch.counts for batch in batches)])
    return np.concatenate([np.zeros(0, np.uint8), *data]), _bounds(sizes), counts


def _encoded(table: Path, pieces: Sequence[str]) -> tuple[npt.NDArray[np.uint32], Integers, Integers]:
    """Numbers of the pieces (bytes first) that each stretch is encoded in, bounds and counts."""
    number = {piece: place for place, piece in enumerate([*CODE_POINT_OF_BYTE, *pieces])}
    merges = [(number[left], number[right], number[left + right]) for left, right in merges_of(pieces)]
    vocabulary = bpe_encoder.vocabulary_of(np.arange(256, dtype=np.uint32), np.array(merges, np.uint32).reshape(-1, 3))
    cutter, numbers = cutter_of(_WHOLE), [np.zeros(0, np.uint32)]
    sizes, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for place in range(batches_of(table)):
        batch = read_batch(table, place)
        ends = batch.bounds[1:] - batch.bounds[0]
        data = np.zeros((ends[-1] if len(ends) else 0) + bpe_encoder.PADDING, np.uint8)
        data[: len(data) - bpe_encoder.PADDING] = batch.data[batch.bounds[0] : batch.bounds[-1]]
        ids, id_ends = np.empty(len(data) + len(ends), np.uint32), np.empty(len(ends), np.int64)
        written = bpe_encoder.encode(data, ends, cutter, vocabulary, _END, ids, id_ends)
        numbers.append(ids[:written][ids[:written] != _END])
        sizes.append(np.diff(id_ends, prepend=0) - 1)
        counts.append(batch.counts)
        _require_places(sum(map(len, numbers)))
    return np.concatenate(numbers), _bounds(np.concatenate(sizes)), np.concatenate(counts)


def _bounds(sizes: Integers) -> Integers:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _require_places(number: int) -> None:
    if number > MOST_PLACES:
        raise user_error(
            "tokenizer.max_words", None, f"leaves words of more than {MOST_PLACES:,} bytes together",
            "lower it (10_000_000 words are some 0.15 GB)",
        )  # fmt: skip
