"""HTTP responses as crawlers store them: status, headers, and a body from which every encoding is peeled.

Contract: pure. Headers are hints, never orders: a body is decoded only if it decodes, so that a header that lies or
is missing costs nothing. gzip and zstd are known by content, chunks by their form; what stands in a damaged encoded
body before the damage is kept. Output is bounded by `limit`, whatever a body expands to.

Source: RFC 9110 (HTTP), 9112 (chunks), and https://mimesniff.spec.whatwg.org/ for pages without a type.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from data_pipeline.readers.members import BrokenStream, Content, begins_compressed

_STATUS_LINE = re.compile(rb"\s*(?:HTTP|ICY|SHOUTCAST)(?:/\d+(?:\.\d+)?)?[ \t]+(\d{3})(?!\d)[^\r\n]*(?:\r?\n|$)", re.I)
_HEADERS_END = re.compile(rb"(?:^|\r?\n)\r?\n")
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_CHARSET = re.compile(r"(?i)charset\s*=\s*[\"']?([^\s\"';,]+)")
_PAGE_BEGINS = re.compile(
    rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?\s*(?:<\?xml[^>]*>\s*)?<(?:!--|(?:!doctype\s+html|html|head|script|iframe|h1|div|font|table"
    rb"|a|style|title|b|body|br|p|meta|link|frameset|center)[\s>/])",
    re.I,
)
_LAYERS = 3
"""Encodings that no header names; more are an attack."""
UNKNOWN_TYPES = frozenset({"", "unknown/unknown", "application/unknown", "*/*", "application/octet-stream"})
"""Types that say nothing, so that the body is looked at."""


class Response(NamedTuple):
    """An HTTP response; `status` is None if the block has no status line (HTTP/0.9)."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes


def parse(block: bytes, parse_headers: Callable[[bytes], Mapping[str, str]]) -> Response:
    """Split a block into status line, headers and body."""
    first = _STATUS_LINE.match(block)
    if not first:
        return Response(None, {}, block)
    end = _HEADERS_END.search(block, first.end() - 1 if first[0].endswith(b"\n") else first.end())
    headers = block[first.end() : end.start() if end else len(block)]
    if first[1].startswith(b"1") and end:  # such as 100 Continue, before the response itself
        return parse(block[end.end() :], parse_headers)
    return Response(int(first[1]), parse_headers(headers), block[end.end() :] if end else b"")


def media_type(value: str | None) -> tuple[str, str | None]:
    """(type in lower case, character set) of a Content-Type header."""
    kind = (value or "").split(";", 1)[0].split(",", 1)[0].strip().lower()
    charset = _CHARSET.search(value or "")
    return kind, charset[1] if charset else None


def looks_like_a_page(body: bytes) -> bool:
    """Whether a body begins as HTML does."""
    return bool(_PAGE_BEGINS.match(body[:1_024].replace(b"\0", b"")))


def content(response: Response, limit: int) -> bytes:
    """The body without transfer and content encodings, at most `limit` bytes."""
    body = response.body
    named = f"{response.headers.get('content-encoding', '')},{response.headers.get('transfer-encoding', '')}".lower()
    body = _without_chunks(body, "chunked" in named) or body
    for name in [*reversed([part.strip() for part in named.split(",")]), *[""] * _LAYERS]:
        if begins_compressed(body[:10]):
            body = _decompressed(body, limit) or body
        elif name in _BY_NAME and not looks_like_a_page(body):
            body = _BY_NAME[name](body, limit) or body
    return body[:limit]


def _without_chunks(body: bytes, declared: bool) -> bytes | None:
    """The chunks' content, or None if the body has no chunks; undeclared ones must end as chunks do."""
    parts = []
    place, ended = 0, False
    while not ended and (head := _CHUNK.match(body, place)):
        size = int(head[1], 16)
        end = head.end() + size
        behind = body[end : end + 2]
        if size and behind[:1] not in (b"\r", b"\n", b""):
            break  # no chunk, but text that looks like its head
        parts.append(body[head.end() : end])
        place = end + (2 if behind == b"\r\n" else len(behind[:1]))
        ended = size == 0
    if not parts or not (ended or declared):
        return None
    return b"".join(parts) + (b"" if ended else body[place:])


def _decompressed(body: bytes, limit: int) -> bytes:
    """gzip, zstd, bzip2 or xz, all members, up to a damage."""
    found = bytearray()
    stream = Content(io.BytesIO(body))
    try:
        while len(found) < limit and stream.advance():
            while len(found) < limit and (chunk := stream.chunk()):
                found += chunk
    except BrokenStream:
        pass
    return bytes(found)


def _inflated(body: bytes, limit: int) -> bytes | None:
    """`deflate`, which servers send with zlib's frame, as the standard says, or without."""
    for window in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        inflate = zlib.decompressobj(window)
        try:
            found = inflate.decompress(body, limit)
        except zlib.error:
            continue
        if found:
            return found
    return None


def _from_brotli(body: bytes, limit: int) -> bytes | None:
    import brotli

    decoder: Any = brotli.Decompressor()
    found = bytearray()
    try:
        found += decoder.process(body, output_buffer_limit=limit)
        while len(found) < limit and not decoder.is_finished() and not decoder.can_accept_more_data():
            found += decoder.process(b"", output_buffer_limit=limit - len(found))
    except brotli.error:
        pass
    return bytes(found) or None


_BY_NAME: dict[str, Callable[[bytes, int], bytes | None]] = {"deflate": _inflated, "br": _from_brotli}
"""Encodings that cannot be known by content."""
