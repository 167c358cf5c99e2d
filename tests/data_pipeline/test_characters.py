"""The table of character classes: whole, and right where a mistake would be costly."""

from __future__ import annotations

import itertools
import sys
import unicodedata

import pytest

from data_pipeline.readers import characters


def test_no_character_lies_outside_the_planes_that_are_looked_at() -> None:
    looked_at = set(itertools.chain(*characters._NAMED))
    outside = (chr(code) for code in range(sys.maxunicode + 1) if code not in looked_at)
    assert {unicodedata.category(character) for character in outside} == {"Cn", "Co"}


@pytest.mark.parametrize(
    ("character", "flag"),
    [
        ("가", characters.HANGUL),
        ("ㅋ", characters.JAMO),
        ("a", characters.LATIN),
        ("É", characters.UPPER),
        ("漢", characters.HAN),
        ("7", characters.DIGIT),
        ("。", characters.SENTENCE_END),
        ("\u3000", characters.SPACE),
        ("😀", characters.EMOJI),
        ("\ufffd", characters.BROKEN),
        ("\U000e0100", characters.LETTER),
    ],
)
def test_classes(character: str, flag: int) -> None:
    assert characters.flags_of(character)[0] & flag


def test_private_use_and_lone_surrogates_have_no_class() -> None:
    assert not characters.flags_of("\U000f0000\U0010ffff\ud800").any()
