"""How text is cut into words before merges are learnt, and how bytes are written as code points.

Contract: pure tables. A pattern cuts every string without remainder, and the same pattern drives
counting (Python's `regex`) and encoding (the `Split` of tokenizer.json, Oniguruma), so white space is
written out instead of `\\s`, on whose members the two engines differ.
"""

from __future__ import annotations

import functools

_SPACE = r"\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NEWLINE = r"\r\n"
_CONTRACTIONS = r"'(?:[sdmtSDMT]|ll|LL|ve|VE|re|RE)"

PATTERNS: dict[str, str] = {
    # EXAONE 3.0: every digit alone, then GPT-2's expression (lower-case contractions only).
    "exaone3": (
        r"'(?:[sdmt]|ll|ve|re)"
        r"| ?\p{L}+"
        r"|\p{N}"
        rf"| ?[^{_SPACE}\p{{L}}\p{{N}}]+"
        rf"|[{_SPACE}]+(?=\p{{N}})|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    ),
    # Keeps indentation, line ends and operators together; letters take one symbol before them, so
    # that `.append` and `_name` are one word. Digits stay alone, as in EXAONE.
    "exaone3-code": (
        rf"{_CONTRACTIONS}"
        rf"|[^{_NEWLINE}\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+"
        r"|\p{N}"
        rf"| ?[^{_SPACE}\p{{L}}\p{{N}}]+[{_NEWLINE}]*"
        rf"|[{_SPACE}]*[{_NEWLINE}]+"
        rf"|[{_SPACE}]+(?=\p{{N}})|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    ),
}


@functools.cache
def byte_to_code_point() -> tuple[str, ...]:
    """GPT-2's table: byte -> a printable code point; printable Latin-1 stands for itself."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    table, spare = [], 0x100
    for byte in range(256):
        if byte in printable:
            table.append(chr(byte))
        else:
            table.append(chr(spare))
            spare += 1
    return tuple(table)


@functools.cache
def code_point_to_byte() -> dict[str, int]:
    """The inverse of `byte_to_code_point`."""
    return {character: byte for byte, character in enumerate(byte_to_code_point())}


def map_bytes(text: str) -> str:
    """The UTF-8 bytes of `text`, each as its code point."""
    table = byte_to_code_point()
    return "".join([table[byte] for byte in text.encode("utf-8")])


def unmap_bytes(mapped: str) -> bytes:
    """The bytes that mapped code points stand for."""
    table = code_point_to_byte()
    return bytes(table[character] for character in mapped)
