"""Files of counted words -> the pieces of byte-level BPE, in rank order.

Contract: exact greedy BPE (engine/bpe_trainer.py); the same table gives the same pieces on any machine. Where the words
do not support as many pieces as asked for, fewer are returned.

Superwords (SuperBPE, Liu et al. 2025): the last merges are learnt from stretches of several words, to which the first
ones have already been applied. Every border of a stretch is a border of words, so encoding a stretch by all merges in
order of rank gives what training saw, and tokenizer.json needs no second stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tokenizer.engine import MOST_PLACES, Vocabulary, Words, encode, train_bpe
from tokenizer.formats import merges_of
from tokenizer.patterns import CODE_POINT_OF_BYTE, map_piece, unmap_bytes
from tokenizer.training.word_files import number_of_batches, read_batch, read_words
from twofold.errors import user_error

_BYTES = [bytes([byte]) for byte in range(256)]
_WHOLE = r"(?:\p{L}|[^\p{L}])+"
"""A pattern that cuts nothing."""


def learn_words(table: Path, merges: int) -> list[str]:
    """The first `merges` pieces, as mapped code points, from a file of words."""
    words = read_words(table)
    _require_places(len(words.data))
    return [map_piece(piece) for piece in train_bpe(words, _BYTES, merges)]


def learn_superwords(table: Path, pieces: Sequence[str], merges: int) -> list[str]:
    """The next `merges` pieces after `pieces`, from a file of stretches of words."""
    known = [*_BYTES, *map(unmap_bytes, pieces)]
    return [map_piece(piece) for piece in train_bpe(_encoded(table, pieces), known, merges)]


def _encoded(table: Path, pieces: Sequence[str]) -> Words:
    """The stretches of a file as numbers of pieces, the bytes first."""
    number = {piece: place for place, piece in enumerate([*CODE_POINT_OF_BYTE, *pieces])}
    merges = [(number[left], number[right], number[left + right]) for left, right in merges_of(pieces)]
    byte_ids = np.arange(256, dtype=np.uint32)
    vocabulary = Vocabulary.of(_WHOLE, byte_ids, np.array(merges, np.uint32).reshape(-1, 3))
    numbers, ends, counts = [np.zeros(0, np.uint32)], [np.zeros(1, np.int64)], [np.zeros(0, np.int64)]
    for place in range(number_of_batches(table)):
        stretches = read_batch(table, place)
        ids, id_ends = encode(stretches.data, stretches.bounds[1:], vocabulary)
        numbers.append(ids.copy())
        ends.append(ends[-1][-1:] + id_ends)
        counts.append(stretches.counts)
        _require_places(sum(map(len, numbers)))
    return Words(np.concatenate(numbers), np.concatenate(ends), np.concatenate(counts))


def _require_places(number: int) -> None:
    if number > MOST_PLACES:
        problem = f"leaves words of more than {MOST_PLACES:,} bytes together"
        raise user_error("tokenizer.max_words", None, problem, "lower it (10_000_000 words are about 0.15 GB)")
