"""ARC, the format of web archives before WARC: each capture becomes one WARC response record.

Contract: `captures` yields the bytes of a WARC record for each HTTP capture, in file order, or None for a
capture longer than `max_bytes`; it skips other protocols (`dns:`). A line that is not an ARC header raises
`BrokenStream`. Memory: one capture. Format: Internet Archive, "Arc File Format" (1996); the version block
says how many fields a header line has (5 in version 1, 10 in version 2).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from data_pipeline.readers.streams import BrokenStream

MAGIC = b"filedesc://"

_MAX_HEADER_BYTES = 65_536
_HTTP_HEADER_BYTES = 65_536
"""Allowed in addition to a document's bytes, because a capture starts with its HTTP headers."""


def captures(chunks: Iterator[bytes], max_bytes: int) -> Iterator[bytes | None]:
    """WARC records of the HTTP captures in a decompressed ARC file."""
    stream = cast(BinaryIO, io.BufferedReader(_Joined(chunks)))
    n_fields = 5
    while line := _header_line(stream):
        fields = line.rsplit(b" ", n_fields - 1)
        if len(fields) != n_fields or not fields[-1].isdigit() or len(fields[-1]) > 18:
            raise BrokenStream(f"no ARC header: {line[:80]!r}")
        url, n_bytes = fields[0], int(fields[-1])
        wanted = url.startswith((MAGIC, b"http://", b"https://")) and n_bytes <= max_bytes + _HTTP_HEADER_BYTES
        body = _take(stream, n_bytes, keep=wanted)
        if url.startswith(MAGIC):
            n_fields = _declared_fields(body)
        elif url.startswith((b"http://", b"https://")):
            yield _as_warc(url, body) if wanted else None


def _header_line(stream: BinaryIO) -> bytes:
    """The next non-blank line; empty at the end."""
    while line := stream.readline(_MAX_HEADER_BYTES):
        if line.strip():
            return line.strip()
    return b""


def _take(stream: BinaryIO, n_bytes: int, keep: bool) -> bytes:
    taken = bytearray()
    left = n_bytes
    while left:
        piece = stream.read(min(left, 1 << 20))
        if not piece:
            raise BrokenStream(f"capture ends after {n_bytes - left} of {n_bytes} bytes")
        left -= len(piece)
        if keep:
            taken += piece
    return bytes(taken)


def _declared_fields(version_block: bytes) -> int:
    """The number of fields of a header line; the second line of the version block names them."""
    lines = version_block.splitlines()
    return max(2, len(lines[1].split())) if len(lines) > 1 else 5


def _as_warc(url: bytes, body: bytes) -> bytes:
    headers = (
        b"WARC/1.0",
        b"WARC-Type: response",
        b"WARC-Target-URI: " + url.strip(),
        b"Content-Type: application/http; msgtype=response",
        b"Content-Length: " + str(len(body)).encode(),
    )
    return b"\r\n".join((*headers, b"", body, b"", b""))


class _Joined(io.RawIOBase):
    """Presents chunks as one stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)
