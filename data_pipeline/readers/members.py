"""The members of a file: gzip, zstd, bzip2 and xz streams one after another, and plain stretches.

Contract: a `Content` starts at any raw offset and yields the content of one member at a time, so a reader knows
where each member begins and that it ended as its checksum says. Everything before a damage is yielded before
`BrokenStream` is raised; `next_beginning` finds where reading can go on, and `pieces` does both for a whole file.
Memory: a chunk, or what a member's own window needs (2 GB for `zstd --long=31`), whatever the member expands to.

Formats: RFC 1952 (gzip), RFC 8878 (zstd: blocks of at most 128 KiB; skippable frames, as pzstd and seekable zstd
write them), and IIPC's "WARC zstd" (a first skippable frame 0x184D2A5D holds the dictionary of all others).
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

CHUNK_BYTES = 65_536
_LONGEST_WINDOW = 1 << 31
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_DICTIONARY = b"\x5d\x2a\x4d\x18"
_LONGEST_BEGINNING = 10
_SCAN_BYTES = 1 << 20
_PROBE_BYTES = 4_096
"""Decompressed to tell a member from a few bytes that look like one."""
_NOTHING = re.compile(rb"(?!)")
TEXT_BEGINNING = re.compile(rb"\s*[\[{]")
"""What an uncompressed stretch begins with if it is read behind a compressed one: JSON, not rubbish."""


class BrokenStream(ValueError):
    """Compressed data ends early, fails its checksum, or is none."""


class WrongChecksum(BrokenStream):
    """Everything was decompressed, but it is not what was compressed."""


@dataclass(frozen=True)
class Damage:
    """Raw bytes from `start` to `end` that could not be read."""

    start: int
    end: int
    problem: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.end - self.start} bytes at {self.start} are not read"


class Content:
    """The content of a seekable file from the member at raw offset `start`, one member at a time."""

    def __init__(self, raw: BinaryIO, start: int = 0, plain: re.Pattern[bytes] = _NOTHING, split: bool = False) -> None:
        """`plain`: how an uncompressed stretch after a compressed one may begin; `split`: one may also end at one."""
        self.member = start
        """Raw offset of the member that is being read."""
        self.compressed = False
        """Whether that member is."""
        self._raw, self._plain, self._split = raw, plain, split
        self._source = _Source(raw, start)
        self._chunks: Iterator[bytes] = iter(())  # some may be empty
        self._dictionary: Any = None
        if start:
            self._load_dictionary()

    @property
    def position(self) -> int:
        """Raw offset up to which the file has been decoded; exact between members and in plain stretches."""
        return self._source.position

    def chunk(self) -> bytes:
        """Some bytes of the member; none at its end, which its checksum then has confirmed."""
        return next(filter(None, self._chunks), b"")

    def advance(self) -> bool:
        """Go to the next member, past zeros and skippable frames between two; False at the end of the file."""
        while _SKIPPABLE.match(self._source.peek(4)):
            self._skip_frame()
        if self.compressed and self._source.skip_zeros():
            return self.advance()
        self.member = self._source.position
        head = self._source.peek(_LONGEST_BEGINNING)
        if not head:
            return False
        decode = _decoder(head)
        if decode is None and self.compressed and not self._plain.match(self._source.peek(_PROBE_BYTES)):
            raise BrokenStream("no compressed data follow a compressed stream")
        self.compressed = decode is not None
        self._chunks = decode(self._source, self._dictionary) if decode else self._uncompressed()
        return True

    def _uncompressed(self) -> Iterator[bytes]:
        while chunk := self._source.peek(CHUNK_BYTES):
            n_bytes = len(chunk)
            if self._split:
                n_bytes = self._up_to_member(self._source.peek(CHUNK_BYTES + _LONGEST_BEGINNING), n_bytes)
            if not n_bytes:
                return
            yield self._source.take(n_bytes)

    def _up_to_member(self, ahead: bytes, n_bytes: int) -> int:
        """How many of the next bytes lie before a compressed member."""
        for magic in (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"):
            place = ahead.find(magic, 0 if self.position > self.member else 1)
            while 0 <= place < n_bytes:
                if _opening(self._raw, self.position + place):
                    n_bytes = place
                place = ahead.find(magic, place + 1)
        return n_bytes

    def _skip_frame(self) -> None:
        self.compressed = True
        is_dictionary = self._source.position == 0 and self._source.peek(4) == _DICTIONARY
        length = int.from_bytes(self._source.take_exactly(8, "zstd")[4:], "little")
        if is_dictionary:
            self._dictionary = _as_dictionary(self._source.take_exactly(length, "zstd"))
        else:
            self._source.skip(length, "zstd")

    def _load_dictionary(self) -> None:
        self._raw.seek(0)
        if self._raw.read(4) == _DICTIONARY:
            first = Content(self._raw)
            first._skip_frame()
            self._dictionary = first._dictionary


def begins_compressed(head: bytes) -> bool:
    """Whether a compressed member or a skippable frame begins with these (ten or more) bytes."""
    return bool(_SKIPPABLE.match(head)) or _decoder(head) is not None


def next_beginning(raw: BinaryIO, start: int, plain: re.Pattern[bytes] = _NOTHING) -> Iterator[tuple[int, bytes]]:
    """(raw offset, first bytes of the content) of each place at or after `start` where reading can go on.

    These are compressed members from which something can be decompressed, and matches of `plain`.
    """
    beginnings = b"|".join(pattern for pattern, _ in _DECODERS)
    either = re.compile(b"(?=%s|(%s))" % (beginnings, plain.pattern))  # two may overlap
    while True:
        before = min(start, 1)  # for patterns that look behind
        raw.seek(start - before)
        block = raw.read(_SCAN_BYTES + _PROBE_BYTES)
        ends = len(block) < _SCAN_BYTES + _PROBE_BYTES
        searched = len(block) if ends else before + _SCAN_BYTES
        for match in either.finditer(block, before):
            if match.start() >= searched:
                break
            place = start - before + match.start()
            opening = match[1] or _opening(raw, place)
            if opening:
                yield place, opening
        if ends:
            return
        start += searched - before


def pieces(raw: BinaryIO, plain: re.Pattern[bytes]) -> Iterator[tuple[bytes | Damage, int]]:
    """The whole content of a file in order with the raw offset after each piece; damages stand where they are."""
    content = Content(raw, 0, plain, split=True)
    while True:
        reached, again, compressed = content.position, content.member, None
        try:
            while content.advance():
                again = content.member
                if compressed is not None and compressed != content.compressed:
                    yield b"\n", again  # no line goes on where compression begins or ends
                compressed = content.compressed
                while chunk := content.chunk():
                    yield chunk, content.position
                    reached = content.position
            yield b"", content.position
            return
        except BrokenStream as error:
            # A member that was cut may have been completed with the beginning of the next one.
            found = next(next_beginning(raw, again + 1), None)
            end = found[0] if found else raw.seek(0, io.SEEK_END)
            yield Damage(min(max(reached, content.member), end), end, str(error)), end
            content = Content(raw, end, plain, split=True)


def _opening(raw: BinaryIO, place: int) -> bytes | None:
    """The first bytes of a member's content, or None if nothing decompresses there."""
    content = Content(raw, place)
    opening = b""
    try:
        content.advance()
        while len(opening) < _PROBE_BYTES and (chunk := content.chunk()):
            opening += chunk
    except BrokenStream:
        return opening or None
    return opening


