"""Stop words, spam and notices: word lists as tables, and the compiled search for them; parts of kernel.py.

Contract: `Lexicon` holds everything that words and characters are looked up in; `lexicon()` is ours.
Matching is exact (no hash decides) and folds ASCII capitals only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_pipeline.features import lexicons
from data_pipeline.readers import characters
from twofold.compiled import compiled

BULLET, LINE_END, KO_LINE_END, QUOTE_END, EDGE, ELLIPSIS, FEED, HASH, ASCII_WORD, HEAD = (
    1 << bit for bit in range(16, 26)
)
"""Flags beside those of reading.characters: begins a bulleted line; ends a sentence-like line; ends one in
Korean; ends a line of speech; is no part of a stop word at a word's edge; is …; is a line feed; is #; is an
ASCII letter, digit or _; begins a term, in either case."""

SPAM, LOREM_IPSUM, NOTICE = range(3)
"""Kinds of terms."""

_HEADS = 4096
_ENGLISH_BITS, _KOREAN_BITS = 7, 21
_LONGEST_ENDING = 3


class Lexicon(NamedTuple):
    """Tables for compiled code."""

    flags: npt.NDArray[np.uint32]
    """(0x110000,): reading.characters.table() with the flags above."""
    classes: npt.NDArray[np.uint8]
    """(0x110000,): the place of a code point's flags in `class_flags`."""
    class_flags: npt.NDArray[np.uint32]
    """All that occur; they are few, so code points are counted by class and not by flag."""
    english: npt.NDArray[np.uint64]
    """Stop words, lower-case, packed with 7 bits a letter, ascending."""
    korean: npt.NDArray[np.uint64]
    """Endings of at most three syllables, packed with 21 bits each, ascending."""
    terms: npt.NDArray[np.uint32]
    """The terms in lower case, one after the other; each has two code points or more, in ASCII three."""
    bounds: npt.NDArray[np.int32]
    """(terms + 1,): where each begins in `terms`."""
    kinds: npt.NDArray[np.int8]
    heads: npt.NDArray[np.int16]
    """(_HEADS,): by the hash of its beginning (`_head`) the first term that begins so, or -1."""
    following: npt.NDArray[np.int16]
    """(terms,): the next term with the same head, or -1."""


@functools.cache
def lexicon() -> Lexicon:
    """The lists of lexicons.py."""
    spam = lexicons.KO_SPAM_TERMS + lexicons.EN_SPAM_TERMS
    return make_lexicon(
        marks={
            BULLET: lexicons.BULLETS,
            LINE_END: lexicons.LINE_ENDS,
            KO_LINE_END: lexicons.KO_LINE_ENDS,
            QUOTE_END: lexicons.QUOTE_ENDS,
            EDGE: lexicons.EDGE_PUNCTUATION,
        },
        english=lexicons.EN_STOP_WORDS,
        korean=lexicons.KO_ENDINGS,
        terms=[
            *((term, SPAM) for term in spam),
            (lexicons.LOREM_IPSUM, LOREM_IPSUM),
            *((term, NOTICE) for term in lexicons.NOTICES),
        ],
    )


def make_lexicon(
    marks: Mapping[int, Iterable[str]],
    english: Iterable[str],
    korean: Iterable[str],
    terms: Sequence[tuple[str, int]],
) -> Lexicon:
    """`marks`: characters that get a flag; `terms`: lower-case term and kind, the first that matches counts."""
    flags = characters.table().copy()
    for character, flag in (("…", ELLIPSIS), ("\n", FEED), ("#", HASH)):
        flags[ord(character)] |= flag
    for first, last in ("09", "AZ", "az", "__"):
        flags[ord(first) : ord(last) + 1] |= ASCII_WORD
    for flag, marked in marks.items():
        flags[[ord(character) for character in marked]] |= flag
    for term, _ in terms:
        flags[[ord(term[0]), ord(term[0].upper())]] |= HEAD
    class_flags, classes = np.unique(flags, return_inverse=True)
    assert len(class_flags) <= 256, "a class fits a byte"
    heads, following = np.full(_HEADS, -1, np.int16), np.full(len(terms), -1, np.int16)
    for number, (term, _) in reversed(list(enumerate(terms))):
        head = _head.py_func(*map(ord, term[:2]), ord(term[2]) if term[0].isascii() else 0)
        following[number], heads[head] = heads[head], number
    return Lexicon(
        flags=flags,
        classes=classes.astype(np.uint8),
        class_flags=class_flags,
        english=_packed_all(english, _ENGLISH_BITS),
        korean=_packed_all(korean, _KOREAN_BITS),
        terms=characters.codes_of("".join(term for term, _ in terms)).copy(),
        bounds=np.cumsum([0, *(len(term) for term, _ in terms)], dtype=np.int32),
        kinds=np.array([kind for _, kind in terms], dtype=np.int8),
        heads=heads,
        following=following,
    )


