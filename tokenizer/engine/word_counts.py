"""A table of words and counts over the bytes of a text, as machine code.

Contract: `count_texts` cuts documents into words by an automaton (automaton.py) and counts each; `add_words`
adds words that are already cut. A table is of fixed size; both stop before the word that no longer fits, and
go on from there when called again with an empty one. Words are compared by their bytes: the hash finds a
place and gives the order in which `sorted_words` returns them, which depends on nothing but the words.
A word longer than `WORD_BYTES` is counted in pieces of at most that, cut between characters: no merge reaches
that far, and one line of noise must not become a table of its own. Text should be UTF-8: other bytes
are cut somewhere, without loss, and nothing outside the arrays is read.

Memory: 50 bytes for each word that fits, and the words' bytes. Cost: 45 MB/s of Korean or English a core.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tokenizer.engine import dfa as automata
from tokenizer.engine import pretokenizer as cutters
from tokenizer.engine.pretokenizer import word_end
from twofold import compiled as machine_code
from twofold.compiled import compiled

WORD_BYTES = 256
_LONGEST = np.uint64(WORD_BYTES)
# Indices are unsigned: numba looks behind every signed one for a count from the end, which takes twice the time.
_ZERO, _ONE, _EIGHT, _SIXTEEN = (np.uint64(number) for number in (0, 1, 8, 16))
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT_32, _SHIFT_33 = np.uint64(32), np.uint64(33)
_LOWER_HALF, _UPPER_HALF = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFF00000000)
_DOCUMENT, _AT, _END = range(3)
_WORDS, _BYTES = range(2)
_SPAN, _BLOCK, _COUNT, _HASH = range(4)
_LENGTH_BITS, _LENGTH_MASK = np.uint64(9), np.uint64(511)

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


class Words(NamedTuple):
    """n words with counts, sorted by hash, then bytes: word i is data[bounds[i]:bounds[i + 1]]."""

    data: Bytes
    bounds: Integers
    """Shape (n + 1,)."""
    counts: Integers
    hashes: Hashes


class Tally(NamedTuple):
    """An open-addressing table; what is in use is in `used`: words, and bytes of them."""

    slots: Hashes
    """Upper half of the hash, and number of the word + 1; 0 is free. A power of two."""
    data: Bytes
    entries: Hashes
    """Shape (capacity, 4): where each word begins, and its length (9 bits); its last block; count; hash."""
    used: Integers


def new_tally(words: int, size: int) -> Tally:
    """An empty table for `words` words of `size` bytes together (a single longest one at least)."""
    slots = 1 << max(4, (2 * words - 1).bit_length())
    data = np.empty(max(size, WORD_BYTES), np.uint8)
    return Tally(np.zeros(slots, np.uint64), data, np.empty((words, 4), np.uint64), np.zeros(2, np.int64))


def clear(tally: Tally) -> None:
    """Empty it."""
    tally.slots[:] = 0
    tally.used[:] = 0


def new_resume() -> Integers:
    """Where `count_texts` begins: the first document."""
    return np.zeros(3, np.int64)


def sorted_words(tally: Tally) -> Words:
    """The words of the table in their order (hash, then bytes)."""
    entries = tally.entries[: int(tally.used[_WORDS])]
    order = np.argsort(entries[:, _HASH])
    hashes = entries[:, _HASH][order]
    for place in np.flatnonzero(hashes[1:] == hashes[:-1]):
        _order_equal(tally, order, hashes, int(place))
    spans = entries[:, _SPAN][order]
    bounds = np.zeros(len(order) + 1, np.int64)
    np.cumsum(spans & _LENGTH_MASK, out=bounds[1:])
    data = np.empty(int(bounds[-1]), np.uint8)
    gather(tally.data, (spans >> _LENGTH_BITS).astype(np.int64), bounds, data)
    return Words(data, bounds, entries[:, _COUNT][order].astype(np.int64), hashes)


def _order_equal(tally: Tally, order: npt.NDArray[np.intp], hashes: Hashes, place: int) -> None:
    """Put the words that share the hash at `place` in order of bytes: as good as never more than two."""
    first, end = (int(np.searchsorted(hashes, hashes[place], side=side)) for side in ("left", "right"))
    order[first:end] = sorted(order[first:end], key=lambda number: _word(tally, number))


def _word(tally: Tally, number: int) -> bytes:
    span = int(tally.entries[number, _SPAN])
    begin = span >> int(_LENGTH_BITS)
    return tally.data[begin : begin + (span & int(_LENGTH_MASK))].tobytes()


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
    value = (value ^ block) * _MIX_1
    value = (value ^ (value >> _SHIFT_33)) * _MIX_2
    return value ^ (value >> _SHIFT_33), block


@compiled
def _add(tally, data, begin, end, count):  # type: ignore[no-untyped-def]
    """Count a word; False where it is new and does not fit."""
    value, block = _hash(data, begin, end)
    mask = np.uint64(len(tally.slots) - 1)
    tag = value & _UPPER_HALF
    place = value & mask
    while True:
        slot = tally.slots[place]
        if slot == _ZERO:
            return _add_new(tally, place, data, begin, end, value, block, count)
        if slot & _UPPER_HALF == tag:
            number = (slot & _LOWER_HALF) - _ONE
            entry = tally.entries[number]
            if entry[_HASH] == value and entry[_BLOCK] == block and _is_same(tally, number, data, begin, end):
                entry[_COUNT] += np.uint64(count)
                return True
        place = (place + _ONE) & mask


@compiled
def _is_same(tally, number, data, begin, end):  # type: ignore[no-untyped-def]
    """Whether a word is the one of that number, whose hash and last block it has."""
    span, length = tally.entries[number, _SPAN], end - begin
    if span & _LENGTH_MASK != length:
        return False
    if length <= _SIXTEEN:
        return True
    other = span >> _LENGTH_BITS
    at = begin
    while at < end and tally.data[other] == data[at]:
        at += _ONE
        other += _ONE
    return at == end


@compiled
def _add_new(tally, place, data, begin, end, value, block, count):  # type: ignore[no-untyped-def]
    number, size = np.uint64(tally.used[_WORDS]), np.uint64(tally.used[_BYTES])
    length = end - begin
    if number == np.uint64(len(tally.entries)) or size + length > np.uint64(len(tally.data)):
        return False
    for at in range(length):
        tally.data[size + np.uint64(at)] = data[begin + np.uint64(at)]
    tally.entries[number, _SPAN] = (size << _LENGTH_BITS) | length
    tally.entries[number, _BLOCK] = block
    tally.entries[number, _COUNT] = count
    tally.entries[number, _HASH] = value
    tally.slots[place] = (value & _UPPER_HALF) | (number + _ONE)
    tally.used[_WORDS], tally.used[_BYTES] = number + _ONE, size + length
    return True


@compiled
def _piece_end(data, begin, end):  # type: ignore[no-untyped-def]
    """The end of the first piece of a word: at most WORD_BYTES on, between characters."""
    if end - begin <= _LONGEST:
        return end
    cut = begin + _LONGEST
    while cut > begin and data[cut] & 0xC0 == 0x80:
        cut -= _ONE
    return cut if cut > begin else begin + _LONGEST


def _make(sources: str):  # type: ignore[no-untyped-def]
    def count_texts(cutter, tally, data, bounds, wanted, resume):  # type: ignore[no-untyped-def]
        """Count the words of documents data[bounds[i]:bounds[i + 1]] where wanted[i]; False: the table is full.

        `resume` says where to begin, and then where to go on."""
        assert sources
        for document in range(resume[_DOCUMENT], len(wanted)):
            at, last = np.uint64(bounds[document]), np.uint64(bounds[document + 1])
            end = at
            if resume[_END] > 0 and resume[_DOCUMENT] == document:
                at, end = np.uint64(resume[_AT]), np.uint64(resume[_END])
            while wanted[document] and at < last:
                if at == end:
                    end = max(at + _ONE, word_end(data, at, last, cutter))
                piece = _piece_end(data, at, end)
                if not _add(tally, data, at, piece, 1):
                    resume[_DOCUMENT], resume[_AT], resume[_END] = document, at, end
                    return False
                at = piece
        resume[_DOCUMENT], resume[_AT], resume[_END] = len(wanted), 0, 0
        return True

    def add_words(tally, data, bounds, counts, first):  # type: ignore[no-untyped-def]
        """Add words first.. of the given ones; returns the first that did not fit, or how many there are."""
        assert sources
        for number in range(first, len(counts)):
            if not _add(tally, data, np.uint64(bounds[number]), np.uint64(bounds[number + 1]), counts[number]):
                return number
        return len(counts)

    def gather(data, begins, bounds, out):  # type: ignore[no-untyped-def]
        """Copy words that begin at `begins` of `data` to out[bounds[i]:bounds[i + 1]]."""
        assert sources
        for number in range(len(begins)):
            first = begins[number] - bounds[number]
            for at in range(bounds[number], bounds[number + 1]):
                out[at] = data[first + at]

    functions = (count_texts, add_words, gather)
    return tuple(machine_code.entry_point(function) for function in functions)


count_texts, add_words, gather = _make(
    machine_code.digest(__file__, cutters.__file__, automata.__file__, machine_code.__file__)
)
