"""The hostile files of the development corpus: none stops the reader, and each behaves as its manifest says."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.readers import formats

MAX_DOCUMENT_BYTES = 8_000_000

# file -> (documents, rejects by reason); what MANIFEST.json of the corpus asks for, made exact.
EXPECTED: dict[str, tuple[int, dict[str, int]]] = {
    "truncated.jsonl.gz": (35, {"broken_compression": 1}),
    "truncated.jsonl.zst": (30, {"broken_compression": 1}),
    "bitflip.jsonl.zst": (60, {"broken_compression": 1}),
    "bad-crc.jsonl.gz": (60, {"broken_compression": 1}),
    "multi-member.jsonl.gz": (3, {}),
    "not-really-gzip.jsonl.gz": (1, {}),
    "empty.jsonl": (0, {}),
    "empty.jsonl.gz": (0, {}),
    "blank-lines.jsonl": (2, {}),
    "bom.jsonl": (2, {}),
    "utf16.jsonl": (1, {}),
    "invalid-utf8.jsonl": (10, {}),
    "cut-utf8-at-end.jsonl": (0, {"not_json": 1}),
    "malformed-lines.jsonl": (5, {"not_json": 2, "not_an_object": 3, "no_text_field": 5, "empty": 2}),
    "nul-bytes.jsonl": (10, {}),
    "raw-nul.txt": (1, {}),
    "huge-single-line.jsonl.zst": (1, {}),
    "zip-bomb-like.jsonl.zst": (0, {"too_long": 1}),
    "no-spaces.jsonl.zst": (1, {}),
    "deep-nesting.html": (0, {"too_deep": 1}),
    "unclosed-tags.html": (1, {}),
    "script-only.html": (0, {"empty": 1}),
    "entities.html": (1, {}),
    "mojibake-latin1.html": (1, {}),
    "cp949.txt": (1, {}),
    "cp949-lines.jsonl": (20, {}),
    "mojibake-utf8-as-cp949.jsonl.zst": (20, {}),
    "mojibake-double-utf8.jsonl.zst": (20, {}),
    "nfd-korean.jsonl.zst": (30, {}),
    "nfc-korean.jsonl.zst": (30, {}),
    "compat-jamo-fullwidth.jsonl.zst": (20, {}),
    "mixed-languages.jsonl.zst": (20, {}),
    "near-duplicates.jsonl.zst": (80, {}),
    "truncated.warc.gz": (24, {"broken_warc": 1}),
    "corrupt-member.warc.gz": (31, {"broken_warc": 2}),  # the bad member, and the cut at the end
    **{
        f"euckr-{name}.html": (1, {})
        for name in (
            "bind",
            "configuring",
            "content-negotiation",
            "custom-error",
            "dns-caveats",
            "dso",
            "env",
            "filter",
            "no-charset",
            "wrong-charset",
        )
    },
}
MARKS = set("\x00\r\u200b\u202e\ufeff")
"""What no text may hold after extraction."""
NOT_KOREAN = {
    "compat-jamo-fullwidth.jsonl.zst",
    "malformed-lines.jsonl",
    "mixed-languages.jsonl.zst",
    "mojibake-utf8-as-cp949.jsonl.zst",
    "corrupt-member.warc.gz",
    "truncated.warc.gz",
}
"""Files whose texts are not all mostly Hangul; what they must be is tested by name."""
KOREAN = [name for name, (documents, _) in EXPECTED.items() if documents and name not in NOT_KOREAN]
DAMAGED = {"invalid-utf8.jsonl": 150, "bitflip.jsonl.zst": 6, "entities.html": 3, "raw-nul.txt": 2}
"""Replacement characters that stand for bytes or references that were no letters; elsewhere none."""


def _read(folder: Path, name: str, **settings: Any) -> list[formats.Document | formats.Reject]:
    forms = {".jsonl": "jsonl", ".warc": "warc", ".html": "html", ".txt": "text"}
    form = next(form for ending, form in forms.items() if ending in name)
    return list(formats.read(folder / "hostile" / name, form, formats.Settings(MAX_DOCUMENT_BYTES, **settings)))


def _texts(folder: Path, name: str, **settings: Any) -> list[str]:
    return [item.text for item in _read(folder, name, **settings) if isinstance(item, formats.Document)]


@pytest.mark.corpus
def test_every_hostile_file_is_covered(corpus_dir):
    manifest = json.loads((corpus_dir / "hostile/MANIFEST.json").read_text(encoding="utf-8"))
    assert {entry["file"] for entry in manifest["files"]} == set(EXPECTED)
    assert set(os.listdir(corpus_dir / "hostile")) == {*EXPECTED, "MANIFEST.json"}


@pytest.mark.corpus
@pytest.mark.parametrize("name", EXPECTED)
def test_documents_and_rejects(corpus_dir, name):
    found = _read(corpus_dir, name)
    documents = [item for item in found if isinstance(item, formats.Document)]
    rejects = Counter(item.reason for item in found if isinstance(item, formats.Reject))
    assert (len(documents), dict(rejects)) == EXPECTED[name]
    for document in documents:
        assert not set(document.text) & MARKS


@pytest.mark.corpus
@pytest.mark.parametrize("name", KOREAN)
def test_korean_comes_out_as_korean(corpus_dir, name):
    texts = _texts(corpus_dir, name)
    for text in texts:
        letters = [c for c in text if c.isalpha()]
        assert sum("가" <= c <= "힣" for c in letters) > 0.3 * len(letters)
    assert sum(text.count("�") for text in texts) == DAMAGED.get(name, 0)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("truncated.jsonl.gz", "bad-crc.jsonl.gz"),
        ("truncated.jsonl.zst", "bad-crc.jsonl.gz"),
        ("corrupt-member.warc.gz", "../general/warc/docs-ko.warc.gz"),
        ("truncated.warc.gz", "../general/warc/docs-ko.warc.gz"),
    ],
)
def test_what_a_damaged_file_gives_is_what_the_whole_one_gives(corpus_dir, name, whole):
    texts = _texts(corpus_dir, name)
    assert set(texts) <= set(_texts(corpus_dir, whole))


@pytest.mark.corpus
def test_records_after_a_damaged_member_are_read(corpus_dir):
    found = _read(corpus_dir, "corrupt-member.warc.gz")
    assert [item.index for item in found if isinstance(item, formats.Reject)] == [10, 32]
    assert [item.index for item in found] == list(range(33))


@pytest.mark.corpus
def test_each_malformed_line_has_its_reason_and_place(corpus_dir):
    found = _read(corpus_dir, "malformed-lines.jsonl")
    assert [item.index for item in found] == list(range(17))
    assert [getattr(item, "reason", "document") for item in found] == [
        "document",
        "not_json",
        "document",
        *["not_an_object"] * 3,
        *["no_text_field"] * 4,
        "empty",
        "empty",
        "document",
        "not_json",
        "document",
        "no_text_field",
        "document",
    ]
    surrogates, repeated_key = found[12], found[14]
    assert (surrogates.text, repeated_key.text) == ("� lone surrogate � 한국어", "duplicate key")


@pytest.mark.corpus
def test_a_page_reads_the_same_in_every_encoding(corpus_dir):
    page = _texts(corpus_dir, "euckr-content-negotiation.html")
    assert _texts(corpus_dir, "euckr-no-charset.html") == page
    assert _texts(corpus_dir, "euckr-wrong-charset.html") == page
    (repaired,) = _texts(corpus_dir, "mojibake-latin1.html")
    same = SequenceMatcher(None, repaired.split(), page[0].split(), autojunk=False).ratio()
    assert same > 0.95


@pytest.mark.corpus
def test_decomposed_korean_equals_composed_korean(corpus_dir):
    composed = _texts(corpus_dir, "nfc-korean.jsonl.zst")
    assert _texts(corpus_dir, "nfd-korean.jsonl.zst") == composed
    assert all(unicodedata.is_normalized("NFC", text) for text in composed)


@pytest.mark.corpus
def test_full_width_letters_are_kept_or_folded_by_the_setting(corpus_dir):
    wide = re.compile("[Ａ-Ｚａ-ｚ]")
    name = "compat-jamo-fullwidth.jsonl.zst"
    kept, folded = _texts(corpus_dir, name), _texts(corpus_dir, name, unicode="NFKC")
    assert all(wide.search(text) for text in kept)
    assert not any(wide.search(text) for text in folded)
    assert "The Scarlet Letter" in folded[0]


@pytest.mark.corpus
def test_what_a_single_file_holds(corpus_dir):
    assert len(re.findall(r"\n\n", _texts(corpus_dir, "unclosed-tags.html")[0])) == 29
    (entities,) = _texts(corpus_dir, "entities.html")
    assert "&#" not in entities
    assert "이의 관계" in entities
    (huge,) = _texts(corpus_dir, "huge-single-line.jsonl.zst")
    assert len(huge.encode()) > 5_000_000
    assert "\n" not in huge
    (unspaced,) = _texts(corpus_dir, "no-spaces.jsonl.zst")
    assert len(unspaced.split()) == 1
    assert len(unspaced) > 290_000
    for text in _texts(corpus_dir, "mixed-languages.jsonl.zst"):
        assert re.search("[가-힣]{2}", text)
        assert re.search("[a-z]{4}", text)
    groups = Counter(item.raw_id.rsplit("-", 1)[0] for item in _read(corpus_dir, "near-duplicates.jsonl.zst"))
    assert set(groups.values()) == {4}
    # Bytes were lost there, so it stays broken, and the rules on broken characters drop it.
    assert all(text.count("�") > 0.01 * len(text) for text in _texts(corpus_dir, "mojibake-utf8-as-cp949.jsonl.zst"))
