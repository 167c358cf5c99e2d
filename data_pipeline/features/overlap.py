"""Text that documents share with benchmark items, by EXAONE 3.5's random substrings or by all substrings.

Contract: both sides are folded to letters and digits (`fold_table`). What they share is a substring of `window`
folded characters, the S of EXAONE 3.5 (technical report, section 2.1.2; S = 50). `every` finds all of them;
`sampled` looks up N substrings per document at random places (N = 10) and is a pure function of the numbers it
is given. Both are exact: hashes only propose places. `every` also finds items shorter than S as a whole if they
have more than S / 2 characters. The report does not say how it treats those; `sampled` does not look for them.

Method: the index holds only seeds of the items: q = S // 2 + 1 characters at every k-th place of an item, where
k = S - q + 1. Any S consecutive characters of an item contain at least one seed, so a rolling hash of q
characters finds it, and comparing at most S characters to either side settles it.

Cost per core: 75 MB/s of English and 180 of Korean for `every`, 120 to 260 for `sampled`, and one comparison for
each item that shares a seed. Memory: 4 bytes per folded character of the items and 2.5 for the index; 4 bytes
per code point of a batch of documents, and 8 per code point of its longest.
"""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_pipeline.readers.characters import Codes, codes_of
from twofold.compiled import compiled, entry_point

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FILTER_SHARE = 8
"""Slots per word of the filter, which then fits a core's cache; 4 % of places pass without a match."""

_LENGTH, _MATCHES, _COVERED, _FIRST_ITEM = range(4)
_TOUCHED, _PLACE, _ITEM = range(3)
_NOWHERE = 2**62
_Folded = tuple[Codes, npt.NDArray[np.int64]]


class Index(NamedTuple):
    """Folded items, and their seeds by hash. Item i is codes[bounds[i]:bounds[i + 1]]."""

    codes: Codes
    bounds: npt.NDArray[np.int64]
    window: int
    seed_length: int
    places: npt.NDArray[np.int64]
    """Where each seed begins in `codes`."""
    items: npt.NDArray[np.int64]
    """The item of each seed."""
    hashes: npt.NDArray[np.uint64]
    next_seed: npt.NDArray[np.int64]
    """The previous seed with the same slot, or -1."""
    last_seed: npt.NDArray[np.int64]
    """Slot -> its newest seed, or -1; the length is a power of two."""
    filter: npt.NDArray[np.uint64]
    """One bit per hash; the length is a power of two. It rejects most places of a document."""


class Overlaps(NamedTuple):
    """What `every` or `sampled` found in each of n documents."""

    matches: npt.NDArray[np.int64]
    """Shape (n,): places where a shared substring begins (`sampled`: samples that are shared)."""
    share: npt.NDArray[np.float64]
    """Shape (n,): fraction of folded characters in shared substrings (`sampled`: fraction of samples, an estimate)."""
    first_item: npt.NDArray[np.int64]
    """Shape (n,): the item of the first shared substring, the lowest if there are several, or -1."""
    pairs: npt.NDArray[np.int64]
    """Shape (m, 2), sorted: every document with every item that it shares text with."""


@functools.cache
def fold_table() -> npt.NDArray[np.uint32]:
    """Code point -> its folded form, 0 where it is removed: shape (0x110000,), read-only.

    Letters and digits stay (`str.isalnum`), in lower case and without width or style (Ａ and A become a, ４
    becomes 4). The report only mentions normalization. One character always becomes one, so folding finds
    everything that would be found without it.
    """
    table = np.zeros(sys.maxunicode + 1, dtype=np.uint32)
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if character.isalnum():
            forms = (unicodedata.normalize("NFKC", character).lower(), character.lower(), character)
            table[code] = next(ord(form) for form in forms if len(form) == 1 and form.isalnum())
    table.setflags(write=False)
    return table


def fold(texts: Sequence[str]) -> _Folded:
    """The concatenated folded texts, and their bounds: shape (len(texts) + 1,)."""
    codes, bounds = _code_points(texts)
    return _fold_all(codes, bounds, fold_table())


def shortest_item(window: int, whole_items: bool) -> int:
    """The fewest folded characters of an item that can be found."""
    return window // 2 + 1 if whole_items else window


