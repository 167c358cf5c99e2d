"""Words are cut as the engine of record cuts them and counted as a Counter counts them, however small the table is."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.tokenizer.tables import counter_of, listed, map_bytes
from tokenizer.engine import WORD_BYTES, Words, WordTable, count_words, pretokenize
from tokenizer.patterns import PATTERNS, unmap_bytes
from tokenizer.training.word_files import words_of

# Unassigned code points may be letters to the engine whose Unicode version is newer.
ASSIGNED_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=60)
DENSE_TEXT = st.text(
    st.sampled_from("ab'sdtlvereLLMRE 12345٣一가ᄀ́각.,_-=!\t\n\r\v\f\u00a0 \u3000\u2028\u0085\x1c\x00😀\ufeff\u200d"),
    max_size=40,
)
HOSTILE = [
    "",
    "'",
    "''s'S'll'Ll'LL",
    "\r\n \n\t x\n\n  ",
    " " * 300 + "\n" + " " * 300 + "7",
    "각" * 50,
    "\x00\x01\x7f\x85\x9f",
    "한👩‍👩‍👧‍👦" * 40,
    "가" * 100 + "\n" + "가" * 100,
    "1" * 50 + "٣٤٥½²",
    "\u1112\u1161\u11ab\u1100\u1173\u11af \u1100\uac00\u3131\u314f e\u0301",
    "don't 'tis I'LL you'Ve don't, and won't, or could",
    "́" * 5 + "a" + "́" * 5,
    "\ufffd\U0010ffff\ue000",
]


def words_in(data: bytes, ends: Sequence[int], pattern: str) -> Words:
    """The words of documents, each counted once."""
    text = np.frombuffer(data, np.uint8)
    bounds = pretokenize(text, np.array(ends, np.int64), PATTERNS[pattern], WORD_BYTES)
    return Words(text, bounds, np.ones(len(bounds) - 1, np.int64))


def count(texts: Sequence[str], pattern: str, table: WordTable | None = None) -> Counter[str]:
    """Mapped words of texts by the table, spilled whenever it is full."""
    found = Counter[str]()

    def spill(full: WordTable) -> None:
        found.update(dict(listed(full.sorted()[0])))

    encoded = [text.encode() for text in texts]
    words = words_in(b"".join(encoded), np.cumsum([len(text) for text in encoded]).tolist(), pattern)
    spill(count_words(words, table or WordTable.with_room(10_000, 100_000), spill))
    return found


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=60)
@given(texts=st.lists(ASSIGNED_TEXT | DENSE_TEXT, max_size=5))
@example(texts=HOSTILE)
def test_words_are_the_regexs(pattern: str, texts: list[str]) -> None:
    assert count(texts, pattern) == counter_of(texts, pattern)


@settings(max_examples=40)
@given(texts=st.lists(DENSE_TEXT, max_size=5), words=st.integers(1, 9))
@example(texts=[*HOSTILE, "z" * 3000], words=1)
def test_a_full_table_goes_on_where_it_stopped(texts: list[str], words: int) -> None:
    assert count(texts, "exaone3-code", WordTable.with_room(words, 256)) == counter_of(texts, "exaone3-code")


def test_a_line_of_6_mb_without_spaces_is_counted_in_pieces() -> None:
    assert count(["z" * 6_000_001], "exaone3-code") == {"z" * 256: 23437, "z" * 129: 1}
    assert count(["가" * 2_000_000], "plain") == {map_bytes("가" * 85): 23529, map_bytes("가" * 35): 1}


def test_words_end_where_documents_end() -> None:
    table = count_words(words_in(b"onetwothree", [3, 6, 6, 11], "exaone3"), WordTable.with_room(10, 100))
    assert dict(listed(table.sorted()[0])) == {"one": 1, "two": 1, "three": 1}


@settings(max_examples=40)
@given(texts=st.lists(DENSE_TEXT, max_size=5))
@example(texts=HOSTILE)
def test_a_table_that_grows_counts_the_same(texts: list[str]) -> None:
    encoded = [text.encode() for text in texts]
    words = words_in(b"".join(encoded), np.cumsum([len(text) for text in encoded]).tolist(), "plain")
    table = count_words(words, WordTable.with_room(1, 1))
    assert dict(listed(table.sorted()[0])) == counter_of(texts, "plain")


def test_words_of_one_hash_stay_apart_and_are_ordered_by_their_bytes() -> None:
    long, short = b"abcdefgh12345678ABCDEFGH", b"abcdefgh12345678"
    words = [
        long,
        *(_same_hash(long, first) for first in (b"zzzzzzzz", b"AAAAAAAA")),
        short,
        _same_hash(short, b"xxxxxxxx"),
    ]
    table = WordTable.with_room(20, 1000)
    for _ in range(2):
        table = count_words(words_of((word, 2**40 + number) for number, word in enumerate(words)), table)
    assert len(table.entries) == 20
    found, hashes = table.sorted()
    in_order = [unmap_bytes(word) for word, _ in listed(found)]
    assert len(set(hashes.tolist())) == 2
    assert list(zip(hashes.tolist(), in_order, strict=True)) == sorted(zip(hashes.tolist(), in_order, strict=True))
    assert dict(zip(in_order, found.counts.tolist(), strict=True)) == {
        word: 2 * (2**40 + number) for number, word in enumerate(words)
    }


def _same_hash(word: bytes, first: bytes) -> bytes:
    """The word of that length and hash that begins with other 8 bytes: each step of the hash can be undone."""

    def after(block: bytes) -> int:
        value = ((len(word) ^ int.from_bytes(block, "big")) * 0x9E3779B97F4A7C15) % 2**64
        return value ^ value >> 32

    second = after(word[:8]) ^ after(first) ^ int.from_bytes(word[8:16], "big")
    return first + second.to_bytes(8, "big") + word[16:]


@settings(max_examples=30)
@given(data=st.binary(max_size=60), more=st.binary(max_size=20))
@example(data="\ud800 lone \udfff".encode("utf-8", "surrogatepass"), more="각".encode()[:2])
def test_bytes_that_are_no_utf8_are_cut_without_loss(data: bytes, more: bytes) -> None:
    words = words_in(data + more, [len(data), len(data) + len(more)], "exaone3-code")
    found, _ = count_words(words, WordTable.with_room(200, 2000)).sorted()
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
    assert count([text], pattern, WordTable.with_room(200_000, 4_000_000)) == counter_of([text], pattern)
