"""An automaton driven over UTF-8, as machine code: where each word ends.

Contract: `word_end` gives the words of the pattern (automaton.py). Text should be UTF-8: other bytes are cut
somewhere, without loss. Three bytes behind the text must be readable. Cost: 250 MB/s of Korean or English a core.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tokenizer.engine import dfa as automata
from twofold.compiled import compiled

_COLUMNS = 256
"""Of a row of steps: room for every class, and a power of two."""
_FIRST_ROW = np.uint32(automata.START * _COLUMNS)
_FLAG, _ROW = np.uint32(1), np.uint32(0xFFFFFFFF - _COLUMNS + 1)
_LOW, _LAST = np.uint32(0x3F), np.uint32(automata.CODE_POINTS - 1)
_ONE, _TWO, _THREE, _FOUR = (np.uint64(number) for number in (1, 2, 3, 4))


class Cutter(NamedTuple):
    """An automaton with rows of one length: from a state's row, steps[row + class of the character]."""

    classes: npt.NDArray[np.uint8]
    """Shape (0x110000,)."""
    steps: npt.NDArray[np.uint32]
    """Twice the next state's row, and 1 more where a word may end before this character; row 0 ends the search."""
    end_column: np.uint32
    """Stands for the end of the text."""


@functools.lru_cache(maxsize=4)
def cutter_of(pattern: str) -> Cutter:
    """The automaton of a pattern, as `word_end` drives it."""
    automaton = automata.automaton(pattern)
    states, columns = automaton.steps.shape
    steps = np.zeros((states, _COLUMNS), np.uint32)
    steps[:, :columns] = (automaton.steps >> 1) * (2 * _COLUMNS) + (automaton.steps & 1)
    return Cutter(automaton.classes, steps.reshape(-1), np.uint32(columns - 1))


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
