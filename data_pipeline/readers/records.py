"""Documents, rejects and their reasons; and the step from bytes or markup to text.

Contract: the reader of a format yields a `Record` per record, and returns the raw offset at which it ended. `finish`
turns a record's `Raw` text into a `Document`. Nothing here opens a file.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from data_pipeline.readers import addresses, charset, html, normalize

REASONS: dict[str, str] = {
    "unreadable_file": "the file system refused or lost the file",
    "broken_compression": "compressed data ends early or fails its checksum; everything before and after it is read",
    "broken_warc": "part of a WARC or ARC file is damaged; everything before and after it is read",
    "broken_parquet": "not Parquet, or a damaged row group; the other row groups are read",
    "not_json": "the line or element is not JSON",
    "not_an_object": "the line or element is JSON but not an object",
    "no_text_field": "neither `text_field` nor `html_field` contains text; the detail names the fields that were seen",
    "unknown_encoding": "no character set decodes the bytes",
    "too_long": "longer than data.extract.max_document_bytes",
    "too_deep": "HTML nested deeper than any page written by people",
    "http_status": "an archived response with a status other than 200",
    "not_html": "an archived response or resource that is not HTML",
    "empty": "no text is left after extraction",
}
"""Every reason for a reject, and its meaning."""

DAMAGE = frozenset(
    {
        *("unreadable_file", "broken_compression", "broken_warc", "broken_parquet"),
        *("not_json", "not_an_object", "unknown_encoding"),
    }
)
"""Rejects at which `data.extract.broken_files: stop` stops; the others are intact input that is not wanted."""

_LABEL_MAX_CHARACTERS = 200
_CLOSING_TAGS = re.compile(r"(?i)</(?:p|div|span|a|li|ul|td|tr|table|b|strong|em|h[1-6]|body|html)>")
_PROBED_CHARACTERS = 100_000


@dataclass(frozen=True)
class Settings:
    """How records become text; the defaults are a recipe's."""

    max_bytes: int
    """Of a document, raw and as text."""
    code: bool = False
    """Skips mojibake repair, because odd strings in programs are intended."""
    text_field: str = "text"
    html_field: str = "html"
    url_field: str | None = None
    id_field: str = "id"
    extractor: html.Extractor = "combined"
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
    markup: bool = False
    """Whether a field of plain text looks like HTML."""


@dataclass(frozen=True)
class Reject:
    """A record or file without a document; `reason` is a key of `REASONS`."""

    index: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Passed:
    """A record of a kind that is not read, such as a WARC `request`."""

    index: int
    kind: str


@dataclass(frozen=True)
class Raw:
    """A record before normalisation."""

    text: str
    encoding: str
    raw_id: str | None = None
    url: str | None = None
    license: str | None = None
    markup: bool = False


