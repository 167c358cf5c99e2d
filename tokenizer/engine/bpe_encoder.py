"""Byte-pair encoding of UTF-8 text, as machine code: words are cut, found in a cache or merged.

Contract: `encode` gives the ids of tokenizer.json: in each word the pair of lowest rank is merged, the leftmost
first, until no pair has a merge; ids of merges grow with their rank. Text must be UTF-8: of other bytes the ids are
undefined, and nothing outside the arrays is read or written. Time is linear in the text, but for words of n bytes
that are not cached: n log n. Memory beside the arguments: 32 bytes for each byte of the longest word.

A word of at most 31 bytes that took at most 7 ids is remembered at the one place that its hash says, in 64
bytes, and forgotten when another wants the place. Words are compared by their bytes, not by their hash.

What superwords are cut from are stretches of several words, too many to be remembered. Those are taken in two
steps: a joint is a place between a letter (an ASCII one, or any byte from 0x80 on) and a blank, comma or apostrophe.
Early merges are those before the first one that reaches over a joint, so they act between joints as they would
alone, and what stands there is remembered like a word; then late merges act on the whole stretch. Nothing early
becomes possible again: what a late merge makes has a later rank, and so has all that is made of it. Where merges
reach over joints from the start everything is late, and the ids are the same, only slower.

Cost at 102,400 ids, one core: 40 to 55 MB/s of Korean, English and code; with a tenth of superwords 17 to 29 of
Korean and English; 2 to 5 MB/s of one word of 6 MB.
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

PADDING = 32
"""Bytes that must be readable behind a text."""
LARGEST_ID = (1 << 21) - 1
_CACHED_BYTES, _CACHED_IDS = np.uint64(31), np.uint64(7)
_SLOTS = 1 << 18
"""Of the cache: 16 MB. Four times as many gain a tenth."""
_LATE = np.uint64(128)
_SHORT = np.uint64(64)
"""More ids are merged with a heap."""
_ABSENT = np.uint32(0xFFFFFFFF)
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_ID_BITS, _ID = np.uint64(21), np.uint64(LARGEST_ID)
_LOWER_HALF = np.uint64(0xFFFFFFFF)
_MIX_1, _MIX_2, _MIX_3 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0xD6E8FEB86659FD93)
_ZERO, _ONE, _TWO = np.uint64(0), np.uint64(1), np.uint64(2)

Ids = npt.NDArray[np.uint32]
Entries = npt.NDArray[np.uint64]


class Vocabulary(NamedTuple):
    """What encoding needs of tokenizer.json, with a cache."""

    bytes: Ids
    """Id of each byte."""
    early: Entries
    """Hash table of merges, at most half full: 21 bits each of left, right and merged id; all ones where empty."""
    late: Entries
    """The same of those from the first one on that reaches over a joint."""
    cached_words: Entries
    """[slots, 4]: the word's bytes, zeros, and as the last byte its length, and 128 where late merges wait."""
    cached_ids: Ids
    """[slots, 8]: its ids, and how many as the last."""


def vocabulary_of(byte_ids: Ids, merges: Ids, slots: int = _SLOTS) -> Vocabulary:
    """From the id of each byte, and the ids of each merge's two parts and result, [merges, 3].

    `slots`, a power of two, is the size of the cache.
    """
    assert merges.max(initial=0) <= LARGEST_ID, "three ids share 63 bits"
    early = before_joints(byte_ids, merges)
    words, ids = np.zeros((slots, 4), np.uint64), np.zeros((slots, 8), np.uint32)
    return Vocabulary(byte_ids, _table(merges[:early]), _table(merges[early:]), words, ids)


def _table(merges: Ids) -> Entries:
    table = np.full(1 << (2 * len(merges)).bit_length(), _EMPTY)
    fill(merges, table)
    return table


# --- compiled ----------------------------------------------------------------------------------


@compiled
def _scatter(value, slots):  # type: ignore[no-untyped-def]
    """A place below `slots`, a power of two."""
    value = (value ^ (value >> np.uint64(32))) * _MIX_3
    value = (value ^ (value >> np.uint64(32))) * _MIX_3
    return (value ^ (value >> np.uint64(32))) & np.uint64(slots - 1)


@compiled
def _merged(left, right, merges):  # type: ignore[no-untyped-def]
    """The id that two ids merge to, or _ABSENT."""
    pair = (np.uint64(left) << _ID_BITS) | np.uint64(right)
    place = _scatter(pair, len(merges))
    while True:
        entry = merges[place]
        if entry >> _ID_BITS == pair:
            return np.uint32(entry & _ID)
        if entry == _EMPTY:
            return _ABSENT
        place = (place + _ONE) & np.uint64(len(merges) - 1)


