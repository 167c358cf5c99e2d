"""Bytes -> text: which character set a file or a record is in.

Contract: `decode` returns the text and the name of the encoding, or raises `UnknownEncoding`. It reads as browsers do,
except that bytes can refute what a page declares. In this order:

1. a byte order mark, the NUL pattern of UTF-16 and UTF-32, the escape sequences of ISO-2022;
2. UTF-8, if at least as many sequences are valid as are not, because other character sets almost never form valid
   UTF-8 (a page that declares UTF-8 may also have a single bad sequence and nothing else);
3. CP949 (a superset of EUC-KR) or Johab, if it gives common Korean syllables;
4. the declared character set, unless it leaves more than a few characters undecoded, or uchardet recognizes another
   writing system in a sample that is long enough;
5. what uchardet recognizes;
6. windows-1252, if accents, quotes and dashes stand where Western text has them.

One bad sequence becomes one U+FFFD and never changes the choice. Text of which more than 2 % would be U+FFFD is
refused. Text that was encoded twice is decoded once; `normalize.repair` undoes the rest if it can be reversed exactly.
Cost: one pass for UTF-8 (over 1 GB/s of ASCII); otherwise at most a millisecond for the choice.
"""

from __future__ import annotations

import codecs
import re

import numpy as np

from data_pipeline.readers.characters import HAN, HANGUL, RARE_HANGUL, codes_of, flags_of
from data_pipeline.readers.charset_labels import codec_of, declared_in_html

__all__ = ["UnknownEncoding", "byte_order_mark", "declared_in_html", "decode", "looks_korean"]

MAX_DAMAGE = 0.02
"""The largest share of undecodable sequences among all characters that still counts as text."""

_SNIFFED_BYTES = 16_384
_TRIED_BYTES = 1024
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FREQUENT = (
    "다이에는의하한을지제니로를사가정서고기수자시은조대인부일도으리해스용있관합전어보개경원여라그장아나법과상항호우공되"
    "위행입성구들적습국요터할소주만문게년면계업드트생설명세등당따된체동및식신음중비른화유령"
)
"""The 100 most frequent syllables: 67 to 80 % of Korean text (encyclopedia, petitions, manuals, statutes), and about
5 % of Chinese text or noise that is read as Korean."""
_IS_FREQUENT = np.zeros(0xD7A4 - 0xAC00, dtype=bool)
_IS_FREQUENT[[ord(syllable) - 0xAC00 for syllable in _FREQUENT]] = True

_ESCAPE = re.compile(rb"\x1b\$(?:\)C|[B@])")
_HIGH = re.compile(rb"[\x80-\xff]")
_ASCII_LETTER = re.compile(rb"[A-Za-z]")
_TAG = re.compile(rb"<[^<>]*>")
_HIGH_RUN = re.compile(rb"[\x80-\x9f\xa1-\xff]{4,}")
"""Without A0, the no-break space, which stands in rows."""
_HIGH_PAIR = re.compile(rb"[\x80-\x9f\xa1-\xff][\xa1-\xff]|[\xa1-\xff][\x80-\x9f]")
"""Occurs in any text of two bytes a character, and nowhere in English, where accents and quotes stand alone."""
_KOREAN_MARKS = re.compile(rb"\xa1[\xa1-\xbf]|\xa4[\xbb\xbe\xcc\xd0]")
"""Quotes, dots, brackets and laughter in EUC-KR; in windows-1252 they would be pairs like `¡¯` and `¤»`."""
_LAUGHTER = "ㅋㅎㅠㅜ"
_UNDEFINED_IN_CP932 = re.compile("[\uf8f0-\uf8f3]")
"""Python's reading of A0, FD, FE and FF, which begin no character."""
_FEW_BYTES = 8
"""Fewer bytes outside ASCII are too little for statistics to refute what is declared or the Western default."""
_MIN_FOREIGN_SHARE = 0.4
"""Of the letters of a text in another alphabet; Western languages stay below 0.25."""
_LATIN = frozenset(
    (*("cp1250", "cp1252", "cp1254", "cp1257", "cp1258", "mac_roman"), *(f"iso8859_{n}" for n in (2, 3, 4, 10)))
) | frozenset(f"iso8859_{n}" for n in (13, 14, 15, 16))
_MIN_ACCENTED_SHARE = 0.03
"""Of the letters, before uchardet decides between Western and Central European: names alone do not."""
_MAX_SAMPLE_DAMAGE = 0.1
"""Share of undecodable sequences, beyond the first, at which a character set is ruled out."""
_C1 = re.compile("[\x80-\x9f]")
_UTF_16 = ("utf-16-le", "utf-16-be")
_MULTIBYTE = frozenset(("cp949", "johab", "cp932", "euc_jp", "gb18030", "big5hkscs"))


