"""An automaton cuts as the expression does in the engine of record, in tables and in machine code."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenizer.tables import cut as by_the_record
from tokenizer.engine import pretokenize
from tokenizer.engine.dfa import CODE_POINTS, START, automaton
from tokenizer.patterns import PATTERNS
from twofold.errors import UserError

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.sampled_from("ab'sdtlvereLL 12一가ᄀ́.,_-=\t\n\r \u3000\u2028\u0085\x1c\x00\U0001f600\U0010ffff")),
)


def by_the_table(pattern: str, text: str) -> list[str]:
    """The documented use of the table, character by character."""
    tables = automaton(pattern)
    words, begin = [], 0
    while begin < len(text):
        state, found = START, begin
        for at in range(begin, len(text) + 1):
            column = tables.classes[ord(text[at])] if at < len(text) else -1
            step = int(tables.steps[state, column])
            if step & 1:
                found = at
            state = step >> 1
            if not state:
                break
        words.append(text[begin:found])
        begin = found
    return words


def by_machine_code(pattern: str, data: bytes) -> list[bytes]:
    bounds = pretokenize(np.frombuffer(data, np.uint8), np.array([len(data)]), pattern)
    return [data[begin:end] for begin, end in pairwise(bounds.tolist())]


@pytest.mark.parametrize("name", PATTERNS)
@given(text=TEXT)
def test_every_text_is_cut_as_by_the_engine_of_record(name: str, text: str) -> None:
    """Unassigned code points too: what is a letter is asked of that engine."""
    expected = by_the_record(PATTERNS[name], text)
    assert by_the_table(PATTERNS[name], text) == expected
    assert by_machine_code(PATTERNS[name], text.encode()) == [word.encode() for word in expected]


def _grouped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    sequences = st.lists(inner, min_size=1, max_size=3).map("".join)
    groups = st.lists(sequences, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})")
    return st.tuples(groups | sequences, st.sampled_from(["", "", "(?=b)", r"(?![\sa])"])).map("".join)


SETS = st.sampled_from(["a", "b", " ", "[ab]", "[^a]", r"\s", r"[^\sb]", r"[a-b\-]", r"\p{L}", r"\P{L}", r"\x61"])
REPEATED = st.tuples(SETS, st.sampled_from(["", "", "?", "+", "*", "{2}", "{1,2}", "{2,}"])).map("".join)
# At least one character a word, and one more alternative that takes whatever is left.
EXPRESSIONS = st.lists(st.tuples(SETS, st.recursive(REPEATED, _grouped, max_leaves=5)).map("".join), max_size=3).map(
    lambda parts: "|".join([*parts, r"\s", r"\S"])
)


@settings(max_examples=30)
@given(EXPRESSIONS, st.lists(st.text("ab -\n", max_size=9), min_size=1, max_size=30))
def test_any_expression_cuts_as_by_the_engine_of_record(expression: str, texts: list[str]) -> None:
    """Preferences, nested groups, counted repetition and look-ahead."""
    for text in texts:
        assert by_the_table(expression, text) == by_the_record(expression, text)


@pytest.mark.parametrize("members", [r"\p{L}", r"\s\p{Cn}", r"^\d\u1100-\u11ff"])
def test_classes_hold_what_the_engine_of_record_says(members: str) -> None:
    """Every code point there is."""
    characters = [chr(point) for point in range(CODE_POINTS) if not 0xD800 <= point < 0xE000]
    others = members[1:] if members.startswith("^") else f"^{members}"
    pattern, text = f"[{members}]+|[{others}]+", "".join(characters)
    assert by_machine_code(pattern, text.encode()) == [word.encode() for word in by_the_record(pattern, text)]


@given(st.binary(max_size=60))
def test_bytes_that_are_no_text_are_cut_without_loss(data: bytes) -> None:
    assert b"".join(by_machine_code(PATTERNS["exaone3-code"], data)) == data


@pytest.mark.parametrize(
    "pattern",
    [
        "a+?",
        "a++",
        "(?i:a)",
        "^a",
        "a$",
        ".",
        "(a",
        "a)",
        "[a",
        "*",
        "a{2",
        "a{x}",
        "a{2,1}",
        "a{1,2,3}",
        "a**",
        r"\bx",
        r"\p",
        r"\p{L",
        r"\p{Nonsense}",
        "[b-a]",
        r"[\s-a]",
        "[a[b]]",
        "[a&&b]",
        r"\u12",
        r"\u12g4",
        r"\U00110000",
        "\\",
        "(?<=a)b",
        "(?>a)",
        "(?=ab)a",
        r"\1",
    ],
)
def test_what_is_not_understood_is_refused(pattern: str) -> None:
    with pytest.raises(UserError, match=r"pattern = .*(is not understood at character|is not a class of characters)"):
        automaton(pattern)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("a", "leaves some text uncut"),
        (r"\p{L}+|[^\p{L}]b", "leaves some text uncut"),
        (r"[\s\S](?=a)", "leaves some text uncut"),
        (r"\s*|\S", "matches the empty string"),
        ("", "matches the empty string"),
    ],
)
def test_a_pattern_that_is_none_of_words_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        automaton(pattern)


def test_escapes_are_the_characters_they_name() -> None:
    assert by_the_table(r"\x41|\u0042|\U00000043|[\n\t\\\]]+|[^ABC\n\t\\\]]", "ABC\n\t\\]x") == [
        "A",
        "B",
        "C",
        "\n\t\\]",
        "x",
    ]
