"""WARC and ARC files -> responses, and what is left of damaged ones."""

from __future__ import annotations

import errno
import gzip
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.readers import archive, formats, members
from data_pipeline.readers.formats import Document, Reject, Settings

KOREAN = "가을 하늘은 높고 푸르다. 아이들은 운동장에서 공을 차며 논다."
PAGE = f"<html><body><p>{KOREAN}</p><p>둘째 문단이다.</p></body></html>".encode()
HTML = "text/html"
MAX = 10_000


def _http(status: int, kind: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _warc(*pages: tuple[int, str, bytes]) -> list[bytes]:
    """Uncompressed WARC responses."""
    records = []
    for number, page in enumerate(pages):
        block = _http(*page)
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
            f"WARC-Target-URI: https://example.com/{number}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
            f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
        )
        records.append(head.encode() + block + b"\r\n\r\n")
    return records


def _packed(*pages: tuple[int, str, bytes]) -> list[bytes]:
    """gzip members, one a response."""
    return [gzip.compress(record, mtime=0) for record in _warc(*pages)]


def _read(path: Path, data: bytes, max_bytes: int = MAX) -> list[Document | Reject]:
    path.write_bytes(data)
    return list(formats.read(path, "warc", Settings(max_bytes)))


def _outcome(found: list[Document | Reject]) -> list[str]:
    return [item.reason if isinstance(item, Reject) else "document" for item in found]


def _noise(n_bytes: int) -> bytes:
    return bytes(ord("a") + n * n % 23 for n in range(n_bytes))


def test_html_responses_are_taken_and_the_rest_is_counted(tmp_path):
    body = PAGE.decode().encode("euc-kr")
    members = _packed(
        (200, "text/html; charset=euc-kr", body),
        (404, HTML, body),
        (200, "application/json", b"{}"),
        (200, HTML, b"x" * (MAX + 1)),
        (200, HTML, body),
    )
    found = _read(tmp_path / "f.warc.gz", b"".join(members))
    assert _outcome(found) == ["document", "http_status", "not_html", "too_long", "document"]
    assert [item.index for item in found] == [0, 1, 2, 3, 4]
    assert KOREAN in found[0].text
    assert KOREAN in found[4].text
    assert (found[0].url, found[0].raw_id) == ("https://example.com/0", "urn:uuid:0")