class Rejected(Exception):
    """The record is rejected; carries the reason to the caller."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(reason)


class PassedOver(Exception):
    """The record is of a kind that is not read; carries the kind to the caller."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(kind)


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file, before its text is made."""

    index: int
    make: Callable[[], Raw]
    """Makes the text; raises `Rejected` or `PassedOver`."""
    end: int
    """Raw offset behind it, as far as it is known."""


def rejecting(reason: str, detail: str) -> Callable[[], Raw]:
    """The function of a record that is known to be rejected."""
    return functools.partial(_raise, Rejected(reason, detail))


def passing(kind: str) -> Callable[[], Raw]:
    """The function of a record that is passed over."""
    return functools.partial(_raise, PassedOver(kind))


def _raise(error: Exception) -> Raw:
    raise error


def finish(index: int, raw: Raw, settings: Settings) -> Document:
    """Repair and normalise a text; raise `Rejected` if nothing or too much is left."""
    repaired = raw.text if settings.code else normalize.repair(raw.text)
    text = normalize.normalise(repaired, settings.unicode)
    if not text.strip():
        raise Rejected("empty")
    if len(text) > settings.max_bytes or len(text.encode()) > settings.max_bytes:
        raise Rejected("too_long", f"text above {settings.max_bytes} bytes")
    return Document(index, text, raw.encoding, raw.raw_id, raw.url, raw.license, raw.markup)


def from_fields(fields: Mapping[str, Any], encoding: str, settings: Settings) -> Raw:
    """The text of a JSON object or a table row; strings may also be undecoded bytes."""
    page = addresses.lookup(fields, settings.html_field)
    text = None if settings.html_field == settings.text_field else addresses.lookup(fields, settings.text_field)
    if isinstance(text, bytes):
        text, encoding = decoded(limited(text, settings), None)
    if isinstance(text, str) and (text.strip() or not page):
        return _labelled(Raw(text, encoding, markup=_looks_like_html(text)), fields, settings)
    if isinstance(page, bytes):
        return _labelled(from_page(limited(page, settings), None, settings), fields, settings)
    if isinstance(page, str):
        return _labelled(Raw(main_text(page, settings), encoding), fields, settings)
    seen = "" if text is None else f"{settings.text_field} is of type {type(text).__name__}; "
    raise Rejected("no_text_field", (seen + ", ".join(_names(fields)))[:200])


def _names(fields: Mapping[str, Any]) -> list[str]:
    """The names of a record's fields, and of those in them."""
    inner = {name: addresses.as_mapping(value) or {} for name, value in fields.items()}
    return sorted(".".join(map(str, path)) for name in fields for path in [(name,), *((name, k) for k in inner[name])])


def _looks_like_html(text: str) -> bool:
    return text.count("</") > 1 and len(_CLOSING_TAGS.findall(text, 0, _PROBED_CHARACTERS)) > 1


def from_page(data: bytes, http_charset: str | None, settings: Settings) -> Raw:
    """The main text of an HTML page in any character set."""
    page, encoding = decoded(data, http_charset or charset.declared_in_html(data))
    return Raw(main_text(page, settings), encoding)


def main_text(page: str, settings: Settings) -> str:
    """`html.main_text`, but raises `Rejected`."""
    try:
        return html.main_text(page, settings.extractor)
    except html.TooDeep as error:
        raise Rejected("too_deep", str(error)) from None


def decoded(data: bytes, declared: str | None) -> tuple[str, str]:
    """`charset.decode`, but raises `Rejected`."""
    try:
        return charset.decode(data, declared)
    except charset.UnknownEncoding as error:
        raise Rejected("unknown_encoding", str(error)) from None


def limited(data: bytes, settings: Settings) -> bytes:
    """`data`, unless it is longer than a document may be."""
    if len(data) > settings.max_bytes:
        raise Rejected("too_long", f"{len(data)} bytes, above {settings.max_bytes}")
    return data


def label(value: Any) -> str | None:
    """A record's own id or license if it is usable as a name: printable and not too long."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if value.bit_length() <= 64 else None
    found = printable(value)
    return found if found and len(found) <= _LABEL_MAX_CHARACTERS else None


def printable(value: Any) -> str | None:
    """A non-empty string (or bytes in UTF-8) without control characters; else None."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value and value.isprintable() else None


def _labelled(raw: Raw, fields: Mapping[str, Any], settings: Settings) -> Raw:
    stated = addresses.lookup(fields, settings.url_field) if settings.url_field else None
    return replace(
        raw,
        raw_id=label(addresses.lookup(fields, settings.id_field)),
        url=addresses.cleaned(stated) or addresses.find(fields) or printable(fields.get("url")),
        license=_license(fields),
    )


def _license(fields: Mapping[str, Any]) -> str | None:
    """The license that a record states, in its fields or in its metadata; several are joined by commas."""
    for holder in addresses.holders(fields):
        for name in ("license", "licence", "licenses", "licences"):
            stated = holder.get(name)
            parts = stated if isinstance(stated, list) else [stated]
            if usable := [part for part in map(label, parts) if part]:
                return label(", ".join(usable)) or usable[0]
    return None
