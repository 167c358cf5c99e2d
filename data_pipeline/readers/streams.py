"""Raw files as bounded streams of bytes and lines; compression is detected by content, not by name.

Contract: memory is bounded by `max_line_bytes` plus one chunk, whatever the file expands to. A damaged stream
raises `BrokenStream` after yielding everything before the damage; a missing or unreadable file raises `OSError`.
Arrow reads zstd, because it reports a truncated frame, which the zstandard package takes for a normal end.
Python's gzip reads gzip, because it returns everything before a truncation or a wrong checksum; Arrow would lose
the last chunk. Cost: 300 MB/s of lines or more.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa

from data_pipeline.readers.charset import byte_order_mark
from data_pipeline.readers.storage import Location, open_binary
from twofold.files import is_passing

_CHUNK_BYTES = 65_536


class BrokenStream(ValueError):
    """Compressed data ends early or fails its checksum."""


class LineTooLong:
    """Takes the place of a line that was skipped because it exceeds the limit."""


@contextmanager
def open_bytes(location: Location) -> Iterator[Iterator[bytes]]:
    """Yield the chunks of a file's decompressed content."""
    with open_binary(location) as raw:
        yield decompressed(raw)


def lines(location: Location, max_line_bytes: int) -> Iterator[bytes | LineTooLong]:
    """Lines without their line feed; files with a UTF-16 or UTF-32 byte order mark are converted to UTF-8.

    The byte order mark is removed. A `LineTooLong` takes the place of a line longer than `max_line_bytes`.
    """
    with open_bytes(location) as chunks:
        yield from _split(_as_utf8(chunks), max_line_bytes)


def read_all(location: Location, max_bytes: int) -> bytes | None:
    """The decompressed content, or None if it is longer than `max_bytes`."""
    content = bytearray()
    with open_bytes(location) as chunks:
        for chunk in chunks:
            content += chunk
            if len(content) > max_bytes:
                return None
    return bytes(content)


def decompressed(raw: BinaryIO) -> Iterator[bytes]:
    """Chunks of a seekable file's decompressed content, from its start."""
    head = raw.read(4)
    raw.seek(0)
    read = next((reader(raw) for magic, reader in _READERS if head.startswith(magic)), raw.read)
    while chunk := read(_CHUNK_BYTES):
        yield chunk


_Read = Callable[[int], bytes]


def _gzip(raw: BinaryIO) -> _Read:
    stream = gzip.GzipFile(fileobj=raw)

    def read(n_bytes: int) -> bytes:
        try:
            return stream.read1(n_bytes)  # `read` would lose what it has buffered before the damage
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BrokenStream(f"gzip: {error}") from None

    return read


def _zstd(raw: BinaryIO) -> _Read:
    stream = pa.input_stream(raw, compression="zstd")

    def read(n_bytes: int) -> bytes:
        try:
            return bytes(stream.read(n_bytes))
        except OSError as error:
            if is_passing(error):
                raise
            raise BrokenStream(f"zstd: {error}") from None

    return read


_READERS = ((b"\x1f\x8b", _gzip), (b"\x28\xb5\x2f\xfd", _zstd))


def _as_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(chunks, b"")
    mark = byte_order_mark(first)
    if mark is None:
        yield first
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(mark)("replace")
    yield decoder.decode(first).encode("utf-8", "replace")
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _split(chunks: Iterator[bytes], limit: int) -> Iterator[bytes | LineTooLong]:
    """The lines of a stream; between chunks, `begun` is the unfinished line, unless it is being skipped."""
    begun = bytearray()
    skipping = False
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            if skipping or len(begun) + len(part) > limit:
                yield LineTooLong()
            else:
                yield bytes(begun) + part
            begun.clear()
            skipping = False
        if skipping or len(begun) + len(rest) > limit:
            begun.clear()
            skipping = True
        else:
            begun += rest
    if skipping:
        yield LineTooLong()
    elif begun:
        yield bytes(begun)
