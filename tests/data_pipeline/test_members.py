"""Compressed members, padding, skippable frames, and what is found behind damages."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.readers import members
from data_pipeline.readers.members import TEXT_BEGINNING, Content, Damage, pieces

ONE, TWO = b"one\n" * 50, b"two\n" * 70
COMPRESS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def _skippable(data: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + struct.pack("<I", len(data)) + data


def _read(data: bytes) -> tuple[bytes, list[Damage]]:
    found = [piece for piece, _ in pieces(io.BytesIO(data), TEXT_BEGINNING)]
    damages = [piece for piece in found if isinstance(piece, Damage)]
    return b"".join(piece for piece in found if isinstance(piece, bytes)), damages


@pytest.mark.parametrize("first", COMPRESS)
@pytest.mark.parametrize("second", COMPRESS)
def test_members_follow_one_another(first, second):
    data = COMPRESS[first](ONE) + COMPRESS[second](TWO)
    assert _read(data) == (ONE + TWO, [])
    content = Content(io.BytesIO(data))
    assert content.advance()
    while content.chunk():
        pass
    assert content.position == len(COMPRESS[first](ONE))


def test_a_gzip_header_may_name_things_and_be_checked():
    body = gzip.compress(ONE, mtime=0)[10:]
    header = b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff" + b"\x03\0abc" + b"name\0" + b"comment\0" + b"\0\0"
    assert _read(header + body) == (ONE, [])


def test_padding_and_skippable_frames_are_no_content():
    parts = (_skippable(b"pzstd"), COMPRESS["zstd"](ONE), _skippable(b""), COMPRESS["zstd"](TWO), bytes(512))
    assert _read(b"".join(parts)) == (ONE + TWO, [])
    assert _read(gzip.compress(ONE) + bytes(70_000) + gzip.compress(TWO)) == (ONE + TWO, [])


def test_a_window_of_two_gigabytes():
    settings = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    assert _read(stream.compress(ONE) + stream.flush()) == (ONE, [])


def test_a_dictionary_in_the_first_frame_serves_all():
    samples = [f"record {n} of the archive, with words that repeat {n % 7}".encode() * 3 for n in range(500)]
    dictionary = zstandard.train_dictionary(2_000, samples)
    compressor = zstandard.ZstdCompressor(dict_data=dictionary)
    frame = _skippable(dictionary.as_bytes()).replace(b"\x50", b"\x5d", 1)
    data = frame + compressor.compress(samples[0]) + compressor.compress(samples[1])
    assert _read(data) == (samples[0] + samples[1], [])
    later = Content(io.BytesIO(data), data.rindex(b"\x28\xb5\x2f\xfd"))
    later.advance()
    assert later.chunk() == samples[1]


def test_rubbish_between_members_costs_itself():
    text, (damage,) = _read(gzip.compress(ONE) + b"rubbish" + gzip.compress(TWO))
    assert text == ONE + TWO
    assert (damage.end - damage.start, "7 bytes" in str(damage)) == (7, True)


def test_json_behind_a_member_and_a_member_behind_json_are_read():
    line = b'{"text":1}'
    text, damages = _read(gzip.compress(ONE.rstrip()) + line + gzip.compress(TWO))
    assert (text.split(), damages) == ([*ONE.split(), line, *TWO.split()], [])  # no line goes on over the border
    assert _read(line + b"\n" + COMPRESS["zstd"](TWO))[0].split() == [line, *TWO.split()]


def test_a_wrong_checksum_loses_no_byte_and_is_said():
    data = bytearray(gzip.compress(ONE))
    data[-6] ^= 1
    text, (damage,) = _read(bytes(data) + gzip.compress(TWO))
    assert text == ONE + TWO
    assert "checksum" in damage.problem


@pytest.mark.parametrize("name", COMPRESS)
@given(place=st.integers(0, 10_000), cut=st.booleans(), noise=st.binary(min_size=1, max_size=40))
def test_no_damage_hides_the_members_behind_it_nor_what_is_before(name, place, cut, noise):
    first, damaged, last = (COMPRESS[name](bytes([letter]) * 3_000) for letter in b"abc")
    place = 8 + place % (len(damaged) - 8)
    harmed = damaged[:place] + (b"" if cut else noise)
    data = first + harmed + last
    found = list(pieces(io.BytesIO(data), TEXT_BEGINNING))
    text = b"".join(piece for piece, _ in found if isinstance(piece, bytes))
    assert text.startswith(b"a" * 3_000)
    assert text.endswith(b"c" * 3_000)
    assert max(text.count(b"a"), text.count(b"c")) < 6_000
    assert found[-1][1] == len(data)


def test_what_looks_like_a_member_in_text_is_text():
    text = b"ab\x1f\x8b\x08\xff(\xb5/\xfd\n" + b"BZh9 is no bzip2\n"
    assert _read(text) == (text, [])


def test_the_search_finds_members_across_its_blocks(monkeypatch):
    monkeypatch.setattr(members, "_SCAN_BYTES", 64)
    for filler in range(50, 80):
        text, damages = _read(gzip.compress(ONE) + b"x" * filler + gzip.compress(TWO))
        assert (text, len(damages)) == (ONE + TWO, 1)