class _Source:
    """Reads a file ahead and knows how far its bytes were used."""

    def __init__(self, raw: BinaryIO, start: int) -> None:
        self._raw, self._ahead, self.position = raw, b"", start

    def peek(self, n_bytes: int) -> bytes:
        """The next bytes, fewer at the end of the file; they stay unused."""
        if len(self._ahead) < n_bytes:
            self._raw.seek(self.position + len(self._ahead))  # others may have moved in the same file
            self._ahead += self._raw.read(max(n_bytes - len(self._ahead), CHUNK_BYTES))
        return self._ahead[:n_bytes]

    def take(self, n_bytes: int) -> bytes:
        taken = self.peek(n_bytes)
        self._ahead = self._ahead[len(taken) :]
        self.position += len(taken)
        return taken

    def take_exactly(self, n_bytes: int, what: str) -> bytes:
        taken = self.take(n_bytes)
        if len(taken) < n_bytes:
            raise BrokenStream(f"{what}: the file ends early")
        return taken

    def take_line(self, what: str) -> bytes:
        """Up to and with the next zero byte, as gzip ends a name."""
        length = self.peek(CHUNK_BYTES).find(b"\0") + 1
        if not length:
            raise BrokenStream(f"{what}: a name does not end")
        return self.take(length)

    def give_back(self, unused: bytes) -> None:
        self._ahead = unused + self._ahead
        self.position -= len(unused)

    def skip(self, n_bytes: int, what: str) -> None:
        while n_bytes:
            n_bytes -= len(self.take_exactly(min(n_bytes, CHUNK_BYTES), what))

    def skip_zeros(self) -> bool:
        """Go past padding; whether there was some."""
        skipped = 0
        while (block := self.peek(CHUNK_BYTES)) and block[0] == 0:
            skipped += len(self.take(len(block) - len(block.lstrip(b"\0"))))
        return skipped > 0


_Decode = Callable[[_Source, Any], Iterator[bytes]]


def _decoder(head: bytes) -> _Decode | None:
    return next((decode for beginning, decode in _DECODERS if re.match(beginning, head)), None)


