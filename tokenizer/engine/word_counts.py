"""A table of distinct words and their counts.

Contract: `count_words` adds words to a table of fixed capacity, and makes room when it is full. Words are compared by
their bytes. Their hash finds a slot and gives the order in which `WordTable.sorted` returns them, so that the order
depends on the words alone.

Memory: 50 bytes for each word that fits, and the words' bytes. Cost: 55 MB/s of Korean or English text per core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tokenizer.engine import hash_table
from tokenizer.engine.hash_table import FREE, Slots, mix, probe, slots_for
from tokenizer.engine.pretokenizer import Bytes, Integers
from twofold.compiled import compiled, entry_point

WORD_BYTES = 256
"""The longest word that a table takes."""
# Indices are unsigned: for signed ones numba checks for a count from the end, which takes twice as long.
_ZERO, _ONE, _EIGHT, _SIXTEEN, _SHIFT_32 = (np.uint64(number) for number in (0, 1, 8, 16, 32))
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_LOWER_HALF, _UPPER_HALF = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFF00000000)
_WORDS, _BYTES = range(2)
_SPAN, _BLOCK, _COUNT, _HASH = range(4)
_LENGTH_BITS, _LENGTH_MASK = np.uint64(9), np.uint64(511)


class Words(NamedTuple):
    """n words with counts: word i is data[bounds[i]:bounds[i + 1]]."""

    data: npt.NDArray[Any]
    """Bytes; for `train_bpe` also numbers of pieces."""
    bounds: Integers
    """Shape (n + 1,)."""
    counts: Integers


class WordTable(NamedTuple):
    """Distinct words and their counts; `used` tells how many words are held, and how many bytes of them."""

    slots: Slots
    """Upper half of the hash, and number of the word + 1."""
    data: Bytes
    entries: npt.NDArray[np.uint64]
    """Shape (capacity, 4): where each word begins, and its length (9 bits); its last block; count; hash."""
    used: Integers

    @classmethod
    def with_room(cls, words: int, size: int) -> WordTable:
        """An empty table for `words` words of `size` bytes together, at least one of the longest."""
        words = max(1, words)
        slots, data = np.zeros(slots_for(words), np.uint64), np.empty(max(size, WORD_BYTES), np.uint8)
        return cls(slots, data, np.empty((words, 4), np.uint64), np.zeros(2, np.int64))

    def clear(self) -> None:
        """Forget all words."""
        self.slots[:] = FREE
        self.used[:] = 0

    def sorted(self) -> tuple[Words, npt.NDArray[np.uint64]]:
        """The words in order of their hash, then of their bytes; and their hashes, uint64 [n]."""
        entries = self.entries[: int(self.used[_WORDS])]
        order = np.argsort(entries[:, _HASH])
        hashes = entries[:, _HASH][order]
        for place in np.flatnonzero(hashes[1:] == hashes[:-1]):  # hardly ever any
            first, end = np.searchsorted(hashes, hashes[place], "left"), np.searchsorted(hashes, hashes[place], "right")
            order[first:end] = sorted(order[first:end], key=self._word)
        spans = entries[:, _SPAN][order]
        bounds = np.zeros(len(order) + 1, np.int64)
        np.cumsum(spans & _LENGTH_MASK, out=bounds[1:])
        data = np.empty(int(bounds[-1]), np.uint8)
        _gather(self.data, (spans >> _LENGTH_BITS).astype(np.int64), bounds, data)
        return Words(data, bounds, entries[:, _COUNT][order].astype(np.int64)), hashes

    def _word(self, number: int) -> bytes:
        span = int(self.entries[number, _SPAN])
        begin = span >> int(_LENGTH_BITS)
        return self.data[begin : begin + (span & int(_LENGTH_MASK))].tobytes()


def count_words(words: Words, table: WordTable, spill: Callable[[WordTable], None] | None = None) -> WordTable:
    """Add words of at most WORD_BYTES to a table; returns the table that holds them.

    A full table is given to `spill` and then cleared. Without `spill` the words move to a table twice as large.
    """
    # Read-only arrays are copied: numba would compile for them anew.
    data, bounds, counts = (np.require(part, requirements="W") for part in words)
    done = 0
    while (done := _add_words(table, data, bounds, counts, done)) < len(counts):
        if spill:
            spill(table)
            table.clear()
        else:
            larger = WordTable.with_room(2 * len(table.entries), 2 * len(table.data))
            table = count_words(table.sorted()[0], larger)
    return table


# --- compiled ----------------------------------------------------------------------------------


@compiled
def _hash(data, begin, end):  # type: ignore[no-untyped-def]
    """(hash, last block of up to 8 bytes) of a word. With its length they determine a word of up to 16 bytes:
    every step can be undone."""
    value, block, filled = end - begin, _ZERO, _ZERO
    at = begin
    while at < end:
        if filled == _EIGHT:
            value = (value ^ block) * _MULTIPLIER
            value ^= value >> _SHIFT_32
            block, filled = _ZERO, _ZERO
        block = (block << _EIGHT) | np.uint64(data[at])
        filled += _ONE
        at += _ONE
    return mix(value ^ block), block


@compiled
def _add(table, data, begin, end, count):  # type: ignore[no-untyped-def]
    """Count a word; False where it is new and does not fit."""
    value, block = _hash(data, begin, end)
    place = probe(table.slots, value, value & _UPPER_HALF, _UPPER_HALF)
    while table.slots[place] != FREE:
        number = (table.slots[place] & _LOWER_HALF) - _ONE
        entry = table.entries[number]
        if entry[_HASH] == value and entry[_BLOCK] == block and _is_same(table, number, data, begin, end):
            entry[_COUNT] += np.uint64(count)
            return True
        place = probe(table.slots, place + _ONE, value & _UPPER_HALF, _UPPER_HALF)
    return _add_new(table, place, data, begin, end, value, block, count)


@compiled
def _is_same(table, number, data, begin, end):  # type: ignore[no-untyped-def]
    """Whether a word is the one of that number, whose hash and last block it has."""
    span, length = table.entries[number, _SPAN], end - begin
    if span & _LENGTH_MASK != length:
        return False
    if length <= _SIXTEEN:
        return True
    other = span >> _LENGTH_BITS
    at = begin
    while at < end and table.data[other] == data[at]:
        at += _ONE
        other += _ONE
    return at == end


@compiled
def _add_new(table, place, data, begin, end, value, block, count):  # type: ignore[no-untyped-def]
    number, size, length = np.uint64(table.used[_WORDS]), np.uint64(table.used[_BYTES]), end - begin
    if number == np.uint64(len(table.entries)) or size + length > np.uint64(len(table.data)):
        return False
    for at in range(length):
        table.data[size + np.uint64(at)] = data[begin + np.uint64(at)]
    table.entries[number, _SPAN], table.entries[number, _BLOCK] = (size << _LENGTH_BITS) | length, block
    table.entries[number, _COUNT], table.entries[number, _HASH] = count, value
    table.slots[place] = (value & _UPPER_HALF) | (number + _ONE)
    table.used[_WORDS], table.used[_BYTES] = number + _ONE, size + length
    return True


def _add_from(table, data, bounds, counts, first):  # type: ignore[no-untyped-def]
    """Add words from `first` on; returns the first that did not fit, or how many there are."""
    for number in range(first, len(counts)):
        if not _add(table, data, np.uint64(bounds[number]), np.uint64(bounds[number + 1]), counts[number]):
            return number
    return len(counts)


def _gather_words(data, begins, bounds, out):  # type: ignore[no-untyped-def]
    """Copy words that begin at `begins` of `data` to out[bounds[i]:bounds[i + 1]]."""
    for number in range(len(begins)):
        first = begins[number] - bounds[number]
        for at in range(bounds[number], bounds[number + 1]):
            out[at] = data[first + at]


_add_words, _gather = entry_point(_add_from, hash_table), entry_point(_gather_words)
