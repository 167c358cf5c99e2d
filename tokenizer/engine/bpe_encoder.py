"""Byte-pair encoding of UTF-8 text: each word is found in a cache, or merged.

Contract: `encode` gives the ids of tokenizer.json: in each word the pair of lowest rank is merged, leftmost first,
until no pair has a merge; ids of merges grow with their rank. Text must be UTF-8: for other bytes the ids are
undefined, but nothing outside the arrays is read or written. Time is linear in the text, except for uncached words of n
bytes, which take n log n. Memory: 5 bytes for each byte of text, and 32 for each byte of its longest word.

A word of at most 31 bytes that took at most 7 ids is cached, in 64 bytes, in the one slot that its hash names, until
another word needs the slot. Words are compared by their bytes, not by their hash.

Superwords are cut from stretches of several words, too many to cache. They are encoded in two steps. A joint is a
place between a letter (an ASCII one, or any byte from 0x80 on) and a blank, comma or apostrophe. Early merges are
those before the first merge that reaches over a joint: they act between joints as they would in the whole stretch, so
the text between joints is cached like a word. Late merges then act on the whole stretch. No early merge becomes
possible again, since whatever a late merge makes has a later rank, and so has all that is made of it. Where merges
reach over joints from the start, all merges are late, and the ids are the same, only slower.

Cost at 102,400 ids on one core: 40 to 55 MB/s of Korean, English and code; with a tenth of superwords 17 to 29 MB/s of
Korean and English; 2 to 5 MB/s for a single word of 6 MB.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tokenizer.engine import dfa, hash_table, heap, pretokenizer
from tokenizer.engine.hash_table import FREE, Slots, mix, probe, slots_for
from tokenizer.engine.heap import heap_of
from tokenizer.engine.pretokenizer import Bytes, Cutter, Integers, cutter_of, padded, word_end
from twofold.compiled import compiled, entry_point

_LARGEST_ID = (1 << 21) - 1
_CACHED_BYTES, _CACHED_IDS = np.uint64(31), np.uint64(7)
_CACHE_SLOTS = 1 << 18
"""16 MB. Four times as many gain a tenth."""
_LATE = np.uint64(128)
_SHORT = np.uint64(64)
"""More ids than this are merged with a heap."""
_ABSENT = np.uint32(0xFFFFFFFF)
_ID_BITS, _ID = np.uint64(21), np.uint64(_LARGEST_ID)
_MIX_1, _MIX_2, _MIX_3 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0xD6E8FEB86659FD93)
_ZERO, _ONE, _EIGHT = np.uint64(0), np.uint64(1), np.uint64(8)

Ids = npt.NDArray[np.uint32]


class Vocabulary(NamedTuple):
    """What encoding needs of tokenizer.json, and a cache, which `encode` writes: use it in one thread at a time."""

    cutter: Cutter
    """Cuts text into words."""
    bytes: Ids
    """Id of each byte."""
    early: Slots
    """Hash table of merges: 21 bits each of left, right and merged id. No merged id is 0, so no entry is."""
    late: Slots
    """The same for the merges from the first one on that reaches over a joint."""
    has_late: np.bool_
    cached_words: npt.NDArray[np.uint64]
    """[slots, 4]: the word's bytes, zeros, and as the last byte its length, plus 128 where late merges wait."""
    cached_ids: Ids
    """[slots, 8]: its ids, and their number as the last."""

    @classmethod
    def of(cls, pattern: str, byte_ids: Ids, merges: Ids, cache_slots: int = _CACHE_SLOTS) -> Vocabulary:
        """From the pattern of words, the id of each byte, and the ids of each merge's parts and result, [merges, 3].

        `cache_slots` is a power of two.
        """
        assert merges.max(initial=0) <= _LARGEST_ID, "three ids share 63 bits"
        early = _count_early(byte_ids, merges)
        words, ids = np.zeros((cache_slots, 4), np.uint64), np.zeros((cache_slots, 8), np.uint32)
        tables = _merge_table(merges[:early]), _merge_table(merges[early:])
        return cls(cutter_of(pattern), byte_ids, *tables, np.bool_(early < len(merges)), words, ids)


def encode(text: Bytes, ends: Integers, vocabulary: Vocabulary, last: int | None = None) -> tuple[Ids, Integers]:
    """The ids of documents, and where each document ends in them.

    `text` holds the documents one after the other, in valid UTF-8; they end at `ends`. Each document is followed by the
    id `last`, if given.
    """
    ids, id_ends = np.empty(len(text) + len(ends), np.uint32), np.empty(len(ends), np.int64)
    written = _encode(padded(text), ends, vocabulary, -1 if last is None else last, ids, id_ends)
    return ids[:written], id_ends


def _merge_table(merges: Ids) -> Slots:
    slots = np.zeros(slots_for(len(merges)), np.uint64)
    _fill(np.ascontiguousarray(merges), slots)
    return slots


# --- compiled ----------------------------------------------------------------------------------


@compiled
def _place(merges, pair):  # type: ignore[no-untyped-def]
    """The place of a pair's merge, or the free one where it belongs."""
    return probe(merges, mix(pair), pair << _ID_BITS, ~_ID)


@compiled
def _merged(left, right, merges):  # type: ignore[no-untyped-def]
    """The id that two ids merge to, or _ABSENT."""
    pair = (np.uint64(left) << _ID_BITS) | np.uint64(right)
    entry = merges[_place(merges, pair)]
    return _ABSENT if entry == FREE else np.uint32(entry & _ID)