def test_a_cut_is_reported(tmp_path):
    members = _packed(*[(200, HTML, PAGE + _noise(5000))] * 2)
    first, reject = _read(tmp_path / "f", members[0] + members[1][: len(members[1]) // 2])
    assert isinstance(first, Document)
    assert reject.reason == "broken_warc"


@pytest.mark.parametrize("place", [2, 30, -6])
def test_a_damaged_member_costs_itself_only(tmp_path, place):
    members = [bytearray(member) for member in _packed(*[(200, HTML, PAGE + _noise(300 * n)) for n in range(5)])]
    for n in (1, 3):
        members[n][place : place + 4] = bytes(byte ^ 0xFF for byte in members[n][place : place + 4])
    found = _read(tmp_path / "f", b"".join(members))
    urls = [item.url for item in found if isinstance(item, Document)]
    assert {f"https://example.com/{n}" for n in (0, 2, 4)} <= set(urls)
    assert len(urls) == len(set(urls))
    assert _outcome(found).count("broken_warc") == 2


def test_neighbouring_damaged_members_are_one_stretch(tmp_path):
    members = [bytearray(member) for member in _packed(*[(200, HTML, PAGE + _noise(300))] * 5)]
    for n in (1, 2, 3):
        members[n][60:90] = bytes(30)
    found = _read(tmp_path / "f", b"".join(members))
    assert _outcome(found) == ["document", "broken_warc", "document"]
    assert [item.index for item in found] == [0, 1, 2]


def test_a_damaged_header_of_an_uncompressed_file_costs_its_record(tmp_path):
    records = _warc(*[(200, HTML, PAGE)] * 4)
    records[1] = records[1].replace(b"WARC/1.0", b"XXXX/1.0")
    found = _read(tmp_path / "f", b"".join(records))
    assert _outcome(found) == ["document", "broken_warc", "document", "document"]
    assert found[-1].url == "https://example.com/3"


def test_a_record_that_swallows_the_next_is_found_again(tmp_path):
    records = _warc(*[(200, HTML, PAGE)] * 4)
    length = str(len(_http(200, HTML, PAGE))).encode()
    records[1] = records[1].replace(b"Content-Length: " + length, b"Content-Length: 99999999")
    found = _read(tmp_path / "f", b"".join(records))
    assert [item.url[-1] for item in found if isinstance(item, Document)] in (["0", "2", "3"], ["0", "1", "2", "3"])
    assert _outcome(found).count("broken_warc") == 1


def test_the_gzip_magic_inside_a_document_does_not_begin_a_record(tmp_path):
    decoy = b"\x1f\x8b\x08\x00" * 20 + gzip.compress(b"no record, but sound gzip")
    damaged = bytearray(_packed((200, HTML, PAGE + _noise(500)))[0])
    damaged[80:90] = bytes(10)
    found = _read(tmp_path / "f", bytes(damaged) + decoy + _packed((200, HTML, PAGE))[0])
    assert _outcome(found) == ["broken_warc", "document"]
    assert f"; {len(damaged) + len(decoy)} bytes at 0 are not read" in found[0].detail


def test_a_sound_record_is_found_across_blocks_of_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "_SCAN_BYTES", 64)
    for filler in range(40, 140, 7):
        found = _read(tmp_path / "f", b"x" * filler + b"\n" + _warc((200, HTML, PAGE))[0])
        assert _outcome(found) == ["broken_warc", "document"]


def test_however_many_damages_a_file_has_it_is_read_to_its_end(tmp_path):
    sound, broken = _packed(*[(200, HTML, PAGE)] * 2)
    found = _read(tmp_path / "f", (sound + broken[:-20]) * 300 + sound)
    assert _outcome(found) == ["document", "broken_warc"] * 300 + ["document"]


def test_not_a_warc(tmp_path):
    assert _outcome(_read(tmp_path / "f", b"this is no archive\n" * 50)) == ["broken_warc"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_an_error_of_the_file_system_is_no_damage(tmp_path, monkeypatch, number):
    def fail(self):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(archive.Records, "_entry", fail)
    data = b"".join(_packed((200, HTML, PAGE)))
    if number == errno.EIO:  # passes, so the task tries again
        with pytest.raises(OSError, match="Input/output error"):
            _read(tmp_path / "f", data)
    else:
        (reject,) = _read(tmp_path / "f", data)
        assert (reject.reason, reject.detail) == ("unreadable_file", "Permission denied")


# --- ARC ---------------------------------------------------------------------------------------


def _arc(*captures: tuple[str, bytes], version: int = 1) -> list[bytes]:
    fields = "URL IP-address Archive-date Content-type Archive-length"
    if version == 2:
        fields = "URL IP-address Archive-date Content-type Result-code Checksum Location Offset Filename Archive-length"
    block = f"{version} 0 Test\n{fields}\n".encode()
    parts = [f"filedesc://t.arc 0.0.0.0 20140216050221 text/plain {len(block)}\n".encode() + block + b"\n"]
    middle = "0.0.0.0 20140216050221 text/html" + (" 200 - - 0 t.arc" if version == 2 else "")
    return parts + [f"{url} {middle} {len(body)}\n".encode() + body + b"\n" for url, body in captures]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("pack", [bytes, lambda data: gzip.compress(data)])
def test_arc_captures_are_read_like_warc_responses(tmp_path, version, pack):
    captures = [
        ("http://example.com/a b", _http(200, HTML, PAGE)),
        ("dns:example.com", b"1.2.3.4"),
        ("http://example.com/b", _http(404, HTML, PAGE)),
        ("http://example.com/c", _http(200, HTML, b"x" * 90_000)),
        ("http://example.com/d", _http(200, "image/png", b"png")),
        ("http://example.com/e", b"no http"),
        ("http://example.com/f", _http(200, HTML, PAGE)),
    ]
    if version == 2:
        captures[0] = ("http://example.com/ab", captures[0][1])
    parts = _arc(*captures, version=version)
    found = _read(tmp_path / "f.arc", b"".join(pack(part) for part in parts))
    assert _outcome(found) == ["document", "http_status", "too_long", "not_html", "http_status", "document"]
    assert [item.index for item in found] == [0, 1, 2, 3, 4, 5]
    assert (found[0].url, KOREAN in found[0].text) == (captures[0][0], True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda parts: [*parts, b"http://example.com/ 1.1.1.1 20140101 text/html -1\n"],
        lambda parts: [*parts, b"http://example.com/ 20140101 text/html 1\n"],
        lambda parts: [*parts, parts[-1][:-20]],
    ],
)
def test_damaged_arc_gives_its_beginning_and_a_reject(tmp_path, damage):
    parts = damage(_arc(("http://example.com/", _http(200, HTML, PAGE))))
    assert _outcome(_read(tmp_path / "f.arc", b"".join(parts))) == ["document", "broken_warc"]


@pytest.mark.corpus
def test_samples_of_warcio(corpus_dir):
    """Each sample by its documents, its rejects; bad.arc states lengths of -1 and `abc`."""
    broken, none = (0, ["broken_warc"]), (0, [])
    expected = {
        "bad.arc": (0, ["broken_warc"] * 2 + ["http_status"]),
        "example-bad-non-chunked.warc.gz": (1, []),
        "example-digest.warc": none,
        "example-iana.org-chunked.warc": (1, []),
        "example-resource.warc.gz": (1, []),
        "example-space-in-target-uri.warc.gz": (0, ["not_html"]),
        "example-space-in-url.arc": broken,
        "example-trunc.warc": broken,
        "example-wget-bad-target-uri.warc.gz": (1, ["not_html"] * 2),
        "example-wrong-chunks.warc.gz": (1, []),
        "example.arc": (1, []),
        "example.arc.gz": (1, []),
        "example.warc": (1, []),
        "example.warc.gz": (1, []),
        "post-test.warc.gz": (0, ["not_html"] * 3),
    }
    folder = corpus_dir / "general/warc/warcio-samples"
    for name, (documents, rejects) in expected.items():
        found = list(formats.read(folder / name, "warc", Settings(8_000_000)))
        assert sorted(_outcome(found)) == sorted(["document"] * documents + rejects), name
        assert all("Example Domain" in d.text or "iana" in (d.url or "") for d in found if isinstance(d, Document))


@pytest.mark.corpus
def test_whole_archives_hold_what_fastwarc_reads(corpus_dir):
    iterator = pytest.importorskip("fastwarc.warc").ArchiveIterator
    damaged = {"example-trunc.warc"}
    for path in sorted((corpus_dir / "general/warc").rglob("*.warc*")):
        if path.name in damaged:
            continue
        with path.open("rb") as raw, path.open("rb") as again:
            ours = [entry for entry in archive.Records(raw, 10**7) if isinstance(entry, archive.Entry)]
            read = iterator(again, parse_http=False)
            theirs = [(record.headers["WARC-Record-ID"], record.reader.read()) for record in read]
        assert [(entry.headers["warc-record-id"], entry.body) for entry in ours] == theirs


KINDS = ("response", "resource", "conversion", "request", "metadata", "revisit", "warcinfo")


def test_every_kind_of_record_is_read_or_counted(tmp_path):
    records = []
    for number, kind in enumerate(KINDS):
        body = _http(200, HTML, PAGE) if kind == "response" else KOREAN.encode() if kind == "conversion" else PAGE
        content = {"response": "application/http", "conversion": "text/plain"}.get(kind, HTML)
        head = (
            f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Target-URI: <https://example.com/{number}>\r\n"
            f"Content-Type: {content}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        records.append(head.encode() + body + b"\r\n\r\n")
    (tmp_path / "f").write_bytes(b"".join(records))
    found = [item for item, _ in formats.account(tmp_path / "f", "warc", Settings(MAX))]
    assert [item.kind for item in found if isinstance(item, formats.Passed)] == list(KINDS[3:])
    documents = [item for item in found if isinstance(item, Document)]
    assert [(item.index, item.url) for item in documents] == [(n, f"https://example.com/{n}") for n in range(3)]
    assert all(KOREAN in item.text for item in documents)


def test_a_length_that_happens_to_end_with_another_record_hides_none(tmp_path):
    records = _warc(*[(200, HTML, PAGE)] * 4)
    length = len(_http(200, HTML, PAGE))
    records[1] = records[1].replace(f": {length}\r\n\r\n".encode(), f": {length + len(records[2])}\r\n\r\n".encode())
    found = _read(tmp_path / "f", b"".join(records))
    assert [item.url[-1] for item in found if isinstance(item, Document)] == ["0", "2", "3"]


def test_an_archive_within_an_archive_is_one_record(tmp_path):
    inner = b"".join(_warc(*[(200, HTML, PAGE)] * 2))
    found = _read(tmp_path / "f", _warc((200, "application/warc", inner))[0])
    assert _outcome(found) == ["not_html"]


def test_a_page_without_http_headers_is_a_page(tmp_path):
    page = f"<html><body><p>{KOREAN}</p></body></html>".encode("euc-kr")
    head = f"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: %s\r\nContent-Length: {len(page)}\r\n\r\n"
    for kind in ("application/http", "text/html; charset=euc-kr"):
        (document,) = _read(tmp_path / "f", (head % kind).encode() + page + b"\r\n\r\n")
        assert KOREAN in document.text


def test_a_record_may_lie_in_several_members(tmp_path):
    data = b"".join(_warc(*[(200, HTML, PAGE)] * 3))
    members_of_100_bytes = [gzip.compress(data[start : start + 100]) for start in range(0, len(data), 100)]
    assert _outcome(_read(tmp_path / "f", b"".join(members_of_100_bytes))) == ["document"] * 3
    members_of_100_bytes[0] = members_of_100_bytes[0][:20]
    assert _outcome(_read(tmp_path / "f", b"".join(members_of_100_bytes))) == ["broken_warc"] + ["document"] * 2


def test_many_records_in_one_member_lose_only_what_is_damaged(tmp_path):
    pages = [PAGE + random.Random(number).randbytes(500).hex().encode() for number in range(60)]
    records = _warc(*[(200, HTML, page) for page in pages])
    records[0] = records[0].replace(b"WARC/1.0", b"WARC")
    data = gzip.compress(b"".join(records[:40]))
    cut = data[: len(data) - 1_500] + gzip.compress(b"".join(records[40:]))
    found = _read(tmp_path / "f", cut)
    urls = [int(item.url.rsplit("/")[-1]) for item in found if isinstance(item, Document)]
    assert urls[:36] == list(range(1, 37))
    assert urls[-20:] == list(range(40, 60))
    assert _outcome(found)[0] == "broken_warc"


# --- anything ----------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.integers(0, 300), st.booleans())
def test_no_damage_raises_or_hides_the_record_after_it(tmp_path_factory, noise, place, packed):
    first, *rest = (_packed if packed else _warc)(*[(200, HTML, PAGE)] * 3)
    place %= len(first)
    damaged = first[:place] + noise + first[place + len(noise) :]
    found = _read(tmp_path_factory.getbasetemp() / "any", damaged + b"\n" + b"".join(rest))
    urls = [item.url for item in found if isinstance(item, Document)]
    assert all(item.reason in formats.REASONS for item in found if isinstance(item, Reject))
    assert urls[-1:] == ["https://example.com/2"]
