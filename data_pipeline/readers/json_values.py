"""JSON Lines, pretty-printed documents and arrays -> the bytes of one value after another.

Contract: `values` yields (index, value or what stands for it, raw offset behind it) in file order, without parsing.
In JSON Lines the index is the line; a document over several lines, the first of which begins with `{` and the others
with white space or `}`, is one value with the index of its first line. In a file that begins with `[` the values are
the array's elements. Memory: one value of at most `limit` bytes; a longer one becomes a `LineTooLong`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Iterator
from typing import BinaryIO

from data_pipeline.readers.streams import Damage, LineTooLong, lines_and_damages, text_pieces

Value = tuple[int, bytes | LineTooLong | Damage, int]
_Pieces = Iterator[tuple[bytes | Damage, int]]

_MARK = re.compile(rb'["{}\[\],]')
_IN_STRING = re.compile(rb'(?:[^"\\]+|\\.)*', re.S)
_WHITE = b" \t\r\n"


def values(raw: BinaryIO, limit: int) -> Generator[Value, None, int]:
    """The values of a file; returns the raw offset at which it ended."""
    reached = 0

    def noted(parts: _Pieces) -> _Pieces:
        nonlocal reached
        for piece, end in parts:
            reached = end
            yield piece, end

    parts = noted(text_pieces(raw))
    begun = []
    for part in parts:
        begun.append(part)
        if isinstance(part[0], Damage) or part[0].strip(_WHITE):
            break
    first = begun[-1][0]
    is_array = isinstance(first, bytes) and first.lstrip(_WHITE).startswith(b"[")
    yield from (_elements if is_array else _documents)(itertools.chain(begun, parts), limit)
    return reached


def _documents(parts: _Pieces, limit: int) -> Iterator[Value]:
    begun: list[bytes] = []  # the lines of a document over several lines
    index = size = end = 0

    def finished() -> Value:
        return index, b"\n".join(begun) if size <= limit else LineTooLong(), end

    for number, (line, place) in enumerate(lines_and_damages(parts, limit)):
        if begun and isinstance(line, bytes) and line[:1] in (b" ", b"\t", b"}", b"]", b"\r", b""):
            size += len(line) + 1
            if size <= limit:
                begun.append(line)
            end = place
            if line[:1] == b"}":
                begun[-1] = begun[-1].rstrip().removesuffix(b",")
                yield finished()
                begun = []
            continue
        if begun and isinstance(line, LineTooLong):
            size, end = limit + 1, place
            continue
        if begun:
            yield finished()
            begun = []
        if not isinstance(line, bytes):
            yield number, line, place
        elif line.startswith(b"{") and not line.rstrip().endswith(b"}"):
            begun, index, size, end = [line], number, len(line), place
        elif line.strip():
            yield number, line, place
    if begun:
        yield finished()


def _elements(parts: _Pieces, limit: int) -> Iterator[Value]:
    elements = _Elements(limit)
    end = 0
    for piece, end in parts:
        if isinstance(piece, Damage):
            yield from elements.cut(end)
            yield elements.index, piece, end
            elements.index += 1
        else:
            yield from elements.feed(piece, end)
    yield from elements.cut(end)


class _Elements:
    """Follows strings and brackets; an element ends at a comma or bracket of the outermost array."""

    def __init__(self, limit: int) -> None:
        self.index = 0
        self._limit, self._buffer, self._scanned = limit, bytearray(), 0
        self._depth = self._outer = 0  # `outer` is 1 within an array whose elements are the values
        self._in_string = self._too_long = False

    def feed(self, piece: bytes, end: int) -> Iterator[Value]:
        """The elements that end in the next piece of the file."""
        self._buffer += piece
        while mark := self._next_mark():
            if mark[0] == b'"':
                self._in_string = True
            elif mark[0] == b"," and self._depth == self._outer:
                yield from self._element(mark.start(), mark.end(), end)
            elif mark[0] in b"[{":
                if self._depth == 0 and mark[0] == b"[":
                    self._outer = 1
                    yield from self._element(mark.start(), mark.end(), end)
                self._depth += 1
            elif mark[0] in b"]}":
                self._depth = max(0, self._depth - 1)
                if self._depth == 0:
                    yield from self._element(mark.start() if self._outer else mark.end(), mark.end(), end)
                    self._outer = 0
        if len(self._buffer) > self._limit:
            self._too_long = True
            del self._buffer[: self._scanned]
            self._scanned = 0

    def cut(self, end: int) -> Iterator[Value]:
        """What is left; what follows counts as elements of the array."""
        yield from self._element(len(self._buffer), len(self._buffer), end)
        self._depth, self._outer, self._in_string = 1, 1, False

    def _next_mark(self) -> re.Match[bytes] | None:
        """The next sign outside of strings, or None at the end of the buffer."""
        if self._in_string:
            inside = _IN_STRING.match(self._buffer, self._scanned)
            self._scanned = inside.end() if inside else self._scanned
            if self._buffer[self._scanned : self._scanned + 1] != b'"':
                return None
            self._in_string = False
            self._scanned += 1
        mark = _MARK.search(self._buffer, self._scanned)
        self._scanned = mark.end() if mark else len(self._buffer)
        return mark

    def _element(self, stop: int, behind: int, end: int) -> Iterator[Value]:
        value = bytes(self._buffer[:stop]).strip(_WHITE)
        if value or self._too_long:
            long = self._too_long or len(value) > self._limit
            yield self.index, LineTooLong() if long else value, end
            self.index += 1
        del self._buffer[:behind]
        self._scanned, self._too_long = 0, False