def _gzip(source: _Source, _: Any) -> Iterator[bytes]:
    """Checks the trailer itself, because zlib keeps a member's last bytes if the checksum is wrong."""
    _skip_gzip_header(source)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    checksum = length = 0
    while not inflate.eof:
        before, data = inflate.copy(), source.take(CHUNK_BYTES)
        try:
            chunk = inflate.decompress(data, CHUNK_BYTES)
        except zlib.error as error:
            source.give_back(data)
            yield _before_damage(before, data)
            raise BrokenStream(f"gzip: {error}") from None
        source.give_back(inflate.unused_data or inflate.unconsumed_tail)
        if not (data or chunk or inflate.eof):
            raise BrokenStream("gzip: the file ends early")
        checksum, length = zlib.crc32(chunk, checksum), length + len(chunk)
        yield chunk
    trailer = source.take_exactly(8, "gzip")
    if trailer != checksum.to_bytes(4, "little") + (length & 0xFFFFFFFF).to_bytes(4, "little"):
        raise WrongChecksum("gzip: wrong checksum")


def _skip_gzip_header(source: _Source) -> None:
    fixed = source.take_exactly(10, "gzip")
    flags = fixed[3]
    if fixed[2] != 8 or flags & 0xE0:
        raise BrokenStream("gzip: unknown method or flags")
    if flags & 4:  # extra field
        source.take_exactly(int.from_bytes(source.take_exactly(2, "gzip"), "little"), "gzip")
    for flag in (8, 16):  # name, comment
        if flags & flag:
            source.take_line("gzip")
    if flags & 2:  # checksum of the header
        source.take_exactly(2, "gzip")


def _before_damage(inflate: Any, data: bytes) -> bytes:
    """What zlib decodes before it fails; it returns nothing from a call that fails, so each call asks for one byte."""
    found = bytearray()
    try:
        while byte := inflate.decompress(data, 1):
            found += byte
            data = inflate.unconsumed_tail
    except zlib.error:
        pass
    return bytes(found)


def _zstd(source: _Source, dictionary: Any) -> Iterator[bytes]:
    """Feeds the decoder one block at a time, which bounds what a call may return."""
    import zstandard  # not at the top: readers of plain files do without it

    options = {"dict_data": dictionary} if dictionary else {}
    try:
        frame = zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW, **options).decompressobj()
        header = _zstd_header(source)
        yield frame.decompress(header)
        last = False
        while not last:
            block = source.take_exactly(3, "zstd")
            described = int.from_bytes(block, "little")
            last, kind, size = bool(described & 1), (described >> 1) & 3, described >> 3
            block += source.take_exactly(1 if kind == 1 else size, "zstd")  # kind 1 repeats one byte
            yield frame.decompress(block)
        if header[4] & 0b100:
            yield frame.decompress(source.take_exactly(4, "zstd"))
    except (zstandard.ZstdError, MemoryError) as error:
        broken = WrongChecksum if "checksum" in str(error) else BrokenStream
        raise broken(f"zstd: {error}") from None


def _zstd_header(source: _Source) -> bytes:
    """Magic number and frame header (RFC 8878, section 3.1.1.1)."""
    head = source.take_exactly(5, "zstd")
    single, sized = head[4] >> 5 & 1, head[4] >> 6
    length = (1 - single) + (0, 1, 2, 4)[head[4] & 3] + (single, 2, 4, 8)[sized]
    return head + source.take_exactly(length, "zstd")


def _as_dictionary(data: bytes) -> Any:
    import zstandard

    try:
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        return zstandard.ZstdCompressionDict(data)
    except (zstandard.ZstdError, MemoryError) as error:
        raise BrokenStream(f"zstd: dictionary: {error}") from None


def _standard(name: str, start: Callable[[], Any]) -> _Decode:
    """A decoder of the standard library's bz2 or lzma."""

    def decode(source: _Source, _: Any) -> Iterator[bytes]:
        decoder = start()
        while not decoder.eof:
            data = source.take(CHUNK_BYTES) if decoder.needs_input else b""
            if not data and decoder.needs_input:
                raise BrokenStream(f"{name}: the file ends early")
            try:
                chunk = decoder.decompress(data, CHUNK_BYTES)
            except (OSError, EOFError, lzma.LZMAError, MemoryError) as error:
                raise BrokenStream(f"{name}: {error}") from None
            yield chunk
        source.give_back(decoder.unused_data)

    return decode


_DECODERS: tuple[tuple[bytes, _Decode], ...] = (
    (rb"\x1f\x8b\x08[\x00-\x1f]", _gzip),
    (rb"\x28\xb5\x2f\xfd", _zstd),
    (rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", _standard("bzip2", bz2.BZ2Decompressor)),
    (rb"\xfd7zXZ\x00", _standard("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ))),
)
"""How a member begins, and what decodes it."""
