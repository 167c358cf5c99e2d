"""Raw files as bounded streams of bytes and lines; compression is detected by content, not by name.

Contract: gzip, zstd, bzip2 and xz (readers/members.py) in any number of members, with padding between them, or
plain. Memory is bounded by `max_line_bytes` plus one chunk, whatever the file expands to. `lines` and `read_all`
raise `BrokenStream` at a damage after yielding everything before it; `lines_and_damages` goes on behind it. A missing
or unreadable file raises `OSError`. Cost: 300 MB/s of lines or more.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from data_pipeline.readers.charset import byte_order_mark
from data_pipeline.readers.members import TEXT_BEGINNING, BrokenStream, Damage, pieces
from data_pipeline.readers.storage import Location, open_binary

__all__ = ["BrokenStream", "Damage", "LineTooLong", "lines", "lines_and_damages", "read_all", "text_pieces"]


class LineTooLong:
    """Takes the place of a line that was skipped because it exceeds the limit."""


def lines(location: Location, max_line_bytes: int) -> Iterator[bytes | LineTooLong]:
    """Lines without their line feed; files with a UTF-16 or UTF-32 byte order mark are converted to UTF-8.

    The byte order mark is removed. A `LineTooLong` takes the place of a line longer than `max_line_bytes`.
    """
    with open_binary(location) as raw:
        for line, _ in lines_and_damages(text_pieces(raw), max_line_bytes):
            if isinstance(line, Damage):
                raise BrokenStream(line.problem)
            yield line


def read_all(raw: BinaryIO, max_bytes: int) -> bytes | None:
    """The decompressed content, or None if it is longer than `max_bytes`."""
    content = bytearray()
    for piece, _ in pieces(raw, TEXT_BEGINNING):
        if isinstance(piece, Damage):
            raise BrokenStream(str(piece))
        content += piece
        if len(content) > max_bytes:
            return None
    return bytes(content)


def text_pieces(raw: BinaryIO) -> Iterator[tuple[bytes | Damage, int]]:
    """`pieces` of a file, in UTF-8 if it has a byte order mark."""
    parts = pieces(raw, TEXT_BEGINNING)
    first, end = next(parts)
    mark = byte_order_mark(first) if isinstance(first, bytes) else None
    if mark is None:
        yield first, end
        yield from parts
        return
    assert isinstance(first, bytes)
    decoder = codecs.getincrementaldecoder(mark)("replace")
    yield decoder.decode(first).encode("utf-8", "replace"), end
    for piece, end in parts:
        yield piece if isinstance(piece, Damage) else decoder.decode(piece).encode("utf-8", "replace"), end
    yield decoder.decode(b"", final=True).encode("utf-8", "replace"), end


def lines_and_damages(
    parts: Iterator[tuple[bytes | Damage, int]], limit: int
) -> Iterator[tuple[bytes | LineTooLong | Damage, int]]:
    """The lines of a stream with the raw offset behind each.

    A line that a damage follows is part of the damage, unless it ends as JSON does.
    """
    begun = bytearray()  # the unfinished line, unless it is being skipped
    skipping, end = False, 0
    for piece, end in parts:
        if isinstance(piece, Damage):
            if skipping or begun.rstrip().endswith((b"}", b"]")):
                yield LineTooLong() if skipping else bytes(begun), piece.start
            begun.clear()
            skipping = False
            yield piece, end
            continue
        *whole, rest = piece.split(b"\n")
        for part in whole:
            if skipping or len(begun) + len(part) > limit:
                yield LineTooLong(), end
            else:
                yield bytes(begun) + part, end
            begun.clear()
            skipping = False
        if skipping or len(begun) + len(rest) > limit:
            begun.clear()
            skipping = True
        else:
            begun += rest
    if skipping or begun:
        yield LineTooLong() if skipping else bytes(begun), end
