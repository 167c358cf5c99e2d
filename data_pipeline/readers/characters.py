"""A table from code points to character classes, so that counting characters is one array look-up.

Contract: `codes_of(text)` returns the code points, `flags_of(text)` a uint32 of flags for each (about 300 MB/s).
The table is built once per process (about 0.3 s) from Python's Unicode database and the KS X 1001 syllables;
bits 16 and up are free for callers that extend a copy of it.
"""

from __future__ import annotations

import functools
import itertools
import sys
import unicodedata

import numpy as np
import numpy.typing as npt

SPACE = 1 << 0
"""As in `str.isspace`, so that words are those of `str.split`."""
LETTER = 1 << 1
"""Letters and combining marks (categories L, M)."""
DIGIT = 1 << 2
"""Numbers of any kind (category N)."""
PUNCTUATION = 1 << 3
"""Category P: also brackets, quotes, # % & * @ and the middle dot; not + < = > $ ^ | ~."""
HANGUL = 1 << 4
"""Composed Hangul syllables."""
JAMO = 1 << 5
"""Lone jamo: compatibility jamo (ㅋ, ㅠ) and conjoining jamo."""
RARE_HANGUL = 1 << 6
"""Syllables outside KS X 1001's 2,350: rare in prose, common where UTF-8 was read as CP949."""
HAN = 1 << 7
LATIN = 1 << 8
BROKEN = 1 << 9
"""U+FFFD and C1 controls."""
SENTENCE_END = 1 << 10
QUOTE = 1 << 11
UPPER = 1 << 12
"""Upper-case and title-case letters."""
EMOJI = 1 << 13
"""Emoji and other pictographs, by block."""
MISREAD_TAIL = 1 << 14
"""What the second and later bytes of UTF-8 look like when read as Latin-1 or CP1252."""
MISREAD_LEAD = 1 << 15
"""What the first byte of UTF-8 or of an EUC-KR syllable looks like when read that way."""

Codes = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.uint32]

_SENTENCE_ENDS = ".?!…。！？"
_QUOTES = "\"'”’»」』)）"
_RANGES: tuple[tuple[int, int, int], ...] = (
    (0xAC00, 0xD7A3, HANGUL),
    (0x1100, 0x11FF, JAMO),
    (0x3131, 0x318E, JAMO),
    (0xA960, 0xA97F, JAMO),
    (0xD7B0, 0xD7FF, JAMO),
    (0x3400, 0x4DBF, HAN),
    (0x4E00, 0x9FFF, HAN),
    (0xF900, 0xFAFF, HAN),
    (0x20000, 0x3134F, HAN),
    (0x0080, 0x009F, BROKEN),
    (0xFFFD, 0xFFFD, BROKEN),
    (0x2600, 0x27BF, EMOJI),
    (0x1F000, 0x1FAFF, EMOJI),
    (0x0080, 0x00BF, MISREAD_TAIL),
    (0x00B0, 0x00EF, MISREAD_LEAD),
)
_LATIN_RANGES = ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A))
_CLASS_OF_CATEGORY = {"L": LETTER, "M": LETTER, "N": DIGIT, "P": PUNCTUATION}
_NAMED = (range(0x40000), range(0xE0000, 0xE0200))
"""All planes with assigned characters; the others are empty or for private use."""
_CP1252_TAILS = bytes(code for code in range(0x80, 0xA0) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)).decode("cp1252")


def codes_of(text: str) -> Codes:
    """The code points: shape (len(text),). Lone surrogates are allowed."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def flags_of(text: str) -> Flags:
    """Flags of each code point: shape (len(text),). Lone surrogates are allowed."""
    return table()[codes_of(text)]


@functools.cache
def table() -> Flags:
    """Flags of every code point: shape (0x110000,), read-only."""
    flags = np.zeros(sys.maxunicode + 1, dtype=np.uint32)
    for code in itertools.chain(*_NAMED):
        character = chr(code)
        category = unicodedata.category(character)
        flags[code] = _CLASS_OF_CATEGORY.get(category[0], 0) | (SPACE if character.isspace() else 0)
        if category in ("Lu", "Lt"):
            flags[code] |= UPPER
    for first, last, flag in _RANGES:
        flags[first : last + 1] |= flag
    for first, last in _LATIN_RANGES:
        letters = flags[first : last + 1]
        letters[letters & LETTER > 0] |= LATIN
    for characters, flag in ((_SENTENCE_ENDS, SENTENCE_END), (_QUOTES, QUOTE), (_CP1252_TAILS, MISREAD_TAIL)):
        for character in characters:
            flags[ord(character)] |= flag
    flags[0xAC00 : 0xD7A3 + 1] |= RARE_HANGUL
    for lead in range(0xB0, 0xC9):
        for trail in range(0xA1, 0xFF):
            flags[ord(bytes((lead, trail)).decode("euc-kr"))] &= np.uint32(0xFFFFFFFF ^ RARE_HANGUL)
    flags.setflags(write=False)
    return flags
