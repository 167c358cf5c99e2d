"""What reading gives: documents, rejects and their reasons; and the step from bytes or markup to text.

Contract: a reader of a format yields a `Record` for each record it meets: the index, and the work
that makes its `Raw` text or raises `Rejected`. `finish` turns a `Raw` into a `Document`. Nothing
here opens a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from data_pipeline.readers import charset, html, normalize

REASONS: dict[str, str] = {
    "unreadable_file": "the file system refused or lost the file",
    "broken_compression": "gzip or zstd data ends early or fails its checksum; what came before is read",
    "broken_warc": "a stretch of a WARC or ARC file is damaged; what stands before and after it is read",
    "broken_parquet": "no Parquet, or a damaged row group; the other row groups are read",
    "not_json": "the line is not JSON",
    "not_an_object": "the line is JSON but no object",
    "no_text_field": "neither the text field nor `html` holds text",
    "unknown_encoding": "no character set turns the bytes into text",
    "too_long": "longer than data.extract.max_document_bytes",
    "too_deep": "HTML nested deeper than any page that people wrote",
    "http_status": "a WARC response other than 200",
    "not_html": "a WARC response that is not HTML",
    "empty": "no text is left after extraction",
}
"""Every reason for a reject, and what it means."""

DAMAGE = frozenset(
    {
        *("unreadable_file", "broken_compression", "broken_warc", "broken_parquet"),
        *("not_json", "not_an_object", "unknown_encoding"),
    }
)
"""Rejects that `data.extract.broken_files: stop` stops at; the others are sound input that is not wanted."""

_LABEL_MAX_CHARACTERS = 200


@dataclass(frozen=True)
class Settings:
    """How records become text; the defaults are those of a recipe."""

    max_bytes: int
    """Of a document, raw and as text."""
    code: bool = False
    """Leaves out mojibake repair, since a program's odd strings are meant."""
    text_field: str = "text"
    id_field: str = "id"
    extractor: html.Extractor = "resiliparse"
    unicode: normalize.Form = "NFC"


@dataclass(frozen=True)
class Document:
    """One document: its normalised text and where it came from."""

    index: int
    text: str
    encoding: str
    raw_id: str | None = None
    url: str | None = None
    license: str | None = None
    """The record's own, if it has one."""


@dataclass(frozen=True)
class Reject:
    """One record or file that gave no document; `reason` is a key of `REASONS`."""

    index: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Raw:
    """A record before normalisation."""

    text: str
    encoding: str
    raw_id: str | None = None
    url: str | None = None
    license: str | None = None


class Rejected(Exception):
    """Carries the reason for rejecting one record out of the functions that make its text."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(reason)


Record = tuple[int, Callable[[], Raw]]
"""A record's index and the work that makes its text or raises `Rejected`."""


def rejecting(reason: str, detail: str) -> Callable[[], Raw]:
    """The work of a record that is known to be rejected."""

    def reject() -> Raw:
        raise Rejected(reason, detail)

    return reject


def finish(index: int, raw: Raw, settings: Settings) -> Document:
    """Repair, normalise and measure a text; raise `Rejected` where nothing or too much is left."""
    repaired = raw.text if settings.code else normalize.repair(raw.text)
    text = normalize.normalise(repaired, settings.unicode)
    if not text.strip():
        raise Rejected("empty")
    if len(text) > settings.max_bytes or len(text.encode()) > settings.max_bytes:
        raise Rejected("too_long", f"text above {settings.max_bytes} bytes")
    return Document(index, text, raw.encoding, raw.raw_id, raw.url, raw.license)


def from_fields(fields: Mapping[str, Any], encoding: str, settings: Settings) -> Raw:
    """The text of a JSON object or a table's row; strings may also be undecoded bytes."""
    text, page = fields.get(settings.text_field), fields.get("html")
    if isinstance(text, bytes):
        text, encoding = decoded(limited(text, settings), None)
    elif isinstance(page, bytes) and not isinstance(text, str):
        return _labelled(from_page(limited(page, settings), None, settings), fields, settings)
    if not isinstance(text, str):
        if not isinstance(page, str):
            raise Rejected("no_text_field", ", ".join(sorted(map(str, fields)))[:200])
        text = main_text(page, settings)
    return _labelled(Raw(text, encoding), fields, settings)


def from_page(data: bytes, http_charset: str | None, settings: Settings) -> Raw:
    """The main text of an HTML page in whatever character set."""
    page, encoding = decoded(data, http_charset or charset.declared_in_html(data))
    return Raw(main_text(page, settings), encoding)


def main_text(page: str, settings: Settings) -> str:
    """`html.main_text`, its refusal as `Rejected`."""
    try:
        return html.main_text(page, settings.extractor)
    except html.TooDeep as error:
        raise Rejected("too_deep", str(error)) from None


def decoded(data: bytes, declared: str | None) -> tuple[str, str]:
    """`charset.decode`, its refusal as `Rejected`."""
    try:
        return charset.decode(data, declared)
    except charset.UnknownEncoding as error:
        raise Rejected("unknown_encoding", str(error)) from None


def limited(data: bytes, settings: Settings) -> bytes:
    """`data`, where it is not longer than a document may be."""
    if len(data) > settings.max_bytes:
        raise Rejected("too_long", f"{len(data)} bytes, above {settings.max_bytes}")
    return data


def label(value: Any) -> str | None:
    """A record's own id or licence where it can name something: printable and of sensible length."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if value.bit_length() <= 64 else None
    found = printable(value)
    return found if found and len(found) <= _LABEL_MAX_CHARACTERS else None


def printable(value: Any) -> str | None:
    """A string, or bytes in UTF-8, that is not empty and holds no control character."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value and value.isprintable() else None


def _labelled(raw: Raw, fields: Mapping[str, Any], settings: Settings) -> Raw:
    license = label(fields.get("licence")) or label(fields.get("license"))
    return Raw(raw.text, raw.encoding, label(fields.get(settings.id_field)), printable(fields.get("url")), license)
