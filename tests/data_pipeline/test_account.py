"""The account adds up, whatever happens to the files, and what is whole beside a damage is read."""

from __future__ import annotations

import functools
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.readers import formats, parquet, sources
from data_pipeline.readers.formats import Document, Passed, Reject, Settings
from data_pipeline.stages import account, extract
from twofold.errors import UserError

MAX = 50_000
KINDS = ("warc", "warc.gz", "warc.zst", "arc", "arc.gz", "jsonl", "jsonl.gz", "jsonl.zst", "parquet")


def _text(number: int) -> str:
    """Words that nothing else contains, hard to compress."""
    words = random.Random(number)
    return f"문서 {number} " + " ".join(f"{words.getrandbits(40):x}" for _ in range(words.randrange(5, 60)))


def _page(number: int) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body><p>{_text(number)}</p></body></html>".encode()
    )


def _warc(number: int) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://x.org/{number}\r\n"
        f"Content-Type: application/http\r\nContent-Length: {len(_page(number))}\r\n\r\n"
    )
    return head.encode() + _page(number) + b"\r\n\r\n"


def _arc(number: int) -> bytes:
    return (
        f"http://x.org/{number} 1.2.3.4 20140216050221 text/html {len(_page(number))}\n".encode()
        + _page(number)
        + b"\n"
    )


def _line(number: int) -> bytes:
    return json.dumps({"text": _text(number), "url": f"http://x.org/{number}"}, ensure_ascii=False).encode() + b"\n"


def _row_group(numbers: list[int]) -> bytes:
    table = pa.table({"text": [_text(n) for n in numbers], "url": [f"http://x.org/{n}" for n in numbers]})
    target = io.BytesIO()
    pq.write_table(table, target, row_group_size=2, write_page_checksum=True)
    return target.getvalue()


MAKE: dict[str, Callable[[int], bytes]] = {"warc": _warc, "arc": _arc, "jsonl": _line}
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gz": functools.partial(gzip.compress, mtime=0),
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def _records(kind: str, numbers: list[int]) -> list[bytes]:
    name, _, packing = kind.partition(".")
    return [PACK[packing](MAKE[name](number)) for number in numbers]


def _account(path: Path, form: str, data: bytes) -> tuple[set[str], list[Any]]:
    """The addresses of the documents, and everything found; the bytes add up."""
    path.write_bytes(data)
    found = list(formats.account(path, form, Settings(MAX)))
    assert sum(n_bytes for _, n_bytes in found) == len(data)
    assert all(n_bytes >= 0 for _, n_bytes in found)
    items = [item for item, _ in found]
    assert all(isinstance(item, Document | Reject | Passed) or item is None for item in items)
    assert all(item.reason in formats.REASONS for item in items if isinstance(item, Reject))
    documents = [item for item in items if isinstance(item, Document)]
    return {document.url or "" for document in documents if _is_whole(document)}, items


def _is_whole(document: Document) -> bool:
    number = (document.url or "").rpartition("/")[2]
    return number.isdigit() and document.text == _text(int(number))


def _form(kind: str) -> str:
    return "warc" if kind.startswith(("warc", "arc")) else kind.split(".")[0]


def _urls(numbers: list[int]) -> set[str]:
    return {f"http://x.org/{number}" for number in numbers}


STREAMS = [kind for kind in KINDS if kind != "parquet"]


