"""WARC and ARC files -> HTTP responses as records; the only module that imports fastwarc.

Contract: `index` counts responses and damaged parts from 0. A damaged part gives one `broken_warc`; reading
resumes at the next gzip member (in an uncompressed file: the next line) that starts a WARC record, so one bad
byte costs one record and not the rest of the file. ARC files, the format before WARC, are detected by content
and end at the first damage. Memory: one response of at most `max_bytes`, and one block of the file while
searching for the next intact record.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from data_pipeline.readers import arc, streams
from data_pipeline.readers.records import Raw, Record, Rejected, Settings, from_page, label, printable, rejecting
from data_pipeline.readers.storage import Location, Unreachable, open_binary

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_GZIP = b"\x1f\x8b"
_WARC = b"WARC/"
_LINE = re.compile(rb"(?<=\n)WARC/1\.[01]\r?\n")
_MEMBER_OR_LINE = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]|" + _LINE.pattern)
_PROBE_BYTES = 4_096
"""Enough of a gzip member to decompress the first bytes of its content."""
_SCAN_BYTES = 1 << 20
_MAX_RESTARTS = 1_000
"""A file with more damaged parts than this is malicious, and its rest is not read."""


def responses(location: Location, settings: Settings) -> Iterator[Record]:
    """The responses of a file in order, HTML or not, and its damaged parts."""
    with open_binary(location) as raw:
        head = raw.read(_PROBE_BYTES)
        raw.seek(0)
        if _opening(head).startswith(arc.MAGIC):
            yield from _arc(raw, settings)
        else:
            # An uncompressed archive may contain a compressed one as a document, which is not searched.
            yield from _warc(raw, settings, _LINE if head.startswith(_WARC) else _MEMBER_OR_LINE)


def _warc(raw: BinaryIO, settings: Settings, beginning: re.Pattern[bytes]) -> Iterator[Record]:
    index = start = 0
    for restart in range(_MAX_RESTARTS):
        raw.seek(start)
        reached, n_records = start, 0
        try:
            for place, record, body in _intact_records(raw, settings):
                reached, n_records = place, n_records + 1
                if record is not None:
                    yield index, lambda record=record, body=body: _page_of(record, body, settings)  # type: ignore[misc]
                    index += 1
            return
        except streams.BrokenStream as error:
            if n_records or not restart:  # otherwise this damage has just been reported
                yield index, rejecting("broken_warc", str(error))
                index += 1
        found = _next_record(raw, reached + 1, beginning)
        if found is None:
            return
        start = found
    yield index, rejecting("broken_warc", f"more than {_MAX_RESTARTS} damages; the rest is not read")


def _intact_records(raw: BinaryIO, settings: Settings) -> Iterator[tuple[int, Any, bytes]]:
    """(offset in the file, response or None for another record, body) up to the end or `BrokenStream`."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    try:
        for record in ArchiveIterator(raw, auto_decode="all"):
            if record.record_type != WarcRecordType.response:
                yield record.stream_pos, None, b""
                continue
            if not record.headers.get("Content-Length"):
                raise streams.BrokenStream("record ends within its header")
            declared = record.content_length
            body = record.reader.read(settings.max_bytes + 1)
            headers = record.http_headers
            encoded = headers is not None and (headers.get("Content-Encoding") or headers.get("Transfer-Encoding"))
            if not encoded and len(body) < min(declared, settings.max_bytes):
                raise streams.BrokenStream(f"record ends after {len(body)} of {declared} bytes")
            yield record.stream_pos, record, body
    except OSError as error:
        if error.errno is not None or isinstance(error, Unreachable):
            raise  # from the file system, not the archive
        raise streams.BrokenStream(str(error)) from None


def _next_record(raw: BinaryIO, start: int, beginning: re.Pattern[bytes]) -> int | None:
    """The offset of the first intact record at or after `start`."""
    overlap = 16  # longer than any match of `beginning`
    while True:
        raw.seek(start)
        block = raw.read(_SCAN_BYTES)
        for match in beginning.finditer(block):
            if _begins_warc(raw, start + match.start()):
                return start + match.start()
        if len(block) < _SCAN_BYTES:
            return None
        start += len(block) - overlap


def _begins_warc(raw: BinaryIO, place: int) -> bool:
    """Whether a WARC record starts here; gzip's magic number alone also occurs by chance."""
    raw.seek(place)
    return _opening(raw.read(_PROBE_BYTES)).startswith(_WARC)


def _opening(data: bytes) -> bytes:
    """The first bytes of `data`, decompressed if it is gzip."""
    if not data.startswith(_GZIP):
        return data
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, len(arc.MAGIC))
    except zlib.error:
        return b""


def _page_of(record: Any, body: bytes, settings: Settings) -> Raw:
    status = record.http_headers.status_code if record.http_headers is not None else None
    if status != 200:
        raise Rejected("http_status", str(status))
    kind = (record.http_content_type or "").lower()
    if kind not in _HTML_TYPES:
        raise Rejected("not_html", kind[:80])
    if len(body) > settings.max_bytes:
        raise Rejected("too_long", f"page above {settings.max_bytes} bytes")
    page = from_page(body, record.http_charset, settings)
    identity, url = (_without_brackets(value) for value in (record.record_id, record.headers.get("WARC-Target-URI")))
    return Raw(page.text, page.encoding, label(identity), url)


def _without_brackets(value: Any) -> str | None:
    """A WARC header's `<urn:…>` as `urn:…`."""
    found = printable(value)
    return found and (found.strip("<>") or None)


def _arc(raw: BinaryIO, settings: Settings) -> Iterator[Record]:
    index = 0
    try:
        for captured in arc.captures(streams.decompressed(raw), settings.max_bytes):
            if captured is None:
                yield index, rejecting("too_long", f"response above {settings.max_bytes} bytes")
            else:
                for _, record, body in _intact_records(io.BytesIO(captured), settings):
                    yield index, lambda record=record, body=body: _page_of(record, body, settings)  # type: ignore[misc]
            index += 1
    except streams.BrokenStream as error:
        yield index, rejecting("broken_warc", str(error))