class UnknownEncoding(ValueError):
    """No character set turns the bytes into text."""


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """The text of `data` and the encoding's name; `declared` is a label from HTTP or the page."""
    mark = byte_order_mark(data)
    if mark == "utf-8-sig" and _as_utf8(data[3:], mark) is None:
        return decode(data[3:], declared)  # a file that begins with a mark and goes on in another character set
    label = codec_of(declared)
    codec = mark or _wide_codec(data) or _stateful_codec(data, label)
    text = _decoded(data, codec) if codec else _as_utf8(data, label)
    if text is None and (codec := _byte_codec(data, label)):
        text = _decoded(data, codec)
    if text is None or _lost(text, data) > max(1, MAX_DAMAGE * len(text)):
        raise UnknownEncoding("neither UTF-8, UTF-16, CP949 nor the declared or a recognized character set fits")
    return text, codec or "utf-8"


def byte_order_mark(data: bytes) -> str | None:
    """The codec for the byte order mark, if there is one."""
    return next((codec for mark, codec in _BYTE_ORDER_MARKS if data.startswith(mark)), None)


def looks_korean(text: str) -> bool:
    """Whether the non-ASCII part is mostly Hangul, nearly all of it common syllables.

    Random bytes read as CP949 give Hanja, symbols and rare syllables.
    """
    flags = flags_of(text[:_SNIFFED_BYTES])
    hangul = int(np.count_nonzero(flags & HANGUL))
    rare = int(np.count_nonzero(flags & RARE_HANGUL))
    return hangul >= 0.5 * _outside_ascii(text[:_SNIFFED_BYTES]) and hangul > 0 and rare <= 0.05 * hangul


# --- Unicode and escape sequences --------------------------------------------------------------


