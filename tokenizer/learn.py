"""Files of words with counts -> the pieces of byte-level BPE, in rank order.

Contract: exact greedy BPE (merges.py); the same table gives the same pieces on any machine. Fewer than asked
for are given where the words support no more.

Superwords (SuperBPE, Liu et al. 2025): the last merges are learnt from stretches of several words, to which the
first ones have already been applied. Every border of a stretch is a border of words, so encoding a stretch by
all merges in order of rank gives what training saw, and tokenizer.json needs no second stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as Engine
from tokenizers import models

from configs.errors import user_error
from tokenizer.convert import merges_of
from tokenizer.merges import MOST_PLACES, learn_merges
from tokenizer.patterns import CODE_POINT_OF_BYTE, map_piece, unmap_bytes
from tokenizer.tally import Bytes, Integers
from tokenizer.word_files import batches_of, read_batch, read_words

_BYTES = [bytes([byte]) for byte in range(256)]
_CHUNKS = 1 << 14
"""Stretches that are encoded at once."""


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


def _encoded(table: Path, pieces: Sequence[str]) -> tuple[npt.NDArray[np.int32], Integers, Integers]:
    """Numbers of the pieces (bytes first) that each stretch is encoded in, bounds and counts."""
    vocabulary = {piece: number for number, piece in enumerate([*CODE_POINT_OF_BYTE, *pieces])}
    engine = Engine(models.BPE(vocab=vocabulary, merges=merges_of(pieces)))
    rows = read_words(table)
    numbers = [np.zeros(0, np.int32)]
    sizes: list[int] = []
    counts: list[int] = []
    while chunk := list(islice(rows, _CHUNKS)):
        ids = [row.ids for row in engine.encode_batch_fast([stretch for stretch, _ in chunk], add_special_tokens=False)]
        numbers.append(np.array([number for row in ids for number in row], np.int32))
        sizes += map(len, ids)
        counts += [count for _, count in chunk]
        _require_places(sum(map(len, numbers)))
    return np.concatenate(numbers), _bounds(np.array(sizes, np.int64)), np.array(counts, np.int64)


def _bounds(sizes: Integers) -> Integers:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _require_places(number: int) -> None:
    if number > MOST_PLACES:
        raise user_error(
            "tokenizer.max_words", None, f"leaves words of more than {MOST_PLACES:,} bytes together",
            "lower it (10_000_000 words are some 0.15 GB)",
        )  # fmt: skip
