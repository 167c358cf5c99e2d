"""Every kind of hostile file in small, made here, so that it is tested where the corpus is not."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_pipeline.readers.formats import Document, Settings, read

ROOT = Path(__file__).resolve().parent.parent.parent
KOREAN = "가을 하늘은 높고 푸르다. 아이들은 운동장에서 공을 차며 논다."
LONG = KOREAN * 5
ENGLISH = "The harbour was quiet that night, and nobody saw the ship leave."
PAGE = f"<html><body><p>{KOREAN}</p><p>{KOREAN}</p></body></html>"
MAX = 100_000


def _lines(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


def _distinct(count: int) -> list[str]:
    """Texts that do not compress well, so that a cut falls between them."""
    return [f"{number} " + " ".join(str(number * 7919 * step % 99991) for step in range(60)) for number in range(count)]


def _flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def _outcome(path: Path, form: str, data: bytes, **settings: Any) -> list[str]:
    """Texts of documents and `!reason` of rejects, in order."""
    path.write_bytes(data)
    found = read(path, form, Settings(**{"max_bytes": MAX, **settings}))
    return [item.text if isinstance(item, Document) else f"!{item.reason}" for item in found]


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


MANY = _distinct(2_000)
WHOLE = _lines(*MANY)


@pytest.mark.parametrize(
    ("data", "at_least"),
    [
        (gzip.compress(WHOLE)[:-200_000], 500),
        (_zstd(WHOLE)[:-200_000], 500),
        (_flipped(gzip.compress(WHOLE), -6), 2_000),
        (_flipped(_zstd(WHOLE), -2), 1_700),
    ],
    ids=["cut gzip", "cut zstd", "wrong gzip checksum", "wrong zstd checksum"],
)
def test_damaged_compression_gives_what_stands_before_it(tmp_path, data, at_least):
    *texts, reject = _outcome(tmp_path / "f", "jsonl", data)
    assert reject == "!broken_compression"
    assert texts == MANY[: len(texts)]
    assert len(texts) >= at_least


@pytest.mark.parametrize("compress", [gzip.compress, _zstd])
def test_a_flipped_bit_is_told(tmp_path, compress):
    data = compress(WHOLE)
    found = _outcome(tmp_path / "f", "jsonl", _flipped(data, len(data) // 2))
    assert found[-1] == "!broken_compression"
    assert found[:100] == MANY[:100]


SOUND: dict[str, tuple[bytes, list[str]]] = {
    "members, one empty": (gzip.compress(_lines("a")) + gzip.compress(b"") + gzip.compress(_lines("b")), ["a", "b"]),
    "padded gzip": (gzip.compress(_lines("a")) + bytes(512), ["a"]),
    "zstd frames": (_zstd(_lines("a")) + _zstd(_lines("b")), ["a", "b"]),
    "nothing": (b"", []),
    "gzip of nothing": (gzip.compress(b""), []),
    "blank lines, no line end": (b'\r\n\n{"text": "a"}\r\n \n\n{"text": "b"}', ["a", "b"]),
    "byte order mark": (b"\xef\xbb\xbf" + _lines(KOREAN), [KOREAN]),
    "utf-16": (_lines(KOREAN, "b").decode().encode("utf-16"), [KOREAN, "b"]),
    "utf-16-be": (b"\xfe\xff" + _lines(KOREAN).decode().encode("utf-16-be"), [KOREAN]),
    "cp949": (_lines(KOREAN, "똠방각하는 " + KOREAN).decode().encode("cp949"), [KOREAN, "똠방각하는 " + KOREAN]),
    "escaped controls": (json.dumps({"text": "가\x00나\x07\u200b다\u202e\ufeff라"}).encode(), ["가나다라"]),
    "repeated key": (b'{"text": "a", "text": "b"}', ["b"]),
    "cut letter": (_lines(LONG)[:-5], ["!not_json"]),
    "invalid utf-8": (_lines(LONG).replace("운".encode(), b"\xff", 1), [LONG.replace("운", "�", 1)]),
    "double encoding": (_lines(KOREAN.encode().decode("latin-1")), [KOREAN]),
    "utf-8 read as cp949": (_lines("경상북도".encode().decode("cp949")), ["경상북도"]),
    "decomposed": (_lines("\u1112\u1161\u11ab\u1100\u1173\u11af"), ["한글"]),
    "full width": (_lines("Ｔｈｅ"), ["Ｔｈｅ"]),
    "no space": (_lines("가나다" * 10_000), ["가나다" * 10_000]),
    "mixed languages": (_lines(f"{KOREAN}\n{ENGLISH}"), [f"{KOREAN}\n{ENGLISH}"]),
    "long line": (_lines("a", "b" * MAX, "c"), ["a", "!too_long", "c"]),
}


@pytest.mark.parametrize("kind", SOUND)
def test_json_lines(tmp_path, kind):
    data, expected = SOUND[kind]
    assert _outcome(tmp_path / "f.jsonl.gz", "jsonl", data) == expected


PAGES: dict[str, tuple[bytes, list[str]]] = {
    "euc-kr": (PAGE.replace("<body>", '<meta charset="euc-kr"><body>').encode("euc-kr"), [KOREAN] * 2),
    "euc-kr undeclared": (PAGE.encode("euc-kr"), [KOREAN] * 2),
    "euc-kr declared utf-8": (PAGE.replace("<body>", '<meta charset="utf-8"><body>').encode("euc-kr"), [KOREAN] * 2),
    "mojibake": (PAGE.encode("euc-kr").decode("latin-1").encode(), [KOREAN] * 2),
    "unclosed": (("<html><body>" + f"<p>{KOREAN}" * 3).encode(), [KOREAN] * 3),
    "references": (
        ("<p>" + "".join(f"&#{ord(c)};" for c in KOREAN) + "</p><p>x&#0;&#x110000;&#xD800;&bogus;</p>").encode(),
        [KOREAN, "x���&bogus;"],
    ),
    "script only": (b"<html><script>var x = '" + b"x" * 5_000 + b"';</script><style>p{}</style></html>", ["!empty"]),
    "deep": (b"<div><span>" * 5_000 + b"x", ["!too_deep"]),
    "long": (b"<p>" + b"x" * MAX, ["!too_long"]),
}


@pytest.mark.parametrize("kind", PAGES)
def test_pages(tmp_path, kind):
    data, expected = PAGES[kind]
    (found,) = _outcome(tmp_path / "f.html", "html", data)
    assert [line for line in found.split("\n") if line] == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (KOREAN.encode() + bytes(300) + KOREAN.encode(), KOREAN + KOREAN),
        (KOREAN.encode("cp949"), KOREAN),
        (bytes(range(128, 256)) * 40 + b"\x00\x01\x02" * 50, "!unknown_encoding"),
        (b"\x00" * 500, "!empty"),
        (b"x" * (MAX + 1), "!too_long"),
    ],
)
def test_text_files(tmp_path, data, expected):
    assert _outcome(tmp_path / "f.txt", "text", data) == [expected]


# --- memory ------------------------------------------------------------------------------------

BOUND_BYTES = 100_000_000
"""What reading may add to the process: a dozen documents of 8 MB; the bombs hold 200 MB and more."""


def _grown_bytes(path: Path, form: str) -> tuple[int, list[str]]:
    """How much a fresh process grows by reading a file with the default limit, and what it got.

    The kernel's high-water mark is read from /proc, since `getrusage` goes on from the parent's.
    """
    code = f"""
        import re
        from pathlib import Path
        from data_pipeline.readers import formats as readers
        def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
        warm = Path({str(path)!r} + ".warm")
        warm.write_text('{{"text": "가"}}', encoding="utf-8")
        list(readers.read(warm, "jsonl", readers.Settings(8_000_000)))
        before = peak()
        found = readers.read(Path({str(path)!r}), {form!r}, readers.Settings(8_000_000))
        reasons = [getattr(item, "reason", "document") for item in found]
        print(peak() - before, *reasons)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    grown, *reasons = done.stdout.split()
    return int(grown), reasons