def _wide_codec(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a byte order mark: NULs at the same places of many units."""
    if b"\0" not in data[:4096] or len(data) < 8 or _is_utf8_with_nul(data[:4096]):
        return None
    head = np.frombuffer(data[:4096], dtype=np.uint8)
    quads, pairs = head[: len(head) // 4 * 4].reshape(-1, 4), head[: len(head) // 2 * 2].reshape(-1, 2)
    for codec, zero, small in (("utf-32-le", 3, 2), ("utf-32-be", 0, 1)):
        if (quads[:, zero] == 0).mean() > 0.98 and (quads[:, small] <= 0x10).mean() > 0.98:
            return codec
    first, second = (pairs == 0).mean(axis=0)
    if max(first, second) < 0.1 or min(first, second) > 0.5 * max(first, second):  # U+AC00 is a common syllable
        return None
    codec = "utf-16-be" if first > second else "utf-16-le"
    text = pairs.tobytes().decode(codec, "replace")
    readable = sum(character.isprintable() or character.isspace() for character in text)
    return codec if readable >= 0.98 * len(text) else None


def _is_utf8_with_nul(head: bytes) -> bool:
    """UTF-16 is valid UTF-8 only if all of it is ASCII."""
    return not head.isascii() and _outside_ascii(text := head.decode("utf-8", "replace")) > 2 * text.count("\ufffd")


def _stateful_codec(data: bytes, label: str | None) -> str | None:
    """Seven-bit character sets: escape sequences announce them, HZ only its label."""
    if label == "iso2022_kr" and b"\x0e" in data:
        return label
    if b"\x1b" in data and (escape := _ESCAPE.search(data)):
        return "iso2022_kr" if escape[0] == b"\x1b$)C" else "iso2022_jp_ext"
    return "hz" if label == "hz" and data.isascii() else None


def _as_utf8(data: bytes, label: str | None) -> str | None:
    """The text if `data` is UTF-8, perhaps with damage."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start
        valid = _outside_ascii(data[:start].decode("utf-8"))
        here = data[start : start + _TRIED_BYTES].decode("utf-8", "replace")
    if valid + _outside_ascii(here) < 2 * here.count("\ufffd") > 2 * _FEW_BYTES:
        return None  # replacing sequence by sequence is slow
    text = data.decode("utf-8", "replace")
    bad = _lost(text, data)
    good = _outside_ascii(text) - bad
    return text if good >= bad or (bad == 1 and label in ("utf-8", "utf-8-sig")) else None


# --- one byte or two ---------------------------------------------------------------------------


def _byte_codec(data: bytes, label: str | None) -> str | None:
    """The codec of bytes that are not Unicode; steps 3 to 6 of the module's contract."""
    first = _HIGH.search(data)
    head = data[first.start() if first else 0 :][:_SNIFFED_BYTES]
    if head.count(0) > MAX_DAMAGE * len(head):
        return None
    koreans: tuple[str, ...] = ("cp949", "johab", *((label,) if label in _UTF_16 else ()))
    korean = next((codec for codec in koreans if _speaks_korean(head[:_TRIED_BYTES], codec, _FEW_BYTES)), None)
    if korean:
        return korean
    western = not any(len(set(run)) > 2 and max(run) > 0xA0 for run in _HIGH_RUN.findall(head))
    if _speaks_korean(head, "cp949", _FEW_BYTES if western else 2):
        return "cp949"
    sample = _TAG.sub(b" ", head)
    if label and label not in ("utf-8", *_UTF_16) and not _refuted(label, sample, western):
        return label
    if not western and looks_korean(head.decode("cp949", "replace")) and len(_HIGH.findall(head)) < 4 * _FEW_BYTES:
        return "cp949"  # a few words without frequent syllables
    if _KOREAN_MARKS.search(sample) and _KOREAN_MARKS.sub(b"", sample).isascii():
        return "cp949"
    return _recognized(sample, western) or ("cp1252" if western else None)


def _speaks_korean(data: bytes, codec: str, least: int) -> bool:
    """Whether the non-ASCII part has `least` syllables or more, mostly frequent ones; few leave no room for Hanja."""
    text = data.decode(codec, "replace")
    flags = flags_of(text)
    laughter = sum(map(text.count, _LAUGHTER))
    hangul = int(np.count_nonzero(flags & HANGUL)) + laughter
    if hangul < max(least, 0.3 * _outside_ascii(text)) or np.count_nonzero(flags & RARE_HANGUL) > 0.05 * hangul:
        return False
    codes = codes_of(text)[flags & HANGUL > 0] - 0xAC00
    frequent = int(np.count_nonzero(_IS_FREQUENT[codes])) + laughter
    return frequent >= max(1, 0.3 * hangul) and (hangul >= _FEW_BYTES or not (flags & HAN).any())


def _recognized(sample: bytes, western: bool) -> str | None:
    """What uchardet finds, if the sample bears it out."""
    from resiliparse.parse.encoding import detect_encoding  # machines that only train read text without extractors

    codec = codec_of(detect_encoding(sample, html5_compatible=False))
    if codec is None or codec == "utf-8" or _damage(sample, codec) > _MAX_SAMPLE_DAMAGE:
        return None
    high = len(_HIGH.findall(sample))
    share = high / max(1, high + len(_ASCII_LETTER.findall(sample)))
    if codec in _LATIN:
        bears_out = western and share >= _MIN_ACCENTED_SHARE and not _C1.search(sample.decode(codec, "replace"))
    else:
        bears_out = share >= _MIN_FOREIGN_SHARE and not western
    return codec if bears_out and high >= _FEW_BYTES else None


def _refuted(label: str, sample: bytes, western: bool) -> bool:
    """Whether the bytes are not what the page declares."""
    if _damage(sample, label) > _MAX_SAMPLE_DAMAGE or (
        label in _MULTIBYTE and western and not _HIGH_PAIR.search(sample)
    ):
        return True
    if label in _LATIN and not western:
        return len(_HIGH.findall(sample)) >= _MIN_FOREIGN_SHARE * len(sample.replace(b" ", b""))
    if len(_HIGH.findall(sample)) < 4 * _FEW_BYTES:
        return False
    found = _recognized(sample, western)
    return found is not None and found not in _LATIN and _decoded(sample, label) != _decoded(sample, found)


def _decoded(data: bytes, codec: str) -> str:
    if codec == "iso2022_kr" and b"\x1b$)C" not in data:
        data = b"\x1b$)C" + data
    text = data.decode(codec, "replace")
    return _UNDEFINED_IN_CP932.sub("\ufffd", text) if codec == "cp932" else text


def _damage(data: bytes, codec: str) -> float:
    """Share of U+FFFD beyond the first among non-ASCII characters."""
    text = _decoded(data, codec)
    return (text.count("\ufffd") - 1) / max(1, _outside_ascii(text))


def _lost(text: str, data: bytes) -> int:
    """How many sequences became U+FFFD; in UTF-8, the text may have had some before."""
    replaced = text.count("\ufffd")
    return replaced - data.count("\ufffd".encode()) if replaced else 0


def _outside_ascii(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))
