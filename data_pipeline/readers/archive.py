"""WARC and ARC files -> whole records, and the stretches between them that are none.

Contract: `Records` yields an `Entry` for every whole record and a `Damage` for every stretch that belongs to none, in
file order; together they cover the file. A record is whole if what follows its declared length can follow one:
its blank lines, another record's head, or the end of its compressed member, which must have its checksum. After a
damage, reading goes on at the next head or compressed member, whatever lies between; WARC, ARC, compressed and plain
parts may alternate in one file. Memory: `keep_bytes` of one record. Every byte is read a bounded number of times.

Formats: ISO 28500 (WARC); Internet Archive, "Arc File Format" (1996), whose header lines end in the length.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, NamedTuple, TypeVar

from data_pipeline.readers.members import (
    BrokenStream,
    Content,
    Damage,
    WrongChecksum,
    begins_compressed,
    next_beginning,
)

_WARC_LINE = rb"WARC/\d\.\d{1,2}[ \t]*\r?\n"
_ADDRESS = rb" (?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f:]{2,45}|-) \d{4,17}(?: "
_ARC = (rb"[a-z][a-z0-9+.-]{1,20}:[^\r\n]{1,8000}?", _ADDRESS, rb"[^\r\n]*?", rb")? ", rb"\d{1,18}", rb"\r?\n")
_ARC_LINE = re.compile(b"(%s)%s(%s)%s(%s)%s" % _ARC)
_FIRST_LINE = re.compile(_WARC_LINE)
_HEAD_LINE = b"(?:%s|%s)" % (_WARC_LINE, b"".join(_ARC))
_HEAD = re.compile(rb"[\r\n]*" + _HEAD_LINE)
_HEAD_ANYWHERE = re.compile(rb"%s(?=[A-Za-z-]+:)|(?<=\n)%s" % (_WARC_LINE, b"".join(_ARC)))
_SWALLOWED = re.compile(rb"\n\r?\n%sWARC-|\n%s" % (_WARC_LINE, b"".join(_ARC)))
_MAY_HOLD_RECORDS = re.compile(
    rb"(?i)content-type:[ \t]*(?:application/(?:x-)?warc|application/octet-stream|text/plain)"
)
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_HEAD_BYTES = 262_144
"""A longer head is a damage."""
_LINE_BYTES = 16_384
_Read = TypeVar("_Read")
_READ_AGAIN_BYTES = 1 << 32
"""What a file may be read again in all, to look for records within one that turned out not to be whole."""


class Entry(NamedTuple):
    """One whole record."""

    kind: str
    """`WARC-Type`; for ARC `response` or the scheme of another protocol."""
    headers: Mapping[str, str]
    """By lower-case name. An ARC record has `warc-target-uri` and, of what the server said, `content-type`."""
    body: bytes
    """Its first `keep_bytes`."""
    end: int
    """Raw offset behind the record, as far as it is known within a compressed member."""


class _Place(NamedTuple):
    """Where the tape stands: a member, an offset in its content, and the raw offset as far as it is known."""

    member: int
    offset: int
    raw: int


class _Tape:
    """The content of a file, read ahead within one member, or several if a record begins in one and ends in another."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.go_to(0)

    def go_to(self, member: int) -> None:
        """Before the member, or the plain stretch, at a raw offset."""
        self.content = Content(self._raw, member, _HEAD)
        self.member, self.offset = member, 0
        self.compressed = False
        self.buffer = bytearray()
        self._ahead: bytes | None = b""  # of the next member, if that begins with a record; None before its end
        self._error: BrokenStream | None = None

    def place(self) -> _Place:
        content = self.content
        if not self.compressed:
            raw = content.position - len(self.buffer)
        elif not self.offset and (self.buffer or self._ahead is None):
            raw = self.member
        else:
            raw = content.position if self._ahead is None else content.member
        return _Place(self.member, self.offset, raw)

    def advance(self) -> bool:
        """Go to the next member; False at the end of the file."""
        if not self._ahead and not self._enter():
            return False
        self.buffer = bytearray(self._ahead or b"")
        self.member, self.offset = self.content.member, 0
        self.compressed = self.content.compressed
        self._ahead = None
        return True

    def fill(self, n_bytes: int) -> bool:
        """Whether `n_bytes` more follow before the next member that begins with a record; they are in the buffer."""
        while len(self.buffer) < n_bytes and self._ahead is None:
            chunk = self._chunk()
            if not chunk:
                if not self._may_join():
                    return False
                chunk, self._ahead = self._ahead or b"", None
            self.buffer += chunk
        return len(self.buffer) >= n_bytes

    def _may_join(self) -> bool:
        """Whether the next member goes on with the record of this one: it is sound and begins with none."""
        try:
            return self._enter() and not _HEAD.match(self._ahead or b"")
        except BrokenStream:  # said when someone enters it
            return False

    def _enter(self) -> bool:
        """Decode the first bytes of the next member that has some; False at the end of the file."""
        self._ahead = b""
        while not self._ahead:
            if not self._failing(self.content.advance):
                return False
            self._ahead = self._chunk()
        return True

    def _chunk(self) -> bytes:
        return self._failing(self.content.chunk)

    def _failing(self, read: Callable[[], _Read]) -> _Read:
        """What fails once fails again."""
        if self._error:
            raise self._error
        try:
            return read()
        except BrokenStream as error:
            self._error = error
            raise

    def check_end(self) -> None:
        """Raise `WrongChecksum` if the member ends here and is not what was compressed."""
        if not self.buffer and self._ahead is None:
            try:
                self.buffer += self._chunk()
            except WrongChecksum:
                raise
            except BrokenStream:  # a damage behind this place
                pass

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """What begins here, of at most some lines; reads on only as far as it must and can."""
        found = pattern.match(self.buffer)
        try:
            while not found and len(self.buffer) < _LINE_BYTES and self.fill(len(self.buffer) + 1):
                found = pattern.match(self.buffer)
        except BrokenStream:  # met again by whoever reads on
            pass
        return found

    def skip(self, n_bytes: int) -> None:
        """Past bytes that are in the buffer."""
        del self.buffer[:n_bytes]
        self.offset += n_bytes

    def take(self, n_bytes: int, keep_bytes: int) -> tuple[bytes, int]:
        """The next bytes, of which some are kept, and how many there were before the member's end."""
        kept, left = bytearray(), n_bytes
        while left and self.fill(1):
            step = min(left, len(self.buffer))
            kept += self.buffer[: min(step, max(0, keep_bytes - len(kept)))]
            self.skip(step)
            left -= step
        return bytes(kept), n_bytes - left