def _bomb_json() -> bytes:
    return zstandard.ZstdCompressor().compress(b'{"text": "' + b"a" * 200_000_000 + b'"}')


def _bomb_warc() -> bytes:
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + b"a" * 200_000_000
    head = f"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\nContent-Length: {len(body)}\r\n\r\n"
    return gzip.compress(head.encode() + body + b"\r\n\r\n", 1)


def _bomb_parquet() -> bytes:
    """60 rows that all refer to one string of 9 MB."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 60, pa.int32()), pa.array(["a" * 9_000_000]))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": text}), sink, compression="zstd", store_schema=False)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("form", "make", "expected"),
    [
        ("jsonl", _bomb_json, ["too_long"]),
        ("html", _bomb_json, ["too_long"]),
        ("warc", _bomb_warc, ["too_long"]),
        ("parquet", _bomb_parquet, ["too_long"] * 60),
        ("jsonl", lambda: _zstd(_lines("가나다라마바사 " * 280_000)), ["document"]),
    ],
    ids=["bomb of JSON", "bomb of HTML", "bomb in WARC", "bomb in Parquet", "line of 6 MB"],
)
def test_memory_is_bounded(tmp_path: Path, form: str, make: Callable[[], bytes], expected: list[str]) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(make())
    assert path.stat().st_size < 3_000_000
    grown, reasons = _grown_bytes(path, form)
    assert reasons == expected
    assert grown < BOUND_BYTES
