"""Greedy byte-pair merges over counted words, as machine code.

Contract: `learn_merges` joins the most frequent pair of neighbours in all words, again and again; ties go to the
shorter piece, then to code point order (of patterns.py's alphabet), as in sentencepiece, whose merges these are.
Pieces of more than `PIECE_BYTES` bytes are not made. It stops when enough pieces are made or no pair is left.
Exact: counts are 64-bit integers, the result depends on the words alone.

How: each place knows the number of the pair that begins there, so counts are kept without a look-up. A pair is
born in one merge, with all its occurrences, since one of its parts is; from then on it only gets rarer. So a
list of words a pair is written once, and a heap whose counts are too high at worst needs no updates: what
comes up with an old count goes back with the right one.

Memory: 8 bytes a byte of the words, 4 to 12 for lists of words, 40 a pair: 0.75 GB with 1.2 million distinct words,
4 GB with 10 million. Cost at 102,400: 7 s and 42 s on one core; sentencepiece takes twice as long on two cores.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tokenizer.engine.patterns import CODE_POINT_OF_BYTE
from tokenizer.engine.word_counts import Bytes, Integers
from twofold import compiled as machine_code
from twofold.compiled import compiled

PIECE_BYTES = 64
"""Longest piece; longer ones are never worth their id."""
_PIECES, _PAIRS, _LISTED, _HEAPED = range(4)
MOST_PLACES = 2**31 - 1
"""Places are 32-bit."""
_FIRST_PAIRS = 1 << 16
_NO_PAIR, _NEW_PAIR = -1, -2
_DONE, _FULL = 0, 1

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
    heap: Numbers
    """Pairs, the best on top by the count it had when it was put there."""
    heap_counts: Integers
    words: Numbers


def learn_merges(
    pieces: npt.NDArray[np.integer], bounds: Integers, counts: Integers, known: list[bytes], merges: int
) -> list[bytes]:
    """The next `merges` pieces that words pieces[bounds[i]:bounds[i + 1]] give, or all there are.

    Piece i is known[i], and the first 256 are the bytes; the list returned follows them.
    """
    order = np.argsort(np.argsort([ord(letter) for letter in CODE_POINT_OF_BYTE])).astype(np.uint8)
    sizes = np.diff(bounds)
    assert len(pieces) <= MOST_PLACES
    corpus = Corpus(
        pieces.astype(np.int32), np.full(len(pieces), _NO_PAIR, np.int32),
        bounds[:-1].astype(np.int64), sizes.astype(np.int32), np.ascontiguousarray(counts),
    )  # fmt: skip
    table = Pieces(
        np.zeros(sum(map(len, known)) + PIECE_BYTES * merges, np.uint8), np.zeros(len(known) + merges + 1, np.int64)
    )
    table.bounds[1 : len(known) + 1] = np.cumsum([len(piece) for piece in known])
    table.text[: table.bounds[len(known)]] = order[np.frombuffer(b"".join(known), np.uint8)]
    # Each place is listed once at first, and twice for each merge that ends there; untouched, room costs nothing.
    pairs = _with_room(_FIRST_PAIRS, np.empty(3 * len(pieces), np.int32))
    used = np.array([len(known), 0, 0, 0], np.int64)
    slots = np.full(2 * (len(known) + merges), _NO_PAIR, np.int32)
    return _bytes_of(table, _run(corpus, table, pairs, used, slots, len(known) + merges), len(known), order)


def _run(corpus: Corpus, table: Pieces, pairs: Pairs, used: Integers, slots: Numbers, wanted: int) -> int:
    """Merge to the end, with more room whenever there is too little; returns how many pieces there are."""
    while first_pairs(corpus, table, pairs, used) == _FULL:
        used[_PAIRS] = 0
        pairs = _with_room(4 * len(pairs.counts), pairs.words)
    while merge_pairs(corpus, table, pairs, used, slots, wanted) == _FULL:
        held, number = pairs, int(used[_PAIRS])
        pairs = _with_room(len(held.counts) * 3 // 2 + 2 * wanted, held.words)
        for name in pairs._fields[:-1]:
            getattr(pairs, name)[:number] = getattr(held, name)[:number]
    return int(used[_PIECES])


def _with_room(number: int, words: Numbers) -> Pairs:
    """Room for that many pairs."""
    narrow = [np.empty(number, np.int32) for _ in range(4)]
    wide = [np.empty(number, np.int64) for _ in range(3)]
    return Pairs(narrow[0], narrow[1], wide[0], wide[1], narrow[2], narrow[3], wide[2], words)


def _bytes_of(table: Pieces, number: int, known: int, order: Bytes) -> list[bytes]:
    letters = np.argsort(order).astype(np.uint8)
    text, bounds = letters[table.text].tobytes(), table.bounds.tolist()
    return [text[bounds[piece] : bounds[piece + 1]] for piece in range(known, number)]


# --- compiled ----------------------------------------------------------------------------------


@compiled
def _length(table, piece):  # type: ignore[no-untyped-def]
    return table.bounds[piece + 1] - table.bounds[piece]


@compiled
def _letter(table, left, right, at):  # type: ignore[no-untyped-def]
    size = _length(table, left)
    return table.text[table.bounds[left] + at] if at < size else table.text[table.bounds[right] + at - size]


@compiled
def _precedes(table, pairs, pair, count, other, other_count):  # type: ignore[no-untyped-def]
    """Whether `pair` is merged before `other`."""
    if count != other_count:
        return count > other_count
    left, right, other_left, other_right = (
        pairs.lefts[pair],
        pairs.rights[pair],
        pairs.lefts[other],
        pairs.rights[other],
    )
    size = _length(table, left) + _length(table, right)
    other_size = _length(table, other_left) + _length(table, other_right)
    if size != other_size:
        return size < other_size
    for at in range(size):
        letter, other_letter = _letter(table, left, right, at), _letter(table, other_left, other_right, at)
        if letter != other_letter:
            return letter < other_letter
    return False


@compiled
def _push(table, pairs, size, pair):  # type: ignore[no-untyped-def]
    """Add a pair to a heap of `size`, with its count."""
    count, at = pairs.counts[pair], size
    while at > 0:
        parent = (at - 1) >> 1
        if not _precedes(table, pairs, pair, count, pairs.heap[parent], pairs.heap_counts[parent]):
            break
        pairs.heap[at], pairs.heap_counts[at] = pairs.heap[parent], pairs.heap_counts[parent]
        at = parent
    pairs.heap[at], pairs.heap_counts[at] = pair, count


@compiled
def _replace_top(table, pairs, size, pair, count):  # type: ignore[no-untyped-def]
    """Put a pair in the place of the best one in a heap of `size`."""
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _precedes(
            table,
            pairs,
            pairs.heap[child + 1],
            pairs.heap_counts[child + 1],
            pairs.heap[child],
            pairs.heap_counts[child],
        ):
            child += 1
        if not _precedes(table, pairs, pairs.heap[child], pairs.heap_counts[child], pair, count):
            break
        pairs.heap[at], pairs.heap_counts[at] = pairs.heap[child], pairs.heap_counts[child]
        at = child
    pairs.heap[at], pairs.heap_counts[at] = pair, count


@compiled
def _best(table, pairs, used):  # type: ignore[no-untyped-def]
    """The pair to merge next, taken from the heap; -1 when none is left."""
    while used[_HEAPED] > 0:
        pair, size = pairs.heap[0], used[_HEAPED]
        count = pairs.counts[pair]
        if count > 0 and count != pairs.heap_counts[0]:
            _replace_top(table, pairs, size, pair, count)
            continue
        used[_HEAPED] = size - 1
        _replace_top(table, pairs, size - 1, pairs.heap[size - 1], pairs.heap_counts[size - 1])
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
        if _length(table, pairs.lefts[pair]) + _length(table, pairs.rights[pair]) <= PIECE_BYTES:
            _push(table, pairs, used[_HEAPED], pair)
            used[_HEAPED] += 1


@compiled
def _rewrite(corpus, pairs, word, pair, piece):  # type: ignore[no-untyped-def]
    """Merge a pair in a word, leftmost first; counts what is no more, marks what is new. Returns whether it was there.

    The place of a new pair gets _NEW_PAIR; the piece itself tells the rest."""
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


def _make(sources: str):  # type: ignore[no-untyped-def]
    def first_pairs(corpus, table, pairs, used):  # type: ignore[no-untyped-def]
        """Number and count the pairs of all words; _FULL where there are too many."""
        assert sources
        numbers = {}
        numbers[np.int64(0)] = np.int64(0)
        numbers.clear()
        born, words = np.empty(len(corpus.pieces), np.int32), np.empty(len(corpus.pieces), np.int32)
        found = 0
        for word in range(len(corpus.starts)):
            start, end = corpus.starts[word], corpus.starts[word] + corpus.sizes[word]
            for at in range(start, end - 1):
                left, right = corpus.pieces[at], corpus.pieces[at + 1]
                key = (np.int64(left) << 32) | np.int64(right)
                if key not in numbers:
                    if used[_PAIRS] == len(pairs.counts):
                        return _FULL
                    numbers[key] = _new_pair(pairs, used, left, right)
                pair = numbers[key]
                pairs.counts[pair] += corpus.counts[word]
                corpus.pairs[at], born[found], words[found] = pair, pair, word
                found += 1
        _list_words(table, pairs, used, 0, born[:found], words[:found])
        return _DONE

    def merge_pairs(corpus, table, pairs, used, slots, wanted):  # type: ignore[no-untyped-def]
        """Merge until there are `wanted` pieces or no pair is left; _FULL where more room is needed to go on."""
        assert sources
        while used[_PIECES] < wanted:
            pair = _best(table, pairs, used)
            if pair == _NO_PAIR:
                return _DONE
            # The piece that is born has at most every other and itself on either side.
            if used[_PAIRS] + 2 * used[_PIECES] + 1 > len(pairs.counts):
                _push(table, pairs, used[_HEAPED], pair)
                used[_HEAPED] += 1
                return _FULL
            piece = used[_PIECES]
            used[_PIECES] += 1
            _name_piece(table, piece, pairs.lefts[pair], pairs.rights[pair])
            _merge(corpus, table, pairs, used, slots, pair, piece)
        return _DONE

    return machine_code.entry_point(first_pairs), machine_code.entry_point(merge_pairs)


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


first_pairs, merge_pairs = _make(machine_code.digest(__file__, machine_code.__file__))
