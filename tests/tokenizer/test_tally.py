"""Words are cut as the regex cuts them and counted as a Counter counts them, however small the table is."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.tokenizer.tables import counter_of
from tokenizer.engine.patterns import PATTERNS, map_bytes
from tokenizer.engine.pretokenizer import cutter_of
from tokenizer.engine.word_counts import (
    Tally,
    Words,
    add_words,
    clear,
    count_texts,
    new_resume,
    new_tally,
    sorted_words,
)
from tokenizer.training.word_files import batch_of

# Unassigned code points may be letters to the engine whose Unicode version is newer.
ASSIGNED_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=60)
DENSE_TEXT = st.text(
    st.sampled_from("ab'sdtlvereLLMRE 12345٣一가ᄀ́각.,_-=!\t\n\r\v\f\u00a0 \u3000\u2028\u0085\x1c\x00😀\ufeff\u200d"),
    max_size=40,
)
HOSTILE = [
    "", "'", "''s'S'll'Ll'LL", "\r\n \n\t x\n\n  ", " " * 300 + "\n" + " " * 300 + "7", "각" * 50,
    "\x00\x01\x7f\x85\x9f", "한👩‍👩‍👧‍👦" * 40, "가" * 100 + "\n" + "가" * 100, "1" * 50 + "٣٤٥½²",
    "\u1112\u1161\u11ab\u1100\u1173\u11af \u1100\uac00\u3131\u314f e\u0301",
    "don't 'tis I'LL you'Ve don't, and won't, or could", "́" * 5 + "a" + "́" * 5, "\ufffd\U0010ffff\ue000",
]  # fmt: skip


def count(texts: Sequence[str], pattern: str, tally: Tally | None = None) -> Counter[str]:
    """Mapped words of texts by the table, emptied whenever it is full."""
    tally = tally or new_tally(10_000, 100_000)
    encoded = [text.encode() for text in texts]
    data = np.frombuffer(b"".join([*encoded, bytes(4)]), np.uint8)
    bounds = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    resume, found = new_resume(), Counter[str]()
    while not count_texts(cutter_of(PATTERNS[pattern]), tally, data, bounds, np.ones(len(texts), np.bool_), resume):
        found.update(dict(words_in(sorted_words(tally))))
        clear(tally)
    found.update(dict(words_in(sorted_words(tally))))
    return found


def words_in(words: Words) -> Iterator[tuple[str, int]]:
    for number, times in enumerate(words.counts.tolist()):
        word = words.data[words.bounds[number] : words.bounds[number + 1]].tobytes()
        yield map_bytes(word.decode()), times


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(ASSIGNED_TEXT | DENSE_TEXT, max_size=5))
@example(texts=HOSTILE)
def test_words_are_the_regexs(pattern: str, texts: list[str]) -> None:
    assert count(texts, pattern) == counter_of(texts, pattern)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(DENSE_TEXT, max_size=5), words=st.integers(1, 9))
@example(texts=[*HOSTILE, "z" * 3000], words=1)
def test_a_full_table_goes_on_where_it_stopped(texts: list[str], words: int) -> None:
    assert count(texts, "exaone3-code", new_tally(words, 256)) == counter_of(texts, "exaone3-code")


def test_a_line_of_6_mb_without_spaces_is_counted_in_pieces() -> None:
    assert count(["z" * 6_000_001], "exaone3-code") == {"z" * 256: 23437, "z" * 129: 1}
    assert count(["가" * 2_000_000], "plain") == {map_bytes("가" * 85): 23529, map_bytes("가" * 35): 1}


def test_documents_that_are_not_wanted_are_not_counted() -> None:
    tally = new_tally(10, 100)
    data, bounds = np.frombuffer(b"onetwothree\0\0\0\0", np.uint8), np.array([0, 3, 6, 11])
    wanted = np.array([True, False, True])
    assert count_texts(cutter_of(PATTERNS["exaone3"]), tally, data, bounds, wanted, new_resume())
    assert dict(words_in(sorted_words(tally))) == {"one": 1, "three": 1}


def test_words_of_one_hash_stay_apart_and_are_ordered_by_their_bytes() -> None:
    long, short = b"abcdefgh12345678ABCDEFGH", b"abcdefgh12345678"
    words = [
        long,
        *(_same_hash(long, first) for first in (b"zzzzzzzz", b"AAAAAAAA")),
        short,
        _same_hash(short, b"xxxxxxxx"),
    ]
    tally = new_tally(20, 1000)
    for _ in range(2):
        batch = batch_of((word, 2**40 + number) for number, word in enumerate(words))
        assert add_words(tally, batch.data, batch.bounds, batch.counts, 0) == len(words)
    found = sorted_words(tally)
    listed = [found.data[first:end].tobytes() for first, end in pairwise(found.bounds.tolist())]
    assert len(set(found.hashes.tolist())) == 2
    assert list(zip(found.hashes.tolist(), listed, strict=True)) == sorted(
        zip(found.hashes.tolist(), listed, strict=True)
    )
    assert dict(zip(listed, found.counts.tolist(), strict=True)) == {
        word: 2 * (2**40 + number) for number, word in enumerate(words)
    }


def _same_hash(word: bytes, first: bytes) -> bytes:
    """The word of that length and hash that begins with other 8 bytes: each step of the hash can be undone."""

    def after(block: bytes) -> int:
        value = ((len(word) ^ int.from_bytes(block, "big")) * 0x9E3779B97F4A7C15) % 2**64
        return value ^ value >> 32

    second = after(word[:8]) ^ after(first) ^ int.from_bytes(word[8:16], "big")
    return first + second.to_bytes(8, "big") + word[16:]


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=60), more=st.binary(max_size=20))
@example(data="\ud800 lone \udfff".encode("utf-8", "surrogatepass"), more="각".encode()[:2])
def test_bytes_that_are_no_utf8_are_cut_without_loss(data: bytes, more: bytes) -> None:
    tally = new_tally(200, 2000)
    buffer = np.frombuffer(data + more + bytes(4), np.uint8)
    bounds = np.array([0, len(data), len(data) + len(more)])
    wanted = np.ones(2, np.bool_)
    assert count_texts(cutter_of(PATTERNS["exaone3-code"]), tally, buffer, bounds, wanted, new_resume())
    found = sorted_words(tally)
    assert int((np.diff(found.bounds) * found.counts).sum()) == len(data) + len(more)


@pytest.mark.corpus
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "folder",
    ["general/ko-text/kowiki", "general/en-text/enwiki", "domain/code/lodash-js", "general/web-html/postgres-docs"],
)
def test_words_of_real_text_are_the_regexs(corpus_dir: Path, folder: str, pattern: str) -> None:
    with min((corpus_dir / folder).glob("*.zst")).open("rb") as stream:
        text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(stream), "utf-8").read(300_000)
    assert count([text], pattern, new_tally(200_000, 4_000_000)) == counter_of([text], pattern)
