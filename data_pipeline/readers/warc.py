"""The records of WARC and ARC files -> pages and texts.

Contract: `index` counts the records that are read (`response`, `resource`, and `conversion`, as WET files have them)
and the damaged stretches, from 0; records of other kinds (`request`, `metadata`, `revisit`, `warcinfo`, `dns`, …) are
passed over by kind. A damaged stretch gives one `broken_warc` with its offset and size (readers/archive.py).
Encodings are decoded only after the record is known to be whole (readers/http_messages.py).
"""

from __future__ import annotations

import functools
from collections.abc import Generator

from data_pipeline.readers import archive, http_messages
from data_pipeline.readers.members import Damage
from data_pipeline.readers.records import (
    Raw,
    Record,
    Rejected,
    Settings,
    decoded,
    from_page,
    label,
    passing,
    printable,
    rejecting,
)
from data_pipeline.readers.storage import Location, open_binary

_READ = ("response", "resource", "conversion")
_HEADER_BYTES = 65_536
"""Allowed in addition to a document's bytes, because a response starts with its HTTP headers."""


def records(location: Location, settings: Settings) -> Generator[Record, None, int]:
    """Everything in a file, in order; returns where it ended."""
    index = 0
    with open_binary(location) as raw:
        found = archive.Records(raw, settings.max_bytes + _HEADER_BYTES)
        for entry in found:
            if isinstance(entry, Damage):
                yield Record(index, rejecting("broken_warc", str(entry)), entry.end)
            elif entry.kind in _READ:
                yield Record(index, functools.partial(_raw, entry, settings), entry.end)
            else:
                yield Record(index, passing(entry.kind), entry.end)
                continue
            index += 1
        return found.reached


def _raw(entry: archive.Entry, settings: Settings) -> Raw:
    identity, url = (_without_brackets(entry.headers.get(name)) for name in ("warc-record-id", "warc-target-uri"))
    text, encoding = _text(entry, settings)
    return Raw(text, encoding, label(identity), url)


def _text(entry: archive.Entry, settings: Settings) -> tuple[str, str]:
    """The main text of a page, or a conversion's text, and its character set."""
    kind, charset = http_messages.media_type(entry.headers.get("content-type"))
    response = http_messages.parse(entry.body, archive.parse_headers)
    if entry.kind == "response":
        if response.status != 200 and (response.status or not http_messages.looks_like_a_page(entry.body)):
            raise Rejected("http_status", str(response.status))
        if response.status:
            kind, charset = http_messages.media_type(response.headers.get("content-type"))
        else:
            kind = "text/html"
    else:
        response = http_messages.Response(None, {}, entry.body)
    body = http_messages.content(response, settings.max_bytes + 1)
    if kind in http_messages.UNKNOWN_TYPES and http_messages.looks_like_a_page(body):
        kind = "text/html"
    is_text = entry.kind == "conversion" and kind in ("text/plain", "")
    if not is_text and "html" not in kind:  # text/html, application/xhtml+xml, application/vnd.wap.xhtml+xml, …
        raise Rejected("not_html", kind[:80])
    if len(body) > settings.max_bytes:
        raise Rejected("too_long", f"page above {settings.max_bytes} bytes")
    if is_text:
        return decoded(body, charset)
    page = from_page(body, charset, settings)
    return page.text, page.encoding


def _without_brackets(value: str | None) -> str | None:
    """A WARC header's `<urn:…>` as `urn:…`."""
    found = printable(value)
    return found and (found.strip("<>") or None)
