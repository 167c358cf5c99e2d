"""Repeated spans and repeated n-grams of words, counted exactly: compiled parts of counts.py.

Contract: a span's id is the index of the first span with the same code points. Spans with equal hashes are
compared code point by code point, and an n-gram is a pair of ids, so collisions never change a count:
`multiplier`, the odd factor of the hash, only decides which slots are probed. Each process draws its own,
so that no document can be written to make the tables slow. Time and memory are linear.
"""

from __future__ import annotations

import numpy as np

from twofold.compiled import compiled

LONGEST_TOP, LONGEST_GRAM = 4, 10


@compiled
def firsts_of(codes, spans, multiplier):  # type: ignore[no-untyped-def]
    """The id of each span, int32."""
    starts, ends = spans
    slots, hashes, firsts = _table(len(starts)), np.empty(len(starts), np.uint64), np.empty(len(starts), np.int32)
    mask = len(slots) - 1
    for span in range(len(starts)):
        start, end = starts[span], ends[span]
        key = hashes[span] = _hash(codes, start, end, multiplier)
        slot = np.int64(key) & mask
        while slots[slot] >= 0:
            other = slots[slot]
            if hashes[other] == key and _same(codes, starts[other], ends[other], start, end):
                break
            slot = (slot + 1) & mask
        if slots[slot] < 0:
            slots[slot] = span
        firsts[span] = slots[slot]
    return firsts


@compiled
def _table(count):  # type: ignore[no-untyped-def]
    """Empty slots (-1): a power of two, at least twice `count`."""
    capacity = 16
    while capacity < 2 * count:
        capacity *= 2
    return np.full(capacity, -1, np.int32)


@compiled
def _hash(codes, start, end, multiplier):  # type: ignore[no-untyped-def]
    """The shift brings the well-mixed upper half of the product down."""
    key = np.uint64(end - start)
    for i in range(start, end):
        key = (key ^ np.uint64(codes[i])) * multiplier
        key ^= key >> np.uint64(32)
    return key


@compiled
def _same(codes, start, end, other_start, other_end):  # type: ignore[no-untyped-def]
    if end - start != other_end - other_start:
        return False
    for offset in range(end - start):  # noqa: SIM110  (numba compiles no generator in all())
        if codes[start + offset] != codes[other_start + offset]:
            return False
    return True


@compiled
def repeats(codes, spans, multiplier):  # type: ignore[no-untyped-def]
    """How many spans repeat an earlier one, and their code points."""
    count = length = 0
    firsts = firsts_of(codes, spans, multiplier)
    for span in range(len(firsts)):
        if firsts[span] != span:
            count += 1
            length += spans[1][span] - spans[0][span]
    return count, length


@compiled
def count_grams(words, firsts, multiplier):  # type: ignore[no-untyped-def]
    """Shape (LONGEST_GRAM + 1,): code points in the most frequent n-gram for n = 2..4, in repeated ones for n = 5..10.

    Gopher's measures (Rae et al. 2021, table A1), counted as datatrove does. `firsts` are the words' ids.
    """
    lengths = np.zeros(LONGEST_GRAM + 1, np.int64)
    before = np.zeros(len(firsts) + 1, np.int64)  # code points in the words before each word
    for word in range(len(firsts)):
        before[word + 1] = before[word] + words[1][word] - words[0][word]
    grams = firsts
    for n in range(2, LONGEST_GRAM + 1):
        grams, repeated = _longer(grams, firsts[n - 1 :], multiplier)
        if not repeated:  # then no longer one repeats either
            break
        if n <= LONGEST_TOP:
            lengths[n] = _top_length(grams, n, before)
        else:
            lengths[n] = _duplicate_length(grams, n, before)
    return lengths


@compiled
def _longer(grams, last_words, multiplier):  # type: ignore[no-untyped-def]
    """The id of each n-gram, from the ids of its first n - 1 words and of its last; and whether any repeats."""
    slots = _table(len(last_words))
    mask = len(slots) - 1
    keys, firsts, repeated = np.empty(len(last_words), np.uint64), np.empty(len(last_words), np.int32), False
    for place in range(len(last_words)):
        key = keys[place] = np.uint64(grams[place]) << np.uint64(32) | np.uint64(last_words[place])
        mixed = key * multiplier
        slot = np.int64(mixed ^ mixed >> np.uint64(32)) & mask
        while slots[slot] >= 0 and keys[slots[slot]] != key:
            slot = (slot + 1) & mask
        if slots[slot] < 0:
            slots[slot] = place
        else:
            repeated = True
        firsts[place] = slots[slot]
    return firsts, repeated


@compiled
def _top_length(grams, n, before):  # type: ignore[no-untyped-def]
    """Code points of the most frequent n-gram (the first of equals) times its count; 0 if none repeats."""
    frequency = np.bincount(grams)
    best = frequency.argmax()
    most = frequency[best]
    return (before[best + n] - before[best] + n - 1) * most if most > 1 else 0


@compiled
def _duplicate_length(grams, n, before):  # type: ignore[no-untyped-def]
    """Code points of n-grams seen before, from left to right; a repeated one is skipped as a whole."""
    seen = np.zeros(len(grams), np.bool_)
    length = following = 0
    for place in range(len(grams)):
        if place >= following:
            if seen[grams[place]]:
                length += before[place + n] - before[place]
                following = place + n
            seen[grams[place]] = True
    return length
