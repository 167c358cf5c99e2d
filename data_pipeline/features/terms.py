"""Stop words, spam and notices: word lists as tables, and the compiled search for them; parts of counts.py.

Contract: a `Lexicon` holds everything that words and characters are looked up in; `lexicon()` is ours.
Matching is exact and folds ASCII capitals only.
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

# Flags beside those of readers.characters:
BULLET = 1 << 16  # begins a bulleted line
LINE_END = 1 << 17  # ends a sentence-like line
KO_LINE_END = 1 << 18  # ends one in Korean
QUOTE_END = 1 << 19  # ends a line of direct speech
EDGE = 1 << 20  # is not part of a stop word at the edge of a word
ELLIPSIS = 1 << 21
FEED = 1 << 22
HASH = 1 << 23
ASCII_WORD = 1 << 24  # an ASCII letter, digit or _
CODE = 1 << 25  # is frequent in code and formulas, not in words

SPAM, LOREM_IPSUM, NOTICE = range(3)
"""Kinds of terms."""


class Phrases(NamedTuple):
    """Lower-case phrases; phrase i is codes[bounds[i]:bounds[i + 1]]."""

    codes: npt.NDArray[np.uint32]
    bounds: npt.NDArray[np.int64]
    last: npt.NDArray[np.int16]
    """(0x110000,): the first phrase that ends in a code point, in either case, or -1."""
    next: npt.NDArray[np.int16]
    """(phrases,): the next phrase that ends alike, or -1."""


class Lexicon(NamedTuple):
    """Tables for compiled code."""

    flags: npt.NDArray[np.uint32]
    """(0x110000,): readers.characters.table() with the flags above."""
    english: Phrases
    """Stop words."""
    korean: Phrases
    """Endings of words."""
    terms: Phrases
    kinds: npt.NDArray[np.int8]
    """(terms,)"""
    first_term: npt.NDArray[np.int16]
    """(0x110000,): the first term that begins with a code point, in either case, or -1."""
    next_term: npt.NDArray[np.int16]
    """(terms,): the next term that begins alike, or -1."""


@functools.cache
def lexicon() -> Lexicon:
    """The lists of lexicons.py."""
    return make_lexicon(
        marks={
            BULLET: lexicons.BULLETS,
            LINE_END: lexicons.LINE_ENDS,
            KO_LINE_END: lexicons.KO_LINE_ENDS,
            QUOTE_END: lexicons.QUOTE_ENDS,
            EDGE: lexicons.EDGE_PUNCTUATION,
            CODE: lexicons.CODE_SIGNS,
        },
        english=lexicons.EN_STOP_WORDS,
        korean=lexicons.KO_ENDINGS,
        terms=[
            *((term, SPAM) for term in lexicons.KO_SPAM_TERMS + lexicons.EN_SPAM_TERMS),
            (lexicons.LOREM_IPSUM, LOREM_IPSUM),
            *((term, NOTICE) for term in lexicons.NOTICES),
        ],
    )


def make_lexicon(
    marks: Mapping[int, Iterable[str]], english: Iterable[str], korean: Iterable[str], terms: Sequence[tuple[str, int]]
) -> Lexicon:
    """`marks`: characters that get a flag; `terms`: lower-case term and kind, the first that matches counts."""
    flags = characters.table().copy()
    for character, flag in (("…", ELLIPSIS), ("\n", FEED), ("#", HASH)):
        flags[ord(character)] |= flag
    for first, last in ("09", "AZ", "az", "__"):
        flags[ord(first) : ord(last) + 1] |= ASCII_WORD
    for flag, marked in marks.items():
        flags[[ord(character) for character in marked]] |= flag
    first_term, next_term = np.full(len(flags), -1, np.int16), np.full(len(terms), -1, np.int16)
    for number, (term, _) in reversed(list(enumerate(terms))):
        next_term[number] = first_term[ord(term[0])]
        first_term[[ord(term[0]), ord(term[0].upper())]] = number
    return Lexicon(
        flags=flags,
        english=_phrases(english),
        korean=_phrases(korean),
        terms=_phrases(term for term, _ in terms),
        kinds=np.array([kind for _, kind in terms], dtype=np.int8),
        first_term=first_term,
        next_term=next_term,
    )


def _phrases(found: Iterable[str]) -> Phrases:
    listed = list(found)
    codes = characters.codes_of("".join(listed)).copy()
    last, following = np.full(0x110000, -1, np.int16), np.full(len(listed), -1, np.int16)
    for number, phrase in reversed(list(enumerate(listed))):
        following[number] = last[ord(phrase[-1])]
        last[[ord(phrase[-1]), ord(phrase[-1].upper())]] = number
    return Phrases(codes, np.cumsum([0, *map(len, listed)], dtype=np.int64), last, following)


@compiled
def function_words(codes, flags, words, firsts, wanted, whole):  # type: ignore[no-untyped-def]
    """How many of the phrases `wanted` occur, and which words hold one, bool (words,).

    A word is looked up without punctuation at its edges. It holds a phrase if it is the phrase (`whole`), or else if
    it ends in it and has two syllables or more.
    """
    bounds = wanted.bounds
    seen, holds = np.zeros(len(bounds) - 1, np.bool_), np.zeros(len(firsts), np.bool_)
    for word in range(len(firsts)):
        if firsts[word] == word:
            start, end = words[0][word], _bare_end(flags, words[0][word], words[1][word])
            while whole and end > start and flags[start] & EDGE != 0:
                start += 1
            number = wanted.last[codes[end - 1]] if end > start else -1
            while number >= 0:
                length = bounds[number + 1] - bounds[number]
                fits = end - start == length if whole else end - start >= max(2, length)
                if fits and _matches(codes, end - length, end, wanted.codes, bounds[number]):
                    seen[number] = holds[word] = True
                number = wanted.next[number]
        else:
            holds[word] = holds[firsts[word]]
    return seen.sum(), holds


@compiled
def _bare_end(flags, start, end):  # type: ignore[no-untyped-def]
    while end > start and flags[end - 1] & EDGE != 0:
        end -= 1
    return end


@compiled
def count_terms(codes, flags, start, end, lexicon, counts):  # type: ignore[no-untyped-def]
    """counts[kind] += terms in codes[start:end], from left to right, without overlaps.

    A term that begins with an ASCII letter or digit does not begin within a run of those.
    """
    phrases, bounds = lexicon.terms.codes, lexicon.terms.bounds
    kinds, first_term, next_term = lexicon.kinds, lexicon.first_term, lexicon.next_term
    i = start
    while i < end:
        following = i + 1
        if i == 0 or flags[i] & flags[i - 1] & ASCII_WORD == 0:
            term = first_term[codes[i]]
            while term >= 0:
                after = i + bounds[term + 1] - bounds[term]
                if after <= end and _matches(codes, i, after, phrases, bounds[term]):
                    if kinds[term] == SPAM and flags[i] & ASCII_WORD != 0:
                        after = _word_end(codes, flags, after, end)
                    if after:
                        counts[kinds[term]] += 1
                        following = after
                        break
                term = next_term[term]
        i = following


@compiled
def _word_end(codes, flags, after, end):  # type: ignore[no-untyped-def]
    """`after`, or the place behind a plural s there, if a run of ASCII letters and digits ends so; else 0."""
    if after < end and _lower(codes[after]) == 0x73 and (after + 1 == end or flags[after + 1] & ASCII_WORD == 0):
        return after + 1
    return after if after == end or flags[after] & ASCII_WORD == 0 else 0


@compiled
def _matches(codes, start, end, phrases, begin):  # type: ignore[no-untyped-def]
    """Whether codes[start:end], with ASCII capitals folded, is the phrase at phrases[begin]."""
    for i in range(start, end):  # noqa: SIM110  (numba compiles no generator in all())
        if _lower(codes[i]) != phrases[begin + i - start]:
            return False
    return True


@compiled
def _lower(code):  # type: ignore[no-untyped-def]
    return code + np.uint32(32) if 65 <= code <= 90 else code