@pytest.mark.parametrize("kind", STREAMS)
@given(
    hit=st.integers(0, 5),
    place=st.integers(0, 10**6),
    removed=st.integers(0, 400),
    noise=st.binary(max_size=100),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_a_damage_costs_no_other_record(tmp_path_factory, kind, hit, place, removed, noise, seed):
    numbers = [seed * 6 + n for n in range(6)]
    records = _records(kind, numbers)
    place %= len(records[hit])
    records[hit] = records[hit][:place] + noise + records[hit][min(len(records[hit]), place + removed) :]
    lost = {hit}
    if kind in ("jsonl", "arc") and not records[hit].endswith(b"\n"):
        lost.add(hit + 1)  # its line goes on in the next one
    whole, _ = _account(tmp_path_factory.getbasetemp() / "f", _form(kind), b"".join(records))
    assert whole >= _urls([number for n, number in enumerate(numbers) if n not in lost])


@pytest.mark.parametrize("kind", STREAMS)
@given(share=st.floats(0, 1), seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_a_cut_file_gives_what_is_before_the_cut(tmp_path_factory, kind, share, seed):
    records = _records(kind, [seed * 6 + n for n in range(6)])
    data = b"".join(records)
    data = data[: int(share * len(data))]
    before, size = [], 0
    for n, record in enumerate(records):
        size += len(record)
        if size <= len(data):
            before.append(seed * 6 + n)
    whole, _ = _account(tmp_path_factory.getbasetemp() / "f", _form(kind), data)
    assert whole >= _urls(before)


@pytest.mark.parametrize("form", ["warc", "jsonl"])
@given(kinds=st.data(), seed=st.integers(0, 10**6), rubbish=st.binary(max_size=50))
@settings(max_examples=40, deadline=None)
def test_kinds_may_alternate_in_one_file(tmp_path_factory, form, kinds, seed, rubbish):
    usable = [kind for kind in STREAMS if _form(kind) == form]
    chosen = kinds.draw(st.lists(st.sampled_from(usable), min_size=1, max_size=8))
    numbers = [seed * 8 + n for n in range(len(chosen))]
    data = b"".join(_records(kind, [number])[0] for kind, number in zip(chosen, numbers, strict=True))
    whole, items = _account(tmp_path_factory.getbasetemp() / "f", form, data)
    assert (whole, len(items)) == (_urls(numbers), len(numbers))
    behind, _ = _account(tmp_path_factory.getbasetemp() / "f", form, data + b"\n" + rubbish)
    assert behind >= _urls(numbers)


@given(place=st.integers(0, 10**6), noise=st.binary(min_size=1, max_size=30), cut=st.booleans())
@settings(max_examples=40, deadline=None)
def test_parquet_adds_up_and_keeps_its_other_row_groups(tmp_path_factory, place, noise, cut):
    numbers = list(range(8))
    data = _row_group(numbers)
    file = pq.ParquetFile(io.BytesIO(data))
    borders = [4, *(parquet._end(file, group) for group in range(4))]
    place %= len(data) if cut else borders[-1]
    harmed = data[:place] if cut else data[:place] + noise + data[place + len(noise) :]
    whole, _ = _account(tmp_path_factory.getbasetemp() / "f", "parquet", harmed)
    hit = [n for n in range(4) if place < borders[n + 1] and place + len(noise) > borders[n]]
    if not cut and place >= 4 and place + len(noise) <= borders[-1]:
        assert whole >= _urls([number for number in numbers if number // 2 not in hit])


# --- of a source -------------------------------------------------------------------------------


def test_the_account_of_a_source(tmp_path, make_recipe, runner):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.warc.gz").write_bytes(b"".join([*_records("warc.gz", [1, 2]), b"rubbish", *_records("warc.gz", [3])]))
    (folder / "b.warc").write_bytes(
        _warc(4) + _warc(5).replace(b"response", b"metadata") + _warc(6).replace(b" 200 ", b" 404 ")
    )
    (folder / "c.warc").write_bytes(b"no archive")
    (folder / "notes.csv").write_bytes(b"12345")
    recipe = make_recipe({"s": {"path": str(folder), "format": "warc"}}, extract={"task_bytes": 1})
    counts = extract.build(recipe, tmp_path / "out", tmp_path / "work", runner)
    found = counts["sources"]["s"]["account"]
    assert found["files"] == {
        "found": 4,
        "read": 2,
        "refused": {"broken_warc": 1},
        "passed_over": {"another ending": 1},
    }
    assert found["records"] == {
        "found": 8,
        "read": 4,
        "refused": {"broken_warc": 2, "http_status": 1},
        "passed_over": {"metadata": 1},
    }
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert found["bytes"]["found"] == sum(sizes.values())
    assert found["bytes"]["passed_over"] == {"metadata": len(_warc(5)), "another ending": 5}
    assert found["bytes"]["refused"]["broken_warc"] == 7 + 10
    told = extract.remarks(counts)
    assert told[0] == "s: 4 files = 2 read + 1 refused (broken_warc 1) + 1 passed over (another ending 1: notes.csv)"
    assert told[1].startswith("s: 8 records = 4 read + 3 refused (broken_warc 2; http_status 1) + 1 passed over")


def test_a_source_that_was_read_in_full_takes_one_line(tmp_path, make_recipe, runner):
    (tmp_path / "a.jsonl").write_bytes(_line(1) + _line(2))
    counts = extract.build(
        make_recipe({"s": {"path": str(tmp_path / "a.jsonl")}}), tmp_path / "o", tmp_path / "w", runner
    )
    (line,) = extract.remarks(counts)
    assert line.startswith("s: 1 file, 2 records, ")
    assert line.endswith("everything was read")


def test_what_lies_beyond_max_bytes_is_counted(tmp_path, make_recipe, runner):
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / f"in/{name}.jsonl").write_bytes(_line(1) + _line(1))
    source = {"path": str(tmp_path / "in"), "max_bytes": len(_text(1).encode()) * 3}
    counts = extract.build(make_recipe({"s": source}), tmp_path / "o", tmp_path / "w", runner)
    found = counts["sources"]["s"]["account"]
    assert found["files"] == {"found": 3, "read": 2, "refused": {}, "passed_over": {account.BEYOND_LIMIT: 1}}
    assert found["bytes"]["passed_over"] == {account.BEYOND_LIMIT: found["bytes"]["found"] - found["bytes"]["read"]}


def test_a_file_that_changes_while_it_is_read_fails_the_run(tmp_path, make_recipe, runner, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(_line(1))
    listed = sources.list_files

    def then_grow(recipe):
        found = listed(recipe)
        path.write_bytes(_line(1) + _line(2))
        return found

    monkeypatch.setattr(sources, "list_files", then_grow)
    with pytest.raises(UserError, match=r"bytes, but .* were read, refused or passed over.*leave its files unchanged"):
        extract.build(make_recipe({"s": {"path": str(path)}}), tmp_path / "o", tmp_path / "w", runner)


def test_a_reader_that_stops_before_the_end_is_a_fault(tmp_path, monkeypatch):
    def lazy(location, settings):
        return 3
        yield

    monkeypatch.setitem(formats.FORMATS, "jsonl", lazy)
    (tmp_path / "a").write_bytes(b"12345")
    with pytest.raises(AssertionError, match="stopped at byte 3 of 5"):
        list(formats.read(tmp_path / "a", "jsonl", Settings(MAX)))


def test_texts_that_look_like_html_are_reported_and_missing_fields_named(tmp_path, make_recipe, runner):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "<div><p>글</p></div>"}) + "\n")
    counts = extract.build(make_recipe({"s": {"path": str(path)}}), tmp_path / "o", tmp_path / "w", runner)
    assert extract.remarks(counts)[-1].startswith("s: 1 of 1 texts look like HTML")
    path.write_text(json.dumps({"content": "글", "meta": {"url": "x"}}) + "\n")
    with pytest.raises(UserError, match=r"its first record has content, meta, meta\.url.*sources\.s\.text_field"):
        extract.build(make_recipe({"s": {"path": str(path)}}), tmp_path / "o2", tmp_path / "w2", runner)
