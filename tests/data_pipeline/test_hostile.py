"""The hostile files of the development corpus: none stops the reader, and each behaves as its manifest says."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.reading import readers

MAX_DOCUMENT_BYTES = 8_000_000

# file -> (documents, rejects by reason); what MANIFEST.json of the corpus asks for, made exact.
EXPECTED: dict[str, tuple[int, dict[str, int]]] = {
    "truncated.jsonl.gz": (30, {"broken_compression": 1}),
    "truncated.jsonl.zst": (30, {"broken_compression": 1}),
    "bitflip.jsonl.zst": (46, {"broken_compression": 1}),
    "bad-crc.jsonl.gz": (37, {"broken_compression": 1}),
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
    "corrupt-member.warc.gz": (10, {"broken_warc": 1}),
    **{f"euckr-{name}.html": (1, {}) for name in (
        "bind", "configuring", "content-negotiation", "custom-error", "dns-caveats", "dso", "env", "filter",
        "no-charset", "wrong-charset")},
}  # fmt: skip
KOREAN = [
    "entities.html", "mojibake-latin1.html", "cp949.txt", "cp949-lines.jsonl", "mojibake-double-utf8.jsonl.zst",
    "utf16.jsonl", "raw-nul.txt", "unclosed-tags.html", "nfd-korean.jsonl.zst",
    *(name for name in EXPECTED if name.startswith("euckr-")),
]  # fmt: skip


def _read(folder: Path, name: str) -> list[readers.Document | readers.Reject]:
    forms = {".jsonl": "jsonl", ".warc": "warc", ".html": "html", ".txt": "text"}
    form = next(form for ending, form in forms.items() if ending in name)
    return list(readers.read(folder / "hostile" / name, form, MAX_DOCUMENT_BYTES))


@pytest.mark.corpus
def test_every_hostile_file_is_covered(corpus_dir):
    manifest = json.loads((corpus_dir / "hostile/MANIFEST.json").read_text(encoding="utf-8"))
    assert {entry["file"] for entry in manifest["files"]} == set(EXPECTED)
    assert set(os.listdir(corpus_dir / "hostile")) == {*EXPECTED, "MANIFEST.json"}


@pytest.mark.corpus
@pytest.mark.parametrize("name", EXPECTED)
def test_documents_and_rejects(corpus_dir, name):
    found = _read(corpus_dir, name)
    documents = [item for item in found if isinstance(item, readers.Document)]
    rejects = Counter(item.reason for item in found if isinstance(item, readers.Reject))
    assert (len(documents), dict(rejects)) == EXPECTED[name]
    for document in documents:
        assert not set(document.text) & {"\x00", "\r", "\u200b", "\u202e", "\ufeff"}


@pytest.mark.corpus
@pytest.mark.parametrize("name", KOREAN)
def test_korean_comes_out_as_korean(corpus_dir, name):
    for item in _read(corpus_dir, name):
        assert isinstance(item, readers.Document)
        letters = [c for c in item.text if c.isalpha()]
        assert sum("가" <= c <= "힣" for c in letters) > 0.35 * len(letters)
        assert item.text.count("�") < 0.01 * len(item.text)
