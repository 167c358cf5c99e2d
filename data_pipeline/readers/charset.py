"""Bytes -> text: which character set a file or a record is in.

Contract: `decode` returns the text and the name of the encoding, or raises `UnknownEncoding` if more than 2 % of
the characters would be damaged. It tries, in order: byte order mark, UTF-8, UTF-16 by its NUL pattern, the
declared character set, CP949 (a superset of EUC-KR) if it gives common Hangul, each of these again with a
little damage allowed, and finally charset-normalizer. UTF-8 comes before the declaration because other encodings
almost never form valid UTF-8, whereas declarations are often wrong. Cost: one pass for UTF-8 (over 1 GB/s); the
last resort reads 64 kB at about 1 MB/s.
"""

from __future__ import annotations

import codecs
import re

import numpy as np

from data_pipeline.readers.characters import HANGUL, RARE_HANGUL, flags_of

MAX_DAMAGE = 0.02
"""The largest share of undecodable bytes among non-ASCII characters that still counts as text."""

_SNIFFED_BYTES = 65_536
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARABLE = {
    **dict.fromkeys(("utf-8", "utf8", "unicode-1-1-utf-8"), "utf-8"),
    **dict.fromkeys(("utf-16", "utf-16le"), "utf-16-le"),
    **dict.fromkeys(("euc-kr", "euckr", "ks_c_5601-1987", "ks_c_5601", "ksc5601", "ks_c_5601-1989"), "cp949"),
    **dict.fromkeys(("korean", "cp949", "ms949", "windows-949", "uhc", "x-windows-949"), "cp949"),
    **dict.fromkeys(("iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii", "windows-1252", "cp1252"), "cp1252"),
    **dict.fromkeys(("shift_jis", "shift-jis", "x-sjis", "sjis", "windows-31j"), "cp932"),
    **dict.fromkeys(("gb2312", "gbk", "gb18030", "x-gbk"), "gb18030"),
    **dict.fromkeys(("big5", "big5-hkscs"), "big5hkscs"),
    **{label: label.replace("-", "_") for label in ("euc-jp", "koi8-r", "koi8-u", "johab")},
    "iso-2022-jp": "iso2022_jp",
    "iso-2022-kr": "iso2022_kr",
    "windows-874": "cp874",
    "tis-620": "cp874",
    **{f"windows-125{n}": f"cp125{n}" for n in (0, 1, 3, 4, 5, 6, 7, 8)},
    **{f"iso-8859-{n}": f"iso8859_{n}" for n in (2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16)},
}
"""Labels that pages declare -> Python codecs, as browsers read them (Latin-1 means CP1252)."""

_META_CHARSET = re.compile(rb"""<meta[^>]{0,500}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,40})""", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_:.-]{2,40})["']""", re.IGNORECASE)


class UnknownEncoding(ValueError):
    """No character set turns the bytes into text."""


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """The text of `data` and the encoding's name; `declared` is a label from HTTP or the page."""
    mark = byte_order_mark(data)
    if mark:
        return data.decode(mark, "replace"), mark
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    label = _DECLARABLE.get((declared or "").strip().lower())
    for codec in (_wide_codec(data), label, "cp949"):
        text = codec and _strictly(data, codec)
        if text and (codec == label or codec != "cp949" or looks_korean(text)):
            return text, codec or ""
    return _with_damage(data, label)


def byte_order_mark(data: bytes) -> str | None:
    """The codec for the byte order mark, if there is one."""
    return next((codec for mark, codec in _BYTE_ORDER_MARKS if data.startswith(mark)), None)


def declared_in_html(data: bytes) -> str | None:
    """The character set that the first 4 kB of a page declare, if any."""
    head = data[:4096]
    match = _META_CHARSET.search(head) or _XML_ENCODING.search(head)
    return match.group(1).decode("ascii") if match else None


def looks_korean(text: str) -> bool:
    """Whether the non-ASCII part is mostly Hangul, nearly all of it common syllables.

    Random bytes read as CP949 give Hanja, symbols and rare syllables.
    """
    flags = flags_of(text[:_SNIFFED_BYTES])
    outside_ascii = _outside_ascii(text[:_SNIFFED_BYTES])
    hangul = int(np.count_nonzero(flags & HANGUL))
    rare = int(np.count_nonzero(flags & RARE_HANGUL))
    return hangul >= 0.5 * outside_ascii and hangul > 0 and rare <= 0.05 * hangul


def _wide_codec(data: bytes) -> str | None:
    """UTF-16 without a byte order mark: NULs on one side of most pairs."""
    head = data[:4096]
    pairs = len(head) // 2
    if pairs < 8:
        return None
    high, low = head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if max(high, low) < 0.1 * pairs or min(high, low) > 0.02 * pairs:
        return None
    return "utf-16-be" if high > low else "utf-16-le"


def _strictly(data: bytes, codec: str) -> str | None:
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return None


def _with_damage(data: bytes, label: str | None) -> tuple[str, str]:
    for codec in dict.fromkeys(("utf-8", label or "cp949", "cp949")):
        text = data.decode(codec, "replace")
        if _damage(text) <= MAX_DAMAGE and (codec != "cp949" or looks_korean(text)):
            return text, codec
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_SNIFFED_BYTES]).best()
    if best is not None:
        text = data.decode(best.encoding, "replace")
        if _damage(text) <= MAX_DAMAGE:
            return text, best.encoding
    raise UnknownEncoding("neither UTF-8, UTF-16, CP949 nor the declared character set fits")


def _damage(text: str) -> float:
    """Share of U+FFFD among non-ASCII characters."""
    outside_ascii = _outside_ascii(text)
    return text.count("\ufffd") / outside_ascii if outside_ascii else 0.0


def _outside_ascii(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))