class Records:
    """Everything in a seekable file, in order."""

    def __init__(self, raw: BinaryIO, keep_bytes: int) -> None:
        self._raw, self._keep_bytes = raw, keep_bytes
        self._size = raw.seek(0, io.SEEK_END)
        self._tape = _Tape(raw)
        self._read_again = 0

    @property
    def reached(self) -> int:
        """Raw offset up to which the file was read."""
        return self._tape.place().raw

    def __iter__(self) -> Iterator[Entry | Damage]:
        behind, problem = 0, ""  # of what was yielded last; what is wrong with what follows
        while True:
            begin = self._tape.place()
            try:
                if not self._to_next():
                    break
                begin = self._tape.place()
                entry = self._entry()
            except BrokenStream as error:
                problem = problem or str(error)
                self._find_again(begin)
                continue
            if problem:
                yield Damage(min(behind, begin.raw), begin.raw, problem)
            yield entry
            behind, problem = entry.end, ""
        if problem:
            yield Damage(behind, self._size, problem)

    def _to_next(self) -> bool:
        """Past blank lines to where a record should begin; False at the end of the file."""
        tape = self._tape
        while True:
            while tape.fill(1):
                blank = len(tape.buffer) - len(tape.buffer.lstrip(b"\r\n"))
                if not blank:
                    break
                tape.skip(blank)
            if not tape.buffer:
                if not tape.advance():
                    return False
            elif not tape.compressed and begins_compressed(bytes(tape.buffer[:10]) if tape.fill(10) else b""):
                tape.go_to(tape.place().raw)
            else:
                return True

    def _entry(self) -> Entry:
        """The record that begins here; `BrokenStream` if it is not whole."""
        tape = self._tape
        kind, headers, length, end_of_line = self._head()
        if not tape.compressed and length > self._size - tape.place().raw:
            raise BrokenStream(f"a record of {length} bytes has only {self._size - tape.place().raw}")
        body, found = tape.take(length, self._keep_bytes)
        if found < length:
            raise BrokenStream(f"a record ends after {found} of {length} bytes")
        if _SWALLOWED.search(body) and not _MAY_HOLD_RECORDS.search(body[:4_096]):
            raise BrokenStream("a record's length leads into another record")
        self._pass_ending(end_of_line * (2 if headers.get("warc-type") else 1))
        return Entry(kind, headers, body, tape.place().raw)

    def _head(self) -> tuple[str, dict[str, str], int, bytes]:
        """Kind, headers, length of the body, and how lines end."""
        tape = self._tape
        if not tape.match(_HEAD):
            raise BrokenStream(f"no record begins with {bytes(tape.buffer[:60])!r}")
        first = _FIRST_LINE.match(tape.buffer)
        if not first:
            return self._arc_head()
        end_of_line = b"\r\n" if b"\r" in first[0] else b"\n"
        while not (blank := _BLANK_LINE.search(tape.buffer)):
            if len(tape.buffer) > _HEAD_BYTES or not tape.fill(len(tape.buffer) + 1):
                raise BrokenStream("a record ends within its head")
        headers = parse_headers(bytes(tape.buffer[first.end() : blank.end()]))
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 19):
            raise BrokenStream(f"a record's length is {length[:20]!r}")
        tape.skip(blank.end())
        kind = headers.setdefault("warc-type", "unknown").lower()
        if "," in kind:
            raise BrokenStream("a record's head goes over into another one")
        return kind, headers, int(length), end_of_line

    def _arc_head(self) -> tuple[str, dict[str, str], int, bytes]:
        tape = self._tape
        line = _ARC_LINE.match(tape.buffer)
        assert line, "what began as a record must be one of the two"
        address, described, length = ((group or b"").decode("utf-8", "replace") for group in line.groups())
        tape.skip(line.end())
        scheme = address.partition(":")[0]
        kind = "response" if scheme in ("http", "https") else scheme
        headers = {"warc-target-uri": address.strip(), "content-type": described.partition(" ")[0]}
        return kind, headers, int(length), b"\n"

    def _pass_ending(self, ending: bytes) -> None:
        """Past what ends a record; `BrokenStream` if something else follows."""
        tape = self._tape
        whole = tape.fill(len(ending)) and tape.buffer.startswith(ending)
        if whole:
            tape.skip(len(ending))
        elif tape.buffer.strip(b"\r\n") and not tape.match(_HEAD):
            raise BrokenStream("a record's length does not lead to its end")
        tape.check_end()

    def _find_again(self, begin: _Place) -> None:
        """To the next place behind `begin` where a record may begin, or to the end of the file."""
        tape = self._tape
        if not tape.compressed:
            self._find_beginning(begin.raw + 1)
            return
        try:
            if tape.member == begin.member:
                self._return_to(begin)
            self._scan()
        except BrokenStream:
            self._find_beginning(tape.content.member + 1)

    def _return_to(self, begin: _Place) -> None:
        """Behind the first byte of a record in a compressed member, unless too much was read again."""
        self._read_again += self._tape.offset
        if self._read_again < _READ_AGAIN_BYTES:
            self._tape.go_to(begin.member)
            self._tape.advance()
            self._tape.take(begin.offset + 1, 0)

    def _scan(self) -> None:
        """To the next head, in this member or those behind it, or to the end of the file."""
        while not self._find_head():
            if not self._tape.advance() or self._tape.match(_HEAD):
                return

    def _find_head(self) -> bool:
        """To the next place in this member that looks like the head of a record."""
        tape = self._tape
        while not (found := _HEAD_ANYWHERE.search(tape.buffer)):
            tape.skip(max(0, len(tape.buffer) - _LINE_BYTES))
            if not tape.fill(len(tape.buffer) + 1):
                return False
        tape.skip(found.start())
        return True

    def _find_beginning(self, start: int) -> None:
        """To the next head behind a raw offset, plain or in a member that can be decompressed, or to the file's end."""
        for place, opening in next_beginning(self._raw, start, _HEAD_ANYWHERE):
            self._tape.go_to(place)
            if _HEAD.match(opening):
                return
            try:
                self._tape.advance()
                self._scan()
                return
            except BrokenStream:
                continue
        self._tape.go_to(self._size)


def parse_headers(lines: bytes) -> dict[str, str]:
    """Header lines by lower-case name; of repeated ones the values stand after another, with commas."""
    headers: dict[str, str] = {}
    name = ""
    for line in lines.decode("utf-8", "replace").splitlines():
        if line[:1] in (" ", "\t") and name:
            headers[name] += f" {line.strip()}"
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if colon:
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        else:
            name = ""
    return headers
