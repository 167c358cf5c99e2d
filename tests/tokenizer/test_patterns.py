"""A pattern cuts every string without loss, and alike wherever it runs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from tests.tokenizer.tables import cut, map_bytes
from tokenizer.engine import pretokenize
from tokenizer.patterns import CODE_POINT_OF_BYTE, PATTERNS, unmap_bytes

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
# Unassigned code points may be letters to the engine whose Unicode version is newer.
ASSIGNED_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]))
DENSE_TEXT = st.text(st.sampled_from("ab'sdtlvereLL 12一가ᄀ́.,_-=\t\n\r \u3000\u2028\u0085\x1c\x00"), max_size=12)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=ANY_TEXT | DENSE_TEXT)
def test_both_engines_cut_alike_and_lose_nothing(pattern: str, text: str) -> None:
    data = text.encode()
    bounds = pretokenize(np.frombuffer(data, np.uint8), np.array([len(data)]), PATTERNS[pattern]).tolist()
    ours = [data[begin:end].decode() for begin, end in pairwise(bounds)]
    assert "".join(ours) == text
    assert ours == cut(PATTERNS[pattern], text)


@given(text=ASSIGNED_TEXT | DENSE_TEXT)
def test_exaone3_is_single_digits_then_gpt2(text: str) -> None:
    two_steps = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    ours = [map_bytes(word) for word in cut(PATTERNS["exaone3"], text)]
    assert ours == [word for word, _ in two_steps.pre_tokenize_str(text)]


_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_PUBLISHED = {
    # Llama 3 (Meta, 2024)
    "plain": r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    # K-EXAONE 236B (LG AI Research, 2026)
    "superwords": (
        r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
    ),
}
"""Expressions that other engines know, after the contractions."""


@pytest.mark.parametrize("pattern", _PUBLISHED)
@given(text=ASSIGNED_TEXT | DENSE_TEXT)
def test_a_pattern_cuts_as_the_published_one(pattern: str, text: str) -> None:
    assert cut(PATTERNS[pattern], text) == cut(_CONTRACTIONS + _PUBLISHED[pattern], text)


def test_digits_stand_alone_and_contractions_do_not_split_words() -> None:
    assert cut(PATTERNS["exaone3"], "in 2026, don't") == ["in", " ", "2", "0", "2", "6", ",", " don", "'t"]
    assert cut(PATTERNS["exaone3-code"], "    x.append(1)\n\n") == ["   ", " x", ".append", "(", "1", ")\n", "\n"]


@given(ANY_TEXT)
def test_bytes_as_code_points_and_back(text: str) -> None:
    mapped = map_bytes(text)
    assert unmap_bytes(mapped) == text.encode("utf-8")
    assert len(mapped) == len(text.encode("utf-8"))


def test_the_alphabet_is_gpt2s_and_holds_no_white_space() -> None:
    assert len(set(CODE_POINT_OF_BYTE)) == 256
    assert sorted(CODE_POINT_OF_BYTE) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert (CODE_POINT_OF_BYTE[0x41], CODE_POINT_OF_BYTE[0x20], CODE_POINT_OF_BYTE[0x0A]) == ("A", "Ġ", "Ċ")
    assert not any(character.isspace() for character in CODE_POINT_OF_BYTE)
