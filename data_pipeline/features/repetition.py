"""Repeated spans and n-grams of words, exactly: compiled parts of kernel.py.

Contract: a span's id is the index of the first span with the same code points. Spans that hash alike
are compared code point by code point, and an n-gram is a pair of ids, so no collision can change a
count: `multiplier`, the hash's odd factor, decides only where the tables are probed. Linear in time and
memory, unless a text was written against the multiplier; so each process draws its own.
"""

from __future__ import annotations

import numpy as np

from twofold.compiled import compiled

LONGEST_TOP, LONGEST_GRAM = 4, 10


@compiled
def firsts_of(codes, spans, multiplier):  # type: ignore[no-untyped-def]
    """The id of each span, int32."""
    starts, ends = spans
    slots = np.zeros(_capacity(len(starts)), np.int32)
    mask = len(slots) - 1
    hashes, firsts = np.empty(len(starts), np.uint64), np.empty(len(starts), np.int32)
    for span in range(len(starts)):
        start, end = starts[span], ends[span]
        key = hashes[span] = _hash(codes, start, end, multiplier)
        slot = np.int64(key) & mask
        firsts[span] = span
        while slots[slot]:
            other = slots[slot] - 1
            if hashes[other] == key and _same(codes, starts[other], ends[other], start, end):
                firsts[span] = other
                break
            slot = (slot + 1) & mask
        if firsts[span] == span:
            slots[slot] = span + 1
    return firsts


@compiled
def _capacity(count):  # type: ignore[no-untyped-def]
    """A power of two, at least twice `count`."""
    capacity = 16
    while capacity < 2 * count:
        capacity *= 2
    return capacity


@compiled
def _hash(codes, start, end, multiplier):  # type: ignore[no-untyped-def]
    """Two code points a step; the shift brings the product's well mixed upper half down."""
    key = np.uint64(end - start)
    for i in range(start, end - 1, 2):
        key = (key ^ np.uint64(codes[i]) ^ np.uint64(codes[i + 1]) << np.uint64(32)) * multiplier
        key ^= key >> np.uint64(32)
    if (end - start) & 1:
        key = (key ^ np.uint64(codes[end - 1])) * multiplier
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
def count_grams(words, firsts, multiplier, top, duplicate):  # type: ignore[no-untyped-def]
    """Code points in the most frequent 2..4-gram (into `top`) and in repeated 5..10-grams (into `duplicate`).

    Gopher's measures (Rae et al. 2021, table A1), counted as datatrove does. An n-gram can repeat only
    where the (n-1)-grams at its first and at its second word do, so each round looks at what the one
    before it left; in prose little is left after 4.
    """
    count = len(firsts)
    before = np.zeros(count + 1, np.int64)
    for word in range(count):
        before[word + 1] = before[word] + words[1][word] - words[0][word]
    grams, keys, frequency = firsts.copy(), np.empty(count, np.uint64), np.zeros(count, np.int32)
    for word in range(count):
        frequency[firsts[word]] += 1
    repeated = np.zeros(count + 1, np.bool_)
    for word in range(count):
        repeated[word] = frequency[firsts[word]] > 1
    places = np.arange(count).astype(np.int32)
    for n in range(2, LONGEST_GRAM + 1):
        places = _places_left(places, repeated, count - n + 1)
        _number_grams(places, n, grams, keys, firsts, frequency, repeated, multiplier)
        if n <= LONGEST_TOP:
            top[n - 2] = _top_length(places, n, grams, frequency, before)
        else:
            duplicate[n - LONGEST_TOP - 1] = _duplicate_length(places, n, grams, repeated, before)


@compiled
def _places_left(places, repeated, limit):  # type: ignore[no-untyped-def]
    """Places below `limit` where this gram and the next are repeated; then forgets what was repeated."""
    left = np.empty(len(places), np.int32)
    count = 0
    for place in places:
        if place < limit and repeated[place] and repeated[place + 1]:
            left[count] = place
            count += 1
    for place in places:
        repeated[place] = False
    return left[:count]


@compiled
def _number_grams(places, n, grams, keys, firsts, frequency, repeated, multiplier):  # type: ignore[no-untyped-def]
    """grams[place]: the first place with the same n-gram, from the id of its first n - 1 words and its last word."""
    slots = np.zeros(_capacity(len(places)), np.int32)
    mask = len(slots) - 1
    for place in places:
        frequency[place] = 0
    for place in places:
        key = keys[place] = np.uint64(grams[place]) << np.uint64(32) | np.uint64(firsts[place + n - 1])
        mixed = key * multiplier
        slot = np.int64(mixed ^ mixed >> np.uint64(32)) & mask
        while slots[slot] and keys[slots[slot] - 1] != key:
            slot = (slot + 1) & mask
        if not slots[slot]:
            slots[slot] = place + 1
        grams[place] = slots[slot] - 1
        frequency[grams[place]] += 1
    for place in places:
        repeated[place] = frequency[grams[place]] > 1


@compiled
def _top_length(places, n, grams, frequency, before):  # type: ignore[no-untyped-def]
    """Code points of the most frequent n-gram (the first of equals) times its count; 0 if none repeats."""
    best, most = 0, 1
    for place in places:
        if frequency[grams[place]] > most:
            best, most = place, frequency[grams[place]]
    return (before[best + n] - before[best] + n - 1) * most if most > 1 else 0


@compiled
def _duplicate_length(places, n, grams, repeated, before):  # type: ignore[no-untyped-def]
    """Code points of n-grams seen before, read left to right, a repeated one being skipped over."""
    seen = np.zeros(len(before), np.bool_)
    length = following = 0
    for place in places:
        if repeated[place] and place >= following:
            if seen[grams[place]]:
                length += before[place + n] - before[place]
                following = place + n
            seen[grams[place]] = True
    return length
