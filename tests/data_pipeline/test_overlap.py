"""Shared substrings: the index against `in` over folded strings, on random and hostile text."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_pipeline.features import overlap
from data_pipeline.features.overlap import Index, Overlaps

WINDOW = 12
ENGLISH = "The ferry leaves Tarrick Sound every forty minutes, and the crossing takes a quarter of an hour."
KOREAN = "등대지기가 해 질 녘에 켠 등불은 이십 초마다 한 번씩 깜박인다. 아홉 시까지 몇 번 깜박이는가?"


# --- the slow, obvious reference ---------------------------------------------------------------


def folded(text: str) -> str:
    """Letters and digits of a text, without their case and width."""
    kept = ""
    for character in unicodedata.normalize("NFC", text):
        if character.isalnum():
            plain = unicodedata.normalize("NFKC", character).lower()
            lower = character.lower()
            kept += plain if len(plain) == 1 and plain.isalnum() else lower if len(lower) == 1 else character
    return kept


def shared(text: str, items: Sequence[str], window: int, whole_items: bool) -> list[tuple[int, int, int]]:
    """(where it begins, how long it is, whose it is) of every shared substring."""
    text = folded(text)
    found = []
    for number, item in enumerate(map(folded, items)):
        length = min(window, len(item))
        if length == window or (whole_items and length > window // 2):
            found += [(i, length, number) for i in range(len(text) - length + 1) if text[i : i + length] in item]
    return found


def expected(text: str, items: Sequence[str], window: int) -> tuple[int, float, int, set[int]]:
    """(matches, share, first item, items) as `every` gives them."""
    found = shared(text, items, window, whole_items=True)
    covered = {i for start, length, _ in found for i in range(start, start + length)}
    first = min(((start, item) for start, _, item in found), default=(0, -1))[1]
    share = len(covered) / max(1, len(folded(text)))
    return len({start for start, _, _ in found}), share, first, {item for _, _, item in found}


# --- helpers -----------------------------------------------------------------------------------


def index_of(items: Sequence[str], window: int = WINDOW, whole_items: bool = True) -> Index:
    return overlap.index_of(*overlap.fold(items), window, whole_items)


def of(found: Overlaps, document: int) -> tuple[int, float, int, set[int]]:
    items = {item for place, item in found.pairs.tolist() if place == document}
    return int(found.matches[document]), float(found.share[document]), int(found.first_item[document]), items


PIECES = st.one_of(
    st.sampled_from(
        ["ab", "aaaa", "가나다라", "Ａb", "ABBA", " ", ".", "１2", "ㅋㅋ", "é", "e\u0301", "\ud800", "İ", "½"]
    ),
    st.text("ab", max_size=12),
    st.text(max_size=4),
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], list[str], int]:
    """Items, documents that quote them between other text, and a window."""
    items = draw(st.lists(TEXTS, min_size=1, max_size=4))
    quote = st.builds(
        lambda item, start, length: item[start : start + length],
        st.sampled_from(items),
        st.integers(0, 20),
        st.integers(0, 40),
    )
    document = st.lists(st.one_of(quote, TEXTS), max_size=4).map("".join)
    return items, draw(st.lists(document, max_size=4)), draw(st.integers(1, 14))


# --- every -------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(cases())
@example((["a" * 60, "a" * 5], ["a" * 70, "", "aa"], 8))
@example((["ab" * 40, "ba" * 3], ["ab" * 50, "b" + "ab" * 3], 9))
def test_every_finds_what_the_reference_finds_and_nothing_else(case: tuple[list[str], list[str], int]) -> None:
    items, documents, window = case
    found = overlap.every(documents, index_of(items, window))
    assert [of(found, i) for i in range(len(documents))] == [expected(text, items, window) for text in documents]
    assert found.pairs.tolist() == sorted(found.pairs.tolist())


@pytest.mark.parametrize("item", [ENGLISH, KOREAN])
def test_a_window_is_found_wherever_it_is_cut(item: str) -> None:
    plain = folded(item)
    for start in range(len(plain) - WINDOW + 1):
        quote = plain[start : start + WINDOW]
        found = overlap.every([f"7 {quote} 7", quote[:-1], quote[1:]], index_of([item]))
        assert found.matches.tolist() == [1, 0, 0], quote


@pytest.mark.parametrize(
    "written",
    [
        ENGLISH.upper(),
        ENGLISH.replace(" ", "\n- "),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in ENGLISH),
        unicodedata.normalize("NFD", KOREAN),
        KOREAN.replace(" ", "").replace(".", ""),
        KOREAN.replace(" ", "\u200b \u00a0"),
    ],
)
def test_case_spacing_marks_width_and_composition_hide_nothing(written: str) -> None:
    found = overlap.every([written], index_of([ENGLISH, KOREAN]))
    assert found.share.tolist() == [1.0]


def test_a_changed_letter_parts_what_is_shared() -> None:
    item = "abcdefghijklmnopqrstuvwxyz"
    found = overlap.every([item[:12] + "7" + item[13:]], index_of([item]))
    assert of(found, 0) == (1 + 2, 25 / 26, 0, {0})


def test_short_items_are_found_whole_or_not_at_all() -> None:
    items = ["abcdefg", "uvwxyz"]  # seven characters are more than half of twelve, six are not
    documents = ["__abcdefg__", "abcdef", "uvwxyz"]
    assert overlap.every(documents, index_of(items)).pairs.tolist() == [[0, 0]]
    assert overlap.every(documents, index_of(items, whole_items=False)).pairs.tolist() == []


def test_an_item_that_stands_in_several_benchmarks_is_each_ones() -> None:
    found = overlap.every([f"before {ENGLISH} after", "nothing"], index_of([KOREAN, ENGLISH, ENGLISH]))
    assert found.pairs.tolist() == [[0, 1], [0, 2]]
    assert found.first_item.tolist() == [1, -1]


def test_nothing_to_look_for_and_nothing_to_look_in() -> None:
    empty = overlap.index_of(np.zeros(0, np.uint32), np.zeros(1, np.int64), WINDOW, True)
    assert overlap.every([ENGLISH, ""], empty).matches.tolist() == [0, 0]
    assert overlap.every([], index_of([ENGLISH])).matches.tolist() == []
    assert overlap.every(["", "...", "ab"], index_of([ENGLISH])).share.tolist() == [0, 0, 0]


def test_one_repeated_character_makes_no_long_chains() -> None:
    index = index_of(["0" * 100_000, "0" * 100_000], 50)
    assert len(index.places) < 20
    assert overlap.every(["0" * 100_000], index).matches.tolist() == [100_000 - 49]


# --- sampled -----------------------------------------------------------------------------------


@settings(max_examples=200)
@given(cases(), st.integers(0, 2**32 - 1))
def test_samples_are_found_as_the_reference_finds_them(case: tuple[list[str], list[str], int], seed: int) -> None:
    items, documents, window = case
    draws = np.random.default_rng(seed).integers(0, 2**32, (len(documents), 5), dtype=np.uint32)
    found = overlap.sampled(documents, draws, index_of(items, window, whole_items=False))
    for i, text in enumerate(documents):
        starts: dict[int, set[int]] = {}
        for start, _, item in shared(text, items, window, whole_items=False):
            starts.setdefault(start, set()).add(item)
        places = max(0, len(folded(text)) - window + 1)
        hits = [place for draw in draws[i].tolist() if (place := draw * places >> 32) in starts]
        quoted = set().union(*(starts[place] for place in hits))
        assert of(found, i) == (len(hits), len(hits) / 5, min(starts[min(hits)]) if hits else -1, quoted)


def test_the_first_and_the_last_substring_can_be_drawn() -> None:
    text = "abcdefghijklmnop"
    for draw, place in ((0, 0), (2**32 - 1, len(text) - WINDOW)):
        draws = np.array([[draw]], np.uint32)
        sample = text[place : place + WINDOW]
        assert overlap.sampled([text], draws, index_of([sample], whole_items=False)).matches.tolist() == [1]
        assert overlap.sampled([text], draws, index_of(["x" + sample[:-1]], whole_items=False)).matches.tolist() == [0]


# --- folding -----------------------------------------------------------------------------------


def test_folding_is_done_once_and_for_all() -> None:
    table = overlap.fold_table()
    assert np.array_equal(table[table], table)
    assert table[ord("가")] == ord("가")
    assert [chr(table[ord(c)]) for c in "AＡ４Σ한ªİ"] == ["a", "a", "4", "σ", "한", "a", "İ"]
    assert not table[[ord(c) for c in " .,_-·\u200b\u0301"]].any()


@given(st.lists(st.text(), max_size=4))
def test_fold_equals_the_reference(texts: list[str]) -> None:
    codes, bounds = overlap.fold(texts)
    whole = "".join(map(chr, codes))
    assert [whole[start:end] for start, end in itertools.pairwise(bounds)] == list(map(folded, texts))
