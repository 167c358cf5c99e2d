"""Raw files -> documents and rejects, whatever is in them; the only module that imports fastwarc.

Contract: `read` yields a `Document` or a `Reject` for every record, in file order, and raises
nothing that a file's content could cause; what stands before a damage is still read. `index` is the
record's place in its file: the line of JSON Lines, the ordinal of a WARC response, 0 for files that
are one document; all from 0. Memory is bounded by a few times `max_bytes`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.reading import charset, html, normalise, streams

REASONS: dict[str, str] = {
    "unreadable_file": "the file system refused or lost the file",
    "broken_compression": "gzip or zstd data ends early or fails its checksum; what came before is read",
    "broken_warc": "the WARC structure or its gzip members are damaged; what came before is read",
    "not_json": "the line is not JSON",
    "not_an_object": "the line is JSON but no object",
    "no_text_field": "neither `text` nor `html` holds a string",
    "unknown_encoding": "no character set turns the bytes into text",
    "too_long": "longer than data.extract.max_document_bytes",
    "too_deep": "HTML nested deeper than any page that people wrote",
    "http_status": "a WARC response other than 200",
    "not_html": "a WARC response that is not HTML",
    "empty": "no text is left after extraction",
}
"""Every reason for a reject, and what it means."""

DAMAGE = frozenset(
    ("unreadable_file", "broken_compression", "broken_warc", "not_json", "not_an_object", "unknown_encoding")
)
"""Rejects that `data.extract.broken_files: stop` stops at; the others are sound input that is not wanted."""

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_ID_MAX_CHARACTERS = 200


@dataclass(frozen=True)
class Document:
    """One document: its normalised text and where it came from."""

    index: int
    text: str
    encoding: str
    raw_id: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Reject:
    """One record or file that gave no document; `reason` is a key of `REASONS`."""

    index: int
    reason: str
    detail: str


class _Rejected(Exception):
    """Carries the reason for rejecting one record out of the functions that make its text."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(reason)


def read(path: Path, form: str, max_bytes: int, code: bool = False) -> Iterator[Document | Reject]:
    """Read one file of format `form` (html, warc, jsonl, text).

    `max_bytes` bounds a document, raw and as text. `code` leaves out mojibake repair, since a
    program's odd strings are meant.
    """
    index = 0
    finish = _Finish(max_bytes, code)
    try:
        for index, make in _FORMATS[form](path, max_bytes):
            try:
                yield finish(index, make())
            except _Rejected as rejected:
                yield Reject(index, rejected.reason, rejected.detail)
        return
    except streams.BrokenStream as error:
        reason, detail = "broken_compression", str(error)
    except _Rejected as rejected:
        reason, detail = rejected.reason, rejected.detail
    except OSError as error:
        reason, detail = "unreadable_file", error.strerror or str(error)
    yield Reject(index, reason, detail)


@dataclass(frozen=True)
class _Raw:
    """A record before normalisation."""

    text: str
    encoding: str
    raw_id: str | None = None
    url: str | None = None


_Record = tuple[int, Callable[[], _Raw]]
"""A record's index and the work that makes its text or raises `_Rejected`."""


@dataclass(frozen=True)
class _Finish:
    max_bytes: int
    code: bool

    def __call__(self, index: int, raw: _Raw) -> Document:
        text = normalise.normalise(raw.text if self.code else normalise.repair(raw.text))
        if not text.strip():
            raise _Rejected("empty")
        if len(text) > self.max_bytes or len(text.encode()) > self.max_bytes:
            raise _Rejected("too_long", f"text above {self.max_bytes} bytes")
        return Document(index, text, raw.encoding, raw.raw_id, raw.url)


def _html_file(path: Path, max_bytes: int) -> Iterator[_Record]:
    yield 0, lambda: _page(_whole(path, max_bytes), None)


def _text_file(path: Path, max_bytes: int) -> Iterator[_Record]:
    yield 0, lambda: _Raw(*_decoded(_whole(path, max_bytes), None))


def _json_lines(path: Path, max_bytes: int) -> Iterator[_Record]:
    for index, line in enumerate(streams.lines(path, max_bytes)):
        if isinstance(line, streams.LineTooLong) or line.strip():
            yield index, lambda line=line: _json_record(line, max_bytes)  # type: ignore[misc]


