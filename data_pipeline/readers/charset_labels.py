"""Names of character sets: what pages declare, and the Python codec that reads it as browsers do.

Contract: `codec_of(label)` is a codec of Python's, or None for a label that browsers do not know either. Labels are
those of the WHATWG Encoding standard without regard to case and punctuation, and some that occur on Korean pages
(MS949, JOHAB). Latin-1 means windows-1252, EUC-KR means CP949, GB2312 means GB18030. `declared_in_html(page)` looks
for a label as browsers do before they know the character set: comments are skipped, and only a `charset` attribute or
the `content` of a content type counts.
"""

from __future__ import annotations

import re

_LABELS = {
    "utf-8": "utf8 unicode11utf8 unicode20utf8 xunicode20utf8 utf8mb4",
    "utf-16-le": "utf16 utf16le ucs2 iso10646ucs2 csunicode unicode unicodefeff",
    "utf-16-be": "utf16be unicodefffe",
    "cp949": "euckr cseuckr ksc5601 ksc56011987 ksc56011989 csksc56011987 isoir149 korean cp949 ms949 uhc windows949",
    "johab": "johab cp1361 ms1361 ksc56011992",
    "iso2022_kr": "iso2022kr csiso2022kr",
    "cp932": "shiftjis csshiftjis ms932 mskanji sjis windows31j cp932",
    "euc_jp": "eucjp cseucpkdfmtjapanese",
    "iso2022_jp_ext": "iso2022jp csiso2022jp",
    "gb18030": "gb18030 gbk gb2312 gb231280 chinese csgb2312 csiso58gb231280 isoir58 cp936",
    "hz": "hzgb2312",
    "big5hkscs": "big5 big5hkscs cnbig5 csbig5 xbig5 cp950",
    "cp1252": "ascii usascii ansix341968 cp819 ibm819 csisolatin1 iso88591 iso885911987 isoir100 l1 latin1 cp1252 ansi",
    "iso8859_2": "csisolatin2 iso88592 iso885921987 isoir101 l2 latin2",
    "iso8859_3": "csisolatin3 iso88593 iso885931988 isoir109 l3 latin3",
    "iso8859_4": "csisolatin4 iso88594 iso885941988 isoir110 l4 latin4",
    "iso8859_5": "csisolatincyrillic cyrillic iso88595 iso885951988 isoir144",
    "iso8859_6": "arabic asmo708 csisolatinarabic ecma114 iso88596 iso88596e iso88596i iso885961987 isoir127",
    "iso8859_7": "greek greek8 csisolatingreek ecma118 elot928 iso88597 iso885971987 isoir126 suneugreek",
    "iso8859_8": "hebrew csisolatinhebrew iso88598 iso88598e iso88598i iso885981988 isoir138 logical visual",
    "cp1254": "csisolatin5 iso88599 iso885991989 isoir148 l5 latin5",
    "iso8859_10": "csisolatin6 iso885910 isoir157 l6 latin6",
    "cp874": "dos874 iso885911 tis620 cp874 windows874",
    "iso8859_13": "iso885913",
    "iso8859_14": "iso885914",
    "iso8859_15": "csisolatin9 iso885915 l9 latin9",
    "iso8859_16": "iso885916",
    "koi8_r": "koi8r koi8 koi cskoi8r",
    "koi8_u": "koi8u koi8ru",
    "cp866": "866 cp866 ibm866 csibm866",
    "mac_roman": "macintosh mac macroman csmacintosh",
    "mac_cyrillic": "maccyrillic macukrainian",
}
_CODECS = {
    **{label: codec for codec, labels in _LABELS.items() for label in labels.split()},
    **{f"{prefix}125{n}": f"cp125{n}" for n in range(9) for prefix in ("windows", "cp")},
}
_SKIPPED = re.compile(r"^x-|[^a-z0-9]")
"""Punctuation, and the `x-` before labels that are not registered (x-sjis, x-cp1252)."""

_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)
_META = re.compile(rb"<meta[\s/]([^>]{0,1000})", re.IGNORECASE)
_ATTRIBUTE = re.compile(rb"""([a-z-]+)\s*=\s*(?:"([^"]*)|'([^']*)|([^\s"'>]+))""", re.IGNORECASE)
_IN_CONTENT = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,40})""", re.IGNORECASE)
_LABEL = re.compile(rb"\s*([A-Za-z0-9_:.-]{2,40})")
_XML_ENCODING = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_:.-]{2,40})["']""", re.IGNORECASE)
_PRESCANNED_BYTES = 4096
"""Browsers look at 1,024; pages with a longer head are common enough."""


def codec_of(label: str | None) -> str | None:
    """The Python codec for a label from HTTP or a page."""
    return _CODECS.get(_SKIPPED.sub("", label.strip().lower())) if label else None


def declared_in_html(page: bytes) -> str | None:
    """The label that the beginning of a page declares, if any."""
    head = _COMMENT.sub(b"", page[:_PRESCANNED_BYTES])
    for tag in _META.finditer(head):
        attributes = {name.lower(): b"".join(values) for name, *values in _ATTRIBUTE.findall(tag[1])}
        found = _LABEL.match(attributes.get(b"charset", b"")) or _in_content_type(attributes)
        if found:
            return found[1].decode("ascii")
    xml = _XML_ENCODING.search(head)
    return xml[1].decode("ascii") if xml else None


def _in_content_type(attributes: dict[bytes, bytes]) -> re.Match[bytes] | None:
    content = attributes.get(b"content", b"")
    is_content_type = attributes.get(b"http-equiv", b"").lower() == b"content-type" or content.startswith(b"text/html")
    return _IN_CONTENT.search(content) if is_content_type else None