@compiled
def is_joint(before, after):  # type: ignore[no-untyped-def]
    """Whether two bytes are a letter and what may join it to the next word of a stretch."""
    letter = before >= 0x80 or 0x61 <= (before | 0x20) <= 0x7A
    return letter and (after == 0x20 or after == 0x2C or after == 0x27)


@compiled
def _joint(data, begin, end):  # type: ignore[no-untyped-def]
    """The first joint after `begin`, or `end`."""
    at = begin + _ONE
    while at < end and not is_joint(data[at - _ONE], data[at]):
        at += _ONE
    return at


@compiled
def _merge_bytes(data, begin, end, vocabulary, late, wanted, out, written):  # type: ignore[no-untyped-def]
    """Encode bytes where their ids go, by early merges and, if asked for, late ones; returns ids written so far."""
    count = end - begin
    for at in range(_ZERO, count):
        out[written + at] = vocabulary.bytes[data[begin + at]]
    count = _merge(out, written, count, vocabulary.early, wanted)
    if late:
        count = _merge(out, written, count, vocabulary.late, wanted)
    return written + count


@compiled
def _merge(out, first, count, merges, wanted):  # type: ignore[no-untyped-def]
    """Merge `count` ids in their place; returns how many are left."""
    if count > _SHORT:
        return _merge_many(out, first, count, merges)
    for at in range(_ONE, count):
        wanted[at - _ONE] = _merged(out[first + at - _ONE], out[first + at], merges)
    while count > _ONE:
        best = _ZERO
        for at in range(_ONE, count - _ONE):
            if wanted[at] < wanted[best]:
                best = np.uint64(at)
        if wanted[best] == _ABSENT:
            break
        here = first + best
        out[here] = wanted[best]
        count -= _ONE
        for at in range(best + _ONE, count):
            out[first + at] = out[first + at + _ONE]
            wanted[at] = wanted[at + _ONE]
        if best + _ONE < count:
            wanted[best] = _merged(out[here], out[here + _ONE], merges)
        if best > _ZERO:
            wanted[best - _ONE] = _merged(out[here - _ONE], out[here], merges)
    return count


@compiled
def _merge_many(out, first, count, merges):  # type: ignore[no-untyped-def]
    """The same with a heap of pairs, by merged id and then by place.

    An entry counts only while its pair still wants that merge, so none has to be looked for and removed.
    """
    length = np.int64(count)
    ids, wanted = np.empty(length, np.uint32), np.empty(length, np.uint32)
    before, after = np.empty(length, np.int32), np.empty(length, np.int32)
    heap, size = np.empty(2 * length, np.uint64), 0
    for place in range(length):
        ids[place] = out[first + np.uint64(place)]
        before[place], after[place] = place - 1, place + 1
    for place in range(length):
        size = _want(place, place + 1, ids, wanted, heap, size, merges)
    while size:
        entry = heap[0]
        size -= 1
        _sink(heap, size)
        at, merged = np.int64(entry & _LOWER_HALF), np.uint32(entry >> np.uint64(32))
        if wanted[at] != merged:
            continue
        gone = after[at]
        ids[at], wanted[gone], after[at] = merged, _ABSENT, after[gone]
        if after[gone] < length:
            before[after[gone]] = at
        size = _want(at, after[at], ids, wanted, heap, size, merges)
        if before[at] >= 0:
            size = _want(before[at], at, ids, wanted, heap, size, merges)
    place, left = 0, _ZERO
    while place < length:
        out[first + left] = ids[place]
        left += _ONE
        place = after[place]
    return left


@compiled
def _want(left, right, ids, wanted, heap, size, merges):  # type: ignore[no-untyped-def]
    """Note what the parts at two places merge to, in the heap too; returns the heap's size."""
    wanted[left] = _ABSENT if right == len(ids) else _merged(ids[left], ids[right], merges)
    if wanted[left] == _ABSENT:
        return size
    entry = (np.uint64(wanted[left]) << np.uint64(32)) | np.uint64(left)
    at = size
    while at and heap[(at - 1) >> 1] > entry:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = entry
    return size + 1


@compiled
def _sink(heap, size):  # type: ignore[no-untyped-def]
    """Repair the heap after its first entry was taken; the entry at `size` takes a place."""
    entry, at, child = heap[size], 0, 1
    while child < size:
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[at] = heap[child]
        at, child = child, 2 * child + 1
    heap[at] = entry