def _packed_all(words: Iterable[str], bits: int) -> npt.NDArray[np.uint64]:
    keys = [functools.reduce(lambda key, letter: key << bits | ord(letter), word, 1) for word in words]
    assert all(key < 1 << 64 for key in keys), "too long to pack"
    return np.array(sorted(keys), dtype=np.uint64)


# --- stop words --------------------------------------------------------------------------------


@compiled
def stop_words(codes, flags, words, firsts, keys):  # type: ignore[no-untyped-def]
    """How many of `Lexicon.english` are words, case and punctuation at the edges apart."""
    seen, found = np.zeros(len(keys), np.bool_), 0
    for word in range(len(firsts)):
        if found == len(keys):  # as in most prose, after some lines
            break
        if firsts[word] == word:
            start, end = words[0][word], _bare_end(flags, words[0][word], words[1][word])
            while end > start and flags[start] & EDGE != 0:
                start += 1
            if (end - start) * _ENGLISH_BITS < 64 and np.uint64(1) << np.uint64((end - start) * _ENGLISH_BITS) <= keys[
                -1
            ]:
                found += _mark(keys, seen, codes, start, end, _ENGLISH_BITS)
    return found


@compiled
def endings(codes, flags, words, firsts, keys):  # type: ignore[no-untyped-def]
    """How many of `Lexicon.korean` close words of two syllables or more, punctuation apart."""
    seen, found = np.zeros(len(keys), np.bool_), 0
    for word in range(len(firsts)):
        if found == len(keys):
            break
        if firsts[word] == word:
            start, end = words[0][word], _bare_end(flags, words[0][word], words[1][word])
            if end - start > 1:
                for length in range(1, min(_LONGEST_ENDING, end - start) + 1):
                    found += _mark(keys, seen, codes, end - length, end, _KOREAN_BITS)
    return found


@compiled
def _bare_end(flags, start, end):  # type: ignore[no-untyped-def]
    while end > start and flags[end - 1] & EDGE != 0:
        end -= 1
    return end


@compiled
def _mark(keys, seen, codes, start, end, bits):  # type: ignore[no-untyped-def]
    """Sets seen[i] where keys[i] is codes[start:end], lower-case, packed with `bits` each after a 1; 1 if newly set."""
    key = np.uint64(1)
    for i in range(start, end):
        code = np.uint64(_lower(codes[i]))
        if code >> np.uint64(bits):
            return 0
        key = key << np.uint64(bits) | code
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    if low == len(keys) or keys[low] != key or seen[low]:
        return 0
    seen[low] = True
    return 1


# --- terms -------------------------------------------------------------------------------------


@compiled
def term_places(flags):  # type: ignore[no-untyped-def]
    """Where a term may begin, int32: not within a run of ASCII letters and digits where it begins with one."""
    places = np.empty(len(flags) + 1, np.int32)
    count, before = 0, np.uint32(0)
    # Without a branch, as in spans.words_of.
    for i in range(len(flags)):
        places[count] = i
        count += (flags[i] & HEAD != 0) & (flags[i] & before & ASCII_WORD == 0)
        before = flags[i]
    return places[:count]


@compiled
def count_terms(codes, flags, places, first, end, lexicon, counts):  # type: ignore[no-untyped-def]
    """counts[kind] += terms at places[first], … and before `end`, left to right, none overlapping.

    Spam that begins with an ASCII letter or digit ends with the run of those too, or an s before. Gives the
    index of the next place.
    """
    following = 0
    while first < len(places) and places[first] < end:
        i = places[first]
        first += 1
        if i < following or i + 1 >= end:
            continue
        third = codes[i + 2] if flags[i] & ASCII_WORD != 0 and i + 2 < end else np.uint32(0)
        term = lexicon.heads[_head(_lower(codes[i]), _lower(codes[i + 1]), _lower(third))]
        length = 0
        while term >= 0 and not length:
            length = _match(codes, flags, i, end, lexicon, term)
            if length:
                counts[lexicon.kinds[term]] += 1
                following = i + length
            term = lexicon.following[term]
    return first


@compiled
def _match(codes, flags, start, end, lexicon, term):  # type: ignore[no-untyped-def]
    """Length of the term at codes[start], 0 if it is not there."""
    begin = lexicon.bounds[term]
    after = start + lexicon.bounds[term + 1] - begin
    if after > end:
        return 0
    for i in range(start, after):
        if _lower(codes[i]) != lexicon.terms[begin + i - start]:
            return 0
    if lexicon.kinds[term] == SPAM and flags[start] & ASCII_WORD != 0:
        if after < end and _lower(codes[after]) == 0x73 and (after + 1 == end or flags[after + 1] & ASCII_WORD == 0):
            return after + 1 - start
        if after < end and flags[after] & ASCII_WORD != 0:
            return 0
    return after - start


@compiled
def _head(first, second, third):  # type: ignore[no-untyped-def]
    """Two code points, three where the first is an ASCII letter or digit, so that few places are looked at twice."""
    return (first * 61 + second * 17 + third) % _HEADS


@compiled
def _lower(code):  # type: ignore[no-untyped-def]
    return code + np.uint32(32) if 65 <= code <= 90 else code
