"""Pre-tokenization: an automaton driven over UTF-8.

Contract: `pretokenize` gives the words of a pattern (dfa.py). Text should be UTF-8; other bytes are cut somewhere,
without loss. Cost: 200 MB/s of Korean or English per core, and 8 bytes of memory per word.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tokenizer.engine import dfa
from twofold.compiled import compiled, entry_point

PADDING = 32
"""Bytes that must be readable after a text."""
_COLUMNS = 256
"""Length of a row of steps: room for every class, and a power of two."""
_FIRST_ROW = np.uint32(dfa.START * _COLUMNS)
_FLAG, _ROW = np.uint32(1), np.uint32(0xFFFFFFFF - _COLUMNS + 1)
_LOW, _LAST = np.uint32(0x3F), np.uint32(dfa.CODE_POINTS - 1)
_ONE, _TWO, _THREE, _FOUR = (np.uint64(number) for number in (1, 2, 3, 4))
_CONTINUATION_MASK, _CONTINUATION = np.uint8(0xC0), np.uint8(0x80)

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


class Cutter(NamedTuple):
    """An automaton with rows of equal length: the step from a state is steps[row + class of the character]."""

    classes: npt.NDArray[np.uint8]
    """Shape (0x110000,)."""
    steps: npt.NDArray[np.uint32]
    """Twice the next state's row, plus 1 where a word may end before this character; row 0 ends the search."""
    end_column: np.uint32
    """The class of the end of the text."""


@functools.lru_cache(maxsize=4)
def cutter_of(pattern: str) -> Cutter:
    """The automaton of a pattern, as `word_end` drives it."""
    automaton = dfa.automaton(pattern)
    states, columns = automaton.steps.shape
    steps = np.zeros((states, _COLUMNS), np.uint32)
    steps[:, :columns] = (automaton.steps >> 1) * (2 * _COLUMNS) + (automaton.steps & 1)
    return Cutter(automaton.classes, steps.reshape(-1), np.uint32(columns - 1))


def padded(text: npt.NDArray[Any]) -> Bytes:
    """A copy of a text with zeros after it."""
    copy = np.zeros(len(text) + PADDING, np.uint8)
    copy[: len(text)] = text
    return copy


def pretokenize(text: Bytes, ends: Integers, pattern: str, longest: int | None = None) -> Integers:
    """Cut documents into words; word i is text[bounds[i]:bounds[i + 1]].

    `text` holds the documents one after the other; they end at `ends`. Words of more than `longest` bytes are cut
    further, between characters. Returns bounds, int64 [words + 1].
    """
    bounds = np.zeros(len(text) + 1, np.int64)
    words = _cut(padded(text), ends, cutter_of(pattern), np.uint64(longest or len(text) + 1), bounds)
    return bounds[: words + 1]


# --- compiled; unsigned, and in one loop: several times as fast ------------------------------------


@compiled
def word_end(data, begin, end, cutter):  # type: ignore[no-untyped-def]
    """Where the word that begins at `begin` ends, with `end` the end of the text (all uint64)."""
    row, at, found = _FIRST_ROW, begin, begin
    while at < end:
        code, size = np.uint32(data[at]), _ONE
        if code >= np.uint32(0xF0):
            code = (code & np.uint32(0x07)) << np.uint32(18) | (np.uint32(data[at + _ONE]) & _LOW) << np.uint32(12)
            code |= (np.uint32(data[at + _TWO]) & _LOW) << np.uint32(6) | (np.uint32(data[at + _THREE]) & _LOW)
            code, size = min(code, _LAST), _FOUR
        elif code >= np.uint32(0xE0):
            code = (code & np.uint32(0x0F)) << np.uint32(12) | (np.uint32(data[at + _ONE]) & _LOW) << np.uint32(6)
            code, size = code | (np.uint32(data[at + _TWO]) & _LOW), _THREE
        elif code >= np.uint32(0x80):
            code, size = (code & np.uint32(0x1F)) << np.uint32(6) | (np.uint32(data[at + _ONE]) & _LOW), _TWO
        step = np.uint32(cutter.steps[row + np.uint32(cutter.classes[code])])
        if step & _FLAG:
            found = at
        row = (step >> _FLAG) & _ROW
        if row == 0:
            return found
        at += size
    return end if np.uint32(cutter.steps[row + cutter.end_column]) & _FLAG else found


@compiled
def _part_end(data, begin, end, longest):  # type: ignore[no-untyped-def]
    """The end of the first part of a word: at most `longest` bytes, cut between characters."""
    if end - begin <= longest:
        return end
    cut = begin + longest
    while cut > begin and data[cut] & _CONTINUATION_MASK == _CONTINUATION:
        cut -= _ONE
    return cut if cut > begin else begin + longest


def _cut_documents(data, ends, cutter, longest, bounds):  # type: ignore[no-untyped-def]
    """Write the end of each word after bounds[0]; returns the number of words."""
    words, at = np.uint64(0), np.uint64(0)
    for document in range(len(ends)):
        last = np.uint64(ends[document])
        while at < last:
            end = max(at + _ONE, word_end(data, at, last, cutter))
            while at < end:
                at = _part_end(data, at, end, longest)
                words += _ONE
                bounds[words] = at
    return words


_cut = entry_point(_cut_documents, dfa)