@compiled
def _eight(data, at):  # type: ignore[no-untyped-def]
    """Eight bytes as one number; the compiler makes one load of it."""
    return (
        np.uint64(data[at])
        | np.uint64(data[at + np.uint64(1)]) << np.uint64(8)
        | np.uint64(data[at + np.uint64(2)]) << np.uint64(16)
        | np.uint64(data[at + np.uint64(3)]) << np.uint64(24)
        | np.uint64(data[at + np.uint64(4)]) << np.uint64(32)
        | np.uint64(data[at + np.uint64(5)]) << np.uint64(40)
        | np.uint64(data[at + np.uint64(6)]) << np.uint64(48)
        | np.uint64(data[at + np.uint64(7)]) << np.uint64(56)
    )


@compiled
def _first(value, count):  # type: ignore[no-untyped-def]
    """The first `count` bytes of eight, others zero."""
    if count >= np.int64(8):
        return value
    return value & ((_ONE << np.uint64(8 * count)) - _ONE) if count > 0 else _ZERO


def _make(sources: str):  # type: ignore[no-untyped-def]
    def fill(merges, table):  # type: ignore[no-untyped-def]
        """Put merges into their empty table."""
        assert sources
        for number in range(len(merges)):
            pair = (np.uint64(merges[number, 0]) << _ID_BITS) | np.uint64(merges[number, 1])
            place = _scatter(pair, len(table))
            while table[place] != _EMPTY:
                place = (place + _ONE) & np.uint64(len(table) - 1)
            table[place] = (pair << _ID_BITS) | np.uint64(merges[number, 2])

    def before_joints(byte_ids, merges):  # type: ignore[no-untyped-def]
        """How many merges stand before the first one that reaches over a joint."""
        assert sources
        ids = max(byte_ids.max(), merges.max() if len(merges) else np.uint32(0)) + 1
        first, last = np.zeros(ids, np.uint8), np.zeros(ids, np.uint8)
        for byte in range(256):
            first[byte_ids[byte]] = last[byte_ids[byte]] = byte
        for rank in range(len(merges)):
            left, right, merged = merges[rank]
            if is_joint(last[left], first[right]):
                return rank
            first[merged], last[merged] = first[left], last[right]
        return len(merges)

    def encode(data, ends, cutter, vocabulary, last, out, out_ends):  # type: ignore[no-untyped-def]
        """Encode the documents of `data`, which end at `ends`, each followed by the id `last`; returns ids written.

        `data` is PADDING longer than the last end; `out` holds an id for each byte and document (uint32);
        `out_ends` gets the end of each document in ids.
        """
        assert sources
        # One long function: with the cache's part on its own, called from two places, it took a third longer.
        words, ids, wanted = vocabulary.cached_words, vocabulary.cached_ids, np.empty(64, np.uint32)
        looks_for_joints = len(vocabulary.late) > 1
        at = written = _ZERO
        for document in range(len(ends)):
            end = np.uint64(ends[document])
            while at < end:
                first, stop = written, word_end(data, at, end, cutter)
                part = _joint(data, at, stop) if looks_for_joints else stop
                whole = part == stop
                while at < stop:
                    length = part - at
                    if length > _CACHED_BYTES:
                        written = _merge_bytes(data, at, part, vocabulary, whole, wanted, out, written)
                    else:
                        size, kind = np.int64(length), length if whole else length | _LATE
                        a, b = _first(_eight(data, at), size), _first(_eight(data, at + np.uint64(8)), size - 8)
                        c = _first(_eight(data, at + np.uint64(16)), size - 16)
                        d = _first(_eight(data, at + np.uint64(24)), size - 24) | kind << np.uint64(56)
                        slot = _scatter(a ^ b * _MIX_1 ^ (c * _MIX_2 >> np.uint64(7)) ^ d * _MIX_3, len(words))
                        if words[slot, 0] == a and words[slot, 1] == b and words[slot, 2] == c and words[slot, 3] == d:
                            count = np.uint64(ids[slot, _CACHED_IDS])
                            for n in range(_ZERO, count):
                                out[written + n] = ids[slot, n]
                            written += count
                        else:
                            begin = written
                            written = _merge_bytes(data, at, part, vocabulary, whole, wanted, out, written)
                            count = written - begin
                            if count <= _CACHED_IDS:
                                words[slot, 0], words[slot, 1], words[slot, 2], words[slot, 3] = a, b, c, d
                                for n in range(_ZERO, count):
                                    ids[slot, n] = out[begin + n]
                                ids[slot, _CACHED_IDS] = count
                    at, part = part, _joint(data, part, stop)
                if not whole:
                    written = first + _merge(out, first, written - first, vocabulary.late, wanted)
            out[written] = last
            written += _ONE
            out_ends[document] = written
        return written

    return tuple(machine_code.entry_point(function) for function in (fill, before_joints, encode))


fill, before_joints, encode = _make(
    machine_code.digest(__file__, cutters.__file__, automata.__file__, machine_code.__file__)
)