@compiled
def _is_joint(before, after):  # type: ignore[no-untyped-def]
    """Whether two bytes are a letter and a sign that may join it to the next word of a stretch."""
    letter = before >= 0x80 or 0x61 <= (before | 0x20) <= 0x7A
    return letter and (after == 0x20 or after == 0x2C or after == 0x27)


@compiled
def _joint(data, begin, end):  # type: ignore[no-untyped-def]
    """The first joint after `begin`, or `end`."""
    at = begin + _ONE
    while at < end and not _is_joint(data[at - _ONE], data[at]):
        at += _ONE
    return at


@compiled
def _merge_bytes(data, begin, end, vocabulary, late, wanted, out, written):  # type: ignore[no-untyped-def]
    """Encode bytes where their ids go, by early merges and, with `late`, by late ones; returns ids written so far."""
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
def _never(table, place, other):  # type: ignore[no-untyped-def]
    return False


_push, _replace_top = heap_of(_never)


@compiled
def _merge_many(out, first, count, merges):  # type: ignore[no-untyped-def]
    """The same with a heap of places; the keys are the id that a place wants to merge to, and the place: all differ.

    An entry counts only while its place still wants that merge, so no entry has to be found and removed.
    """
    length = np.int64(count)
    ids, wanted = np.empty(length, np.uint32), np.empty(length, np.uint32)
    before, after = np.empty(length, np.int32), np.empty(length, np.int32)
    keys, places, size = np.empty(2 * length, np.int64), np.empty(2 * length, np.int32), 0
    for place in range(length):
        ids[place] = out[first + np.uint64(place)]
        before[place], after[place] = place - 1, place + 1
    for place in range(length):
        size = _want(place, place + 1, ids, wanted, keys, places, size, merges)
    while size:
        merged, at = np.uint32(keys[0] >> 32), np.int64(places[0])
        size -= 1
        _replace_top(keys, places, size, keys[size], places[size], None)
        if wanted[at] != merged:
            continue
        gone = after[at]
        ids[at], wanted[gone], after[at] = merged, _ABSENT, after[gone]
        if after[gone] < length:
            before[after[gone]] = at
        size = _want(at, after[at], ids, wanted, keys, places, size, merges)
        if before[at] >= 0:
            size = _want(before[at], at, ids, wanted, keys, places, size, merges)
    place, left = 0, _ZERO
    while place < length:
        out[first + left] = ids[place]
        left += _ONE
        place = after[place]
    return left


@compiled
def _want(left, right, ids, wanted, keys, places, size, merges):  # type: ignore[no-untyped-def]
    """Note what the parts at two places merge to, in the heap too; returns the heap's size."""
    wanted[left] = _ABSENT if right == len(ids) else _merged(ids[left], ids[right], merges)
    if wanted[left] == _ABSENT:
        return size
    _push(keys, places, size, (np.int64(wanted[left]) << 32) | left, left, None)
    return size + 1


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


def _fill_table(merges, slots):  # type: ignore[no-untyped-def]
    """Put merges into empty slots."""
    for number in range(len(merges)):
        pair = (np.uint64(merges[number, 0]) << _ID_BITS) | np.uint64(merges[number, 1])
        slots[_place(slots, pair)] = (pair << _ID_BITS) | np.uint64(merges[number, 2])


def _merges_before_joints(byte_ids, merges):  # type: ignore[no-untyped-def]
    """How many merges come before the first one that reaches over a joint."""
    ids = max(byte_ids.max(), merges.max() if len(merges) else np.uint32(0)) + 1
    first, last = np.zeros(ids, np.uint8), np.zeros(ids, np.uint8)
    for byte in range(256):
        first[byte_ids[byte]] = last[byte_ids[byte]] = byte
    for rank in range(len(merges)):
        left, right, merged = merges[rank]
        if _is_joint(last[left], first[right]):
            return rank
        first[merged], last[merged] = first[left], last[right]
    return len(merges)


def _encode_documents(data, ends, vocabulary, last, out, out_ends):  # type: ignore[no-untyped-def]
    """Encode the documents of `data`, which end at `ends`, each followed by the id `last`; returns ids written.

    `data` is PADDING longer than the last end; `out` holds an id for each byte and document (uint32);
    `out_ends` gets the end of each document in ids.
    """
    # One long function: with the cache's part on its own, called from two places, it took a third longer.
    words, ids, wanted = vocabulary.cached_words, vocabulary.cached_ids, np.empty(64, np.uint32)
    at = written = _ZERO
    mask = np.uint64(len(words) - 1)
    for document in range(len(ends)):
        end = np.uint64(ends[document])
        while at < end:
            first, stop = written, word_end(data, at, end, vocabulary.cutter)
            part = _joint(data, at, stop) if vocabulary.has_late else stop
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
                    slot = mix(a ^ b * _MIX_1 ^ (c * _MIX_2 >> np.uint64(7)) ^ d * _MIX_3) & mask
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
        if last >= 0:
            out[written] = last
            written += _ONE
        out_ends[document] = written
    return written


_fill, _count_early = entry_point(_fill_table, hash_table), entry_point(_merges_before_joints)
_encode = entry_point(_encode_documents, dfa, pretokenizer, hash_table, heap)