def index_of(codes: Codes, bounds: npt.NDArray[np.int64], window: int, whole_items: bool) -> Index:
    """Index folded items; with `whole_items`, also those shorter than the window."""
    length = window // 2 + 1
    step = window - length + 1
    lengths = np.diff(bounds)
    lengths = lengths[lengths >= shortest_item(window, whole_items)]
    seeds = int(((lengths - length) // step + 1).sum())
    slots = 1 << max(5, (2 * seeds).bit_length())
    places, items, next_seed = np.empty((3, seeds), np.int64)
    hashes, last_seed = np.empty(seeds, np.uint64), np.full(slots, -1, np.int64)
    bits = np.zeros(slots // _FILTER_SHARE, np.uint64)
    index = Index(codes, bounds, window, length, places, items, hashes, next_seed, last_seed, bits)
    used = _add_seeds(index, shortest_item(window, whole_items))
    return index._replace(places=index.places[:used], items=index.items[:used], hashes=index.hashes[:used])


def every(texts: Sequence[str], index: Index) -> Overlaps:
    """All shared substrings of `texts`."""
    return _find(texts, index, np.zeros((len(texts), 0), np.uint32))


def sampled(texts: Sequence[str], draws: npt.NDArray[np.uint32], index: Index) -> Overlaps:
    """Look up one substring of text i for each of draws[i]: its place, as a fraction of 2^32 of all places.

    Texts shorter than the window have no substrings.
    """
    assert draws.shape[0] == len(texts)
    assert draws.shape[1] > 0
    return _find(texts, index, draws)


def _find(texts: Sequence[str], index: Index, draws: npt.NDArray[np.uint32]) -> Overlaps:
    codes, bounds = _code_points(texts)
    found = np.zeros((len(texts), 4), np.int64)
    pairs = _find_all(codes, bounds, fold_table(), index, draws, found)
    whole = draws.shape[1] or found[:, _LENGTH]
    share = found[:, _COVERED] / np.maximum(1, whole)
    return Overlaps(found[:, _MATCHES], share, found[:, _FIRST_ITEM], pairs)


def _code_points(texts: Sequence[str]) -> _Folded:
    composed = [unicodedata.normalize("NFC", text) for text in texts]
    return codes_of("".join(composed)), np.cumsum([0, *map(len, composed)], dtype=np.int64)


# --- compiled ----------------------------------------------------------------------------------


@compiled
def _folded(codes, table):  # type: ignore[no-untyped-def]
    folded = np.empty(len(codes), np.uint32)
    length = 0
    for code in codes:
        folded[length] = table[code]
        length += folded[length] != 0
    return folded[:length]


@compiled
def _slot(value, slots):  # type: ignore[no-untyped-def]
    """From the upper bits of a product: the lower bits of a polynomial hash depend on its last characters only."""
    return np.int64((value * _MULTIPLIER) >> np.uint64(24)) & (slots - 1)


@compiled
def _bit(value):  # type: ignore[no-untyped-def]
    return np.uint64(1) << ((value * _MULTIPLIER) >> np.uint64(58))


@compiled
def _hash(codes, start, length):  # type: ignore[no-untyped-def]
    value = np.uint64(0)
    for i in range(start, start + length):
        value = value * _MULTIPLIER + np.uint64(codes[i])
    return value


@compiled
def _is_known(index, slot, place, item):  # type: ignore[no-untyped-def]
    """Whether an indexed seed of the same item has the same characters around it, as far as comparing goes.

    Such a seed adds nothing, and an item of one repeated character would give long chains of them.
    """
    step = index.window - index.seed_length
    seed = index.last_seed[slot]
    first, end = index.bounds[item], index.bounds[item + 1]
    before, after = min(step, place - first), min(index.window, end - place)
    while seed >= 0 and index.items[seed] == item:
        other = index.places[seed]
        if before == min(step, other - first) and after == min(index.window, end - other):
            same = 0
            while same < before + after and index.codes[place - before + same] == index.codes[other - before + same]:
                same += 1
            if same == before + after:
                return True
        seed = index.next_seed[seed]
    return False


@compiled
def _scan(text, start, end, index, reach, document, stamps, touched, state):  # type: ignore[no-untyped-def]
    """Find what text[start:end] shares: how far each place reaches, the items touched and the first of them."""
    length = index.seed_length
    if end - start < length:
        return
    lead = np.uint64(1)
    for _ in range(length - 1):
        lead *= _MULTIPLIER
    value = _hash(text, start, length)
    slots, words = len(index.last_seed), len(index.filter)
    for place in range(start, end - length + 1):
        if place > start:
            value = (value - lead * np.uint64(text[place - 1])) * _MULTIPLIER + np.uint64(text[place + length - 1])
        slot = _slot(value, slots)
        if index.filter[slot & (words - 1)] & _bit(value) == 0:
            continue
        seed = index.last_seed[slot]
        while seed >= 0:
            if index.hashes[seed] == value:
                _settle(text, start, end, place, seed, index, reach, document, stamps, touched, state)
            seed = index.next_seed[seed]


@compiled
def _settle(text, start, end, place, seed, index, reach, document, stamps, touched, state):  # type: ignore[no-untyped-def]
    """Compare the characters around a seed, and record the shared substrings that contain it."""
    item, origin = index.items[seed], index.places[seed]
    first, last = index.bounds[item], index.bounds[item + 1]
    wanted = min(index.window, last - first)
    most = min(index.window, last - origin, end - place)
    after = 0
    while after < most and text[place + after] == index.codes[origin + after]:
        after += 1
    if after < index.seed_length:
        return
    most = min(index.window - index.seed_length, origin - first, place - start)
    before = 0
    while before < most and text[place - before - 1] == index.codes[origin - before - 1]:
        before += 1
    if before + after < wanted:
        return
    begin = place - before
    for i in range(begin, place + after - wanted + 1):
        reach[i] = max(reach[i], wanted)
    if stamps[item] != document:
        stamps[item] = document
        touched[state[_TOUCHED]] = item
        state[_TOUCHED] += 1
    if begin < state[_PLACE] or (begin == state[_PLACE] and item < state[_ITEM]):
        state[_PLACE], state[_ITEM] = begin, item


@compiled
def _sample(text, draws, index, document, stamps, touched, state):  # type: ignore[no-untyped-def]
    """How many of the samples are shared. A sample is as long as the window, so only all of it can be."""
    places = len(text) - index.window + 1
    found = 0
    reach = np.empty(len(text), np.int32)  # a scan touches only the place where its sample begins
    for draw in draws:
        if places > 0:
            begin = np.int64((np.uint64(draw) * np.uint64(places)) >> np.uint64(32))
            reach[begin] = 0
            _scan(text, begin, begin + index.window, index, reach, document, stamps, touched, state)
            found += reach[begin] != 0
    return found


@compiled
def _covered(reach):  # type: ignore[no-untyped-def]
    """(places where a shared substring begins, characters in shared substrings)."""
    matches = covered = until = 0
    for i in range(len(reach)):
        if reach[i]:
            matches += 1
            until = max(until, i + reach[i])
        covered += i < until
    return matches, covered


def find_all(codes, bounds, table, index, draws, found):  # type: ignore[no-untyped-def]
    """Document i is codes[bounds[i]:bounds[i + 1]]; fills found, int64 (documents, 4); returns the pairs."""
    items = len(index.bounds) - 1
    stamps, touched = np.full(items, -1, np.int64), np.empty(items, np.int64)
    pairs, used = np.empty((16, 2), np.int64), 0
    state = np.empty(3, np.int64)
    for document in range(len(bounds) - 1):
        text = _folded(codes[bounds[document] : bounds[document + 1]], table)
        state[_TOUCHED], state[_PLACE], state[_ITEM] = 0, _NOWHERE, -1
        if draws.shape[1]:
            matches = covered = _sample(text, draws[document], index, document, stamps, touched, state)
        else:
            reach = np.zeros(len(text), np.int32)
            _scan(text, 0, len(text), index, reach, document, stamps, touched, state)
            matches, covered = _covered(reach) if state[_TOUCHED] else (0, 0)
        found[document, _LENGTH], found[document, _MATCHES] = len(text), matches
        found[document, _COVERED], found[document, _FIRST_ITEM] = covered, state[_ITEM]
        count = state[_TOUCHED]
        if used + count > len(pairs):
            grown = np.empty((2 * (used + count), 2), np.int64)
            grown[:used] = pairs[:used]
            pairs = grown
        pairs[used : used + count, 0] = document
        pairs[used : used + count, 1] = np.sort(touched[:count])
        used += count
    return pairs[:used]


def add_seeds(index, shortest):  # type: ignore[no-untyped-def]
    """Fill an empty index with items of at least `shortest` characters; returns its number of seeds."""
    length, step = index.seed_length, index.window - index.seed_length + 1
    used = 0
    for item in range(len(index.bounds) - 1):
        if index.bounds[item + 1] - index.bounds[item] < shortest:
            continue
        for place in range(index.bounds[item], index.bounds[item + 1] - length + 1, step):
            value = _hash(index.codes, place, length)
            slot = _slot(value, len(index.last_seed))
            if _is_known(index, slot, place, item):
                continue
            index.places[used], index.items[used], index.hashes[used] = place, item, value
            index.next_seed[used], index.last_seed[slot] = index.last_seed[slot], used
            index.filter[slot & (len(index.filter) - 1)] |= _bit(value)
            used += 1
    return used


def fold_all(codes, bounds, table):  # type: ignore[no-untyped-def]
    """The concatenated folded texts, and their bounds."""
    folded, ends = np.empty(len(codes), np.uint32), np.zeros(len(bounds), np.int64)
    for i in range(len(bounds) - 1):
        text = _folded(codes[bounds[i] : bounds[i + 1]], table)
        ends[i + 1] = ends[i] + len(text)
        folded[ends[i] : ends[i + 1]] = text
    return folded[: ends[-1]], ends


_find_all: Callable[..., npt.NDArray[np.int64]] = entry_point(find_all)
_add_seeds: Callable[..., int] = entry_point(add_seeds)
_fold_all: Callable[..., _Folded] = entry_point(fold_all)
