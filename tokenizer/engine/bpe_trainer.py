"""Greedy byte-pair merges over counted words.

Contract: `train_bpe` joins the most frequent pair of neighbours in all words, again and again; ties go to the shorter
piece, then to code point order (of the alphabet in patterns.py), as in sentencepiece, whose merges these are. Pieces of
more than `PIECE_BYTES` bytes are not made. It stops when there are enough pieces or no pair is left. Exact: counts are
64-bit integers, and the result depends on the words alone.

How: each place knows the number of the pair that begins there, so counts are kept without a look-up. A pair is born in
one merge, with all its occurrences, since one of its parts is; from then on it only gets rarer. So a pair's list of
words is written once, and a heap whose counts are at worst too high needs no updates: a pair that comes up with an old
count goes back with the right one.

Memory: 8 bytes per byte of the words, 4 to 12 for lists of words, 40 per pair: 0.75 GB with 1.2 million distinct words,
4 GB with 10 million. Cost at 102,400: 7 s and 42 s on one core; sentencepiece takes twice as long on two cores.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tokenizer.engine import hash_table, heap
from tokenizer.engine.hash_table import FREE, mix, probe, slots_for
from tokenizer.engine.heap import heap_of
from tokenizer.engine.pretokenizer import Bytes, Integers
from tokenizer.engine.word_counts import Words
from tokenizer.patterns import CODE_POINT_OF_BYTE
from twofold.compiled import compiled, entry_point

PIECE_BYTES = 64
"""Longest piece; longer ones are never worth their id."""
MOST_PLACES = 2**31 - 1
"""The most bytes, or known pieces, in all words together: places are 32-bit."""
_PIECES, _PAIRS, _LISTED, _HEAPED = range(4)
_FIRST_PAIRS = 1 << 16
_NO_PAIR, _NEW_PAIR = -1, -2
_DONE, _FULL = 0, 1
_SHIFT_32, _ONE = np.uint64(32), np.uint64(1)
_LOWER_HALF, _UPPER_HALF = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFF00000000)

Numbers = npt.NDArray[np.int32]


class Corpus(NamedTuple):
    """Words as pieces; word i is at starts[i], sizes[i] long."""

    pieces: Numbers
    pairs: Numbers
    """The pair that begins at each place, or -1 at the end of a word."""
    starts: Integers
    sizes: Numbers
    counts: Integers


class Pieces(NamedTuple):
    """All pieces; piece i is text[bounds[i]:bounds[i + 1]], bytes as their places in code point order."""

    text: Bytes
    bounds: Integers


class Pairs(NamedTuple):
    """All pairs that ever were; the words of pair i are words[begins[i]:begins[i] + sizes[i]]."""

    lefts: Numbers
    rights: Numbers
    counts: Integers
    begins: Integers
    sizes: Numbers
    heap_keys: Integers
    """The counts that pairs had when they were put there, negated, so that the most frequent is on top."""
    heap: Numbers
    words: Numbers


def train_bpe(words: Words, known: list[bytes], merges: int) -> list[bytes]:
    """The next `merges` pieces that `words` give, or all there are.

    `words.data` holds numbers of known pieces: piece i is known[i], and the first 256 are the bytes.
    """
    assert len(words.data) <= MOST_PLACES
    order = np.argsort(np.argsort([ord(letter) for letter in CODE_POINT_OF_BYTE])).astype(np.uint8)
    pieces, wanted = words.data.astype(np.int32), len(known) + merges
    corpus = Corpus(
        pieces,
        np.full(len(pieces), _NO_PAIR, np.int32),
        words.bounds[:-1].astype(np.int64),
        np.diff(words.bounds).astype(np.int32),
        np.require(words.counts, requirements="W"),
    )
    size = sum(map(len, known))
    table = Pieces(np.zeros(size + PIECE_BYTES * merges, np.uint8), np.zeros(wanted + 1, np.int64))
    table.bounds[1 : len(known) + 1] = np.cumsum([len(piece) for piece in known])
    table.text[:size] = order[np.frombuffer(b"".join(known), np.uint8)]
    number = _run(corpus, table, len(known), wanted)
    text, bounds = np.argsort(order).astype(np.uint8)[table.text].tobytes(), table.bounds.tolist()
    return [text[bounds[piece] : bounds[piece + 1]] for piece in range(len(known), number)]


def _run(corpus: Corpus, table: Pieces, known: int, wanted: int) -> int:
    """Merge to the end, with more room whenever there is too little; returns how many pieces there are."""
    # Each place is listed once at first, and twice for each merge that ends there; untouched room costs nothing.
    pairs = _with_room(_FIRST_PAIRS, np.empty(3 * len(corpus.pieces), np.int32))
    used = np.array([known, 0, 0, 0], np.int64)
    slots = np.full(2 * wanted, _NO_PAIR, np.int32)
    while _first_pairs(corpus, table, pairs, used, np.zeros(slots_for(len(pairs.counts)), np.uint64)) == _FULL:
        used[_PAIRS] = 0
        pairs = _with_room(4 * len(pairs.counts), pairs.words)
    while _merge_pairs(corpus, table, pairs, used, slots, wanted) == _FULL:
        held, number = pairs, int(used[_PAIRS])
        pairs = _with_room(len(held.counts) * 3 // 2 + 2 * wanted, held.words)
        for name in pairs._fields[:-1]:
            getattr(pairs, name)[:number] = getattr(held, name)[:number]
    return int(used[_PIECES])


def _with_room(number: int, words: Numbers) -> Pairs:
    """Room for `number` pairs."""
    lefts, rights, sizes, heaped = (np.empty(number, np.int32) for _ in range(4))
    counts, begins, keys = (np.empty(number, np.int64) for _ in range(3))
    return Pairs(lefts, rights, counts, begins, sizes, keys, heaped, words)


# --- compiled ----------------------------------------------------------------------------------


@compiled
def _length(table, piece):  # type: ignore[no-untyped-def]
    return table.bounds[piece + 1] - table.bounds[piece]


@compiled
def _pair_length(table, pairs, pair):  # type: ignore[no-untyped-def]
    return _length(table, pairs.lefts[pair]) + _length(table, pairs.rights[pair])


@compiled
def _letter(table, left, right, at):  # type: ignore[no-untyped-def]
    size = _length(table, left)
    return table.text[table.bounds[left] + at] if at < size else table.text[table.bounds[right] + at - size]


@compiled
def _is_preferred(tables, pair, other):  # type: ignore[no-untyped-def]
    """Whether `pair` is merged before the equally frequent `other`."""
    table, pairs = tables
    size, other_size = _pair_length(table, pairs, pair), _pair_length(table, pairs, other)
    if size != other_size:
        return size < other_size
    left, right, other_left, other_right = (
        pairs.lefts[pair],
        pairs.rights[pair],
        pairs.lefts[other],
        pairs.rights[other],
    )
    for at in range(size):
        letter, other_letter = _letter(table, left, right, at), _letter(table, other_left, other_right, at)
        if letter != other_letter:
            return letter < other_letter
    return False


_push, _replace_top = heap_of(_is_preferred)


@compiled
def _push_pair(table, pairs, used, pair):  # type: ignore[no-untyped-def]
    _push(pairs.heap_keys, pairs.heap, used[_HEAPED], -pairs.counts[pair], pair, (table, pairs))
    used[_HEAPED] += 1


@compiled
def _best(table, pairs, used):  # type: ignore[no-untyped-def]
    """The pair to merge next, taken from the heap; -1 when none is left."""
    keys, heaped = pairs.heap_keys, pairs.heap
    while used[_HEAPED] > 0:
        pair, size = heaped[0], used[_HEAPED]
        count = pairs.counts[pair]
        if count > 0 and -count != keys[0]:
            _replace_top(keys, heaped, size, -count, pair, (table, pairs))
            continue
        used[_HEAPED] = size - 1
        _replace_top(keys, heaped, size - 1, keys[size - 1], heaped[size - 1], (table, pairs))
        if count > 0:
            return pair
    return _NO_PAIR


@compiled
def _new_pair(pairs, used, left, right):  # type: ignore[no-untyped-def]
    pair = used[_PAIRS]
    used[_PAIRS] += 1
    pairs.lefts[pair], pairs.rights[pair] = left, right
    pairs.counts[pair], pairs.sizes[pair] = 0, 0
    return pair


@compiled
def _list_words(table, pairs, used, first, born, words):  # type: ignore[no-untyped-def]
    """Write the lists of the pairs from `first`, which have been counted; occurrence i is born[i] in words[i]."""
    for i in range(len(born)):
        pairs.sizes[born[i]] += 1
    for pair in range(first, used[_PAIRS]):
        pairs.begins[pair] = used[_LISTED]
        used[_LISTED] += pairs.sizes[pair]
        pairs.sizes[pair] = 0
    for i in range(len(born)):
        pair = born[i]
        end = pairs.begins[pair] + pairs.sizes[pair]
        if pairs.sizes[pair] == 0 or pairs.words[end - 1] != words[i]:
            pairs.words[end] = words[i]
            pairs.sizes[pair] += 1
    for pair in range(first, used[_PAIRS]):
        if _pair_length(table, pairs, pair) <= PIECE_BYTES:
            _push_pair(table, pairs, used, pair)


@compiled
def _rewrite(corpus, pairs, word, pair, piece):  # type: ignore[no-untyped-def]
    """Merge a pair in a word, leftmost first; returns whether it was there.

    Pairs that are gone are counted down. The place of a new pair gets _NEW_PAIR; the piece itself tells the rest.
    """
    start, size, count = corpus.starts[word], corpus.sizes[word], corpus.counts[word]
    at = start
    end = start + size
    while at < end - 1 and corpus.pairs[at] != pair:
        at += 1
    if at >= end - 1:
        return False
    to = at
    while at < end:
        if corpus.pairs[at] != pair:
            corpus.pieces[to], corpus.pairs[to] = corpus.pieces[at], corpus.pairs[at]
            at += 1
        else:
            pairs.counts[pair] -= count
            if to > start and corpus.pairs[to - 1] >= 0:
                pairs.counts[corpus.pairs[to - 1]] -= count
            if to > start:
                corpus.pairs[to - 1] = _NEW_PAIR
            last = corpus.pairs[at + 1]
            if last >= 0:
                pairs.counts[last] -= count
            corpus.pieces[to], corpus.pairs[to] = piece, _NO_PAIR if last == _NO_PAIR else _NEW_PAIR
            at += 2
        to += 1
    corpus.sizes[word] = to - start
    return True


@compiled
def _name_piece(table, piece, left, right):  # type: ignore[no-untyped-def]
    size, begin = _length(table, left) + _length(table, right), table.bounds[piece]
    for at in range(size):
        table.text[begin + at] = _letter(table, left, right, at)
    table.bounds[piece + 1] = begin + size


@compiled
def _merge(corpus, table, pairs, used, slots, pair, piece):  # type: ignore[no-untyped-def]
    """Merge a pair in all its words; number, count and list the pairs that are born."""
    most = 0
    for i in range(pairs.begins[pair], pairs.begins[pair] + pairs.sizes[pair]):
        most += corpus.sizes[pairs.words[i]]
    born, words = np.empty(most, np.int32), np.empty(most, np.int32)
    found, first = 0, used[_PAIRS]
    for i in range(pairs.begins[pair], pairs.begins[pair] + pairs.sizes[pair]):
        word = pairs.words[i]
        if not _rewrite(corpus, pairs, word, pair, piece):
            continue
        start = corpus.starts[word]
        for at in range(start, start + corpus.sizes[word] - 1):
            if corpus.pairs[at] != _NEW_PAIR:
                continue
            left, right = corpus.pieces[at], corpus.pieces[at + 1]
            slot = 2 * right + 1 if left == piece else 2 * left
            if slots[slot] < 0:
                slots[slot] = _new_pair(pairs, used, left, right)
            number = slots[slot]
            pairs.counts[number] += corpus.counts[word]
            corpus.pairs[at], born[found], words[found] = number, number, word
            found += 1
    for number in range(first, used[_PAIRS]):
        left, right = pairs.lefts[number], pairs.rights[number]
        slots[2 * right + 1 if left == piece else 2 * left] = _NO_PAIR
    _list_words(table, pairs, used, first, born[:found], words[:found])


@compiled
def _place(slots, pairs, left, right):  # type: ignore[no-untyped-def]
    """(place of a pair, or the free one where it belongs; its tag). A slot holds tag and number + 1."""
    value = mix((np.uint64(left) << _SHIFT_32) | np.uint64(right))
    tag = value & _UPPER_HALF
    place = probe(slots, value, tag, _UPPER_HALF)
    while slots[place] != FREE:
        pair = np.int64(slots[place] & _LOWER_HALF) - 1
        if pairs.lefts[pair] == left and pairs.rights[pair] == right:
            break
        place = probe(slots, place + _ONE, tag, _UPPER_HALF)
    return place, tag


def _number_pairs(corpus, table, pairs, used, slots):  # type: ignore[no-untyped-def]
    """Number and count the pairs of all words; _FULL where there are too many."""
    born, words = np.empty(len(corpus.pieces), np.int32), np.empty(len(corpus.pieces), np.int32)
    found = 0
    for word in range(len(corpus.starts)):
        start, end = corpus.starts[word], corpus.starts[word] + corpus.sizes[word]
        for at in range(start, end - 1):
            left, right = corpus.pieces[at], corpus.pieces[at + 1]
            place, tag = _place(slots, pairs, left, right)
            if slots[place] == FREE:
                if used[_PAIRS] == len(pairs.counts):
                    return _FULL
                slots[place] = tag | np.uint64(_new_pair(pairs, used, left, right) + 1)
            pair = np.int64(slots[place] & _LOWER_HALF) - 1
            pairs.counts[pair] += corpus.counts[word]
            corpus.pairs[at], born[found], words[found] = pair, pair, word
            found += 1
    _list_words(table, pairs, used, 0, born[:found], words[:found])
    return _DONE


def _merge_all(corpus, table, pairs, used, slots, wanted):  # type: ignore[no-untyped-def]
    """Merge until there are `wanted` pieces or no pair is left; _FULL where more room is needed to continue."""
    while used[_PIECES] < wanted:
        pair = _best(table, pairs, used)
        if pair == _NO_PAIR:
            return _DONE
        # The new piece has at most every other and itself on either side.
        if used[_PAIRS] + 2 * used[_PIECES] + 1 > len(pairs.counts):
            _push_pair(table, pairs, used, pair)
            return _FULL
        piece = used[_PIECES]
        used[_PIECES] += 1
        _name_piece(table, piece, pairs.lefts[pair], pairs.rights[pair])
        _merge(corpus, table, pairs, used, slots, pair, piece)
    return _DONE


_first_pairs, _merge_pairs = entry_point(_number_pairs, hash_table, heap), entry_point(_merge_all, hash_table, heap)