def _json_record(line: bytes | streams.LineTooLong, max_bytes: int) -> _Raw:
    if isinstance(line, streams.LineTooLong):
        raise _Rejected("too_long", f"line above {max_bytes} bytes")
    decoded, encoding = _decoded(line, None)
    try:
        record = json.loads(decoded)
    except (ValueError, RecursionError) as error:
        raise _Rejected("not_json", str(error)[:200]) from None
    if not isinstance(record, dict):
        raise _Rejected("not_an_object", type(record).__name__)
    text, page = record.get("text"), record.get("html")
    if isinstance(text, str):
        body = text
    elif isinstance(page, str):
        body = _main_text(page)
    else:
        raise _Rejected("no_text_field", ", ".join(sorted(map(str, record)))[:200])
    return _Raw(body, encoding, _usable_id(record.get("id")), _printable(record.get("url")))


def _warc(path: Path, max_bytes: int) -> Iterator[_Record]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with path.open("rb") as raw:
        iterator = ArchiveIterator(raw, record_types=WarcRecordType.response, auto_decode="all")
        index = -1
        while True:
            try:
                record = next(iterator, None)
                index += 1
                if record is None:
                    return
                declared_bytes = record.content_length
                body = record.reader.read(max_bytes + 1)
            except OSError as error:
                yield index + 1, _rejecting("broken_warc", str(error))
                return
            headers = record.http_headers
            is_cut = headers is not None and not _is_encoded(headers) and len(body) < min(declared_bytes, max_bytes)
            if is_cut:
                yield index, _rejecting("broken_warc", f"record ends after {len(body)} of {declared_bytes} bytes")
            else:
                yield index, lambda record=record, body=body: _warc_record(record, body, max_bytes)  # type: ignore[misc]


def _warc_record(record: Any, body: bytes, max_bytes: int) -> _Raw:
    status = record.http_headers.status_code if record.http_headers is not None else None
    if status != 200:
        raise _Rejected("http_status", str(status))
    kind = (record.http_content_type or "").lower()
    if kind not in _HTML_TYPES:
        raise _Rejected("not_html", kind[:80])
    if len(body) > max_bytes:
        raise _Rejected("too_long", f"page above {max_bytes} bytes")
    page = _page(body, record.http_charset)
    identity, url = (_without_brackets(value) for value in (record.record_id, record.headers.get("WARC-Target-URI")))
    return _Raw(page.text, page.encoding, _usable_id(identity), url)


def _without_brackets(value: Any) -> str | None:
    """A WARC header's `<urn:…>` as `urn:…`."""
    found = _printable(value)
    return found and found.strip("<>")


def _is_encoded(headers: Any) -> bool:
    """Whether the body's length as read differs from its length on the wire."""
    return bool(headers.get("Content-Encoding") or headers.get("Transfer-Encoding"))


def _rejecting(reason: str, detail: str) -> Callable[[], _Raw]:
    def reject() -> _Raw:
        raise _Rejected(reason, detail)

    return reject


def _page(data: bytes, http_charset: str | None) -> _Raw:
    page, encoding = _decoded(data, http_charset or charset.declared_in_html(data))
    return _Raw(_main_text(page), encoding)


def _main_text(page: str) -> str:
    try:
        return html.main_text(page)
    except html.TooDeep as error:
        raise _Rejected("too_deep", str(error)) from None


def _whole(path: Path, max_bytes: int) -> bytes:
    data = streams.read_all(path, max_bytes)
    if data is None:
        raise _Rejected("too_long", f"file above {max_bytes} bytes")
    return data


def _decoded(data: bytes, declared: str | None) -> tuple[str, str]:
    try:
        return charset.decode(data, declared)
    except charset.UnknownEncoding as error:
        raise _Rejected("unknown_encoding", str(error)) from None


def _usable_id(value: Any) -> str | None:
    """A record's own id where it can name a document: printable and of sensible length."""
    identity = _printable(value)
    return identity if identity and len(identity) <= _ID_MAX_CHARACTERS else None


def _printable(value: Any) -> str | None:
    return value if isinstance(value, str) and value and value.isprintable() else None


_FORMATS: dict[str, Callable[[Path, int], Iterator[_Record]]] = {
    "html": _html_file,
    "text": _text_file,
    "jsonl": _json_lines,
    "warc": _warc,
}
