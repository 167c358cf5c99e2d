"""How text is cut into words before merges are learnt, and how bytes are written as code points.

Contract: pure tables. A pattern cuts every string without remainder, and the same pattern drives
counting (Python's `regex`) and encoding (the `Split` of tokenizer.json, Oniguruma), so white space is
written out instead of `\\s`, on whose members engines differ. Code points that only one engine's
Unicode version knows may be cut differently; that shifts a count, never an encoding, since every id
comes from tokenizer.json.
"""

from __future__ import annotations

_SPACE = r"\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NEWLINE = r"\r\n"
_CONTRACTIONS = r"'(?:[sdmtSDMT]|ll|LL|ve|VE|re|RE)"

PATTERNS: dict[str, str] = {
    # EXAONE 3.0's cut in one expression: every digit alone, then GPT-2's expression on what lies
    # between digits, where white space before a digit is white space at an end.
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
    # Llama 3's, with our white space and contractions in one case: digits by threes, letters take one
    # symbol before them, marks are symbols.
    "plain": (
        rf"{_CONTRACTIONS}"
        rf"|[^{_NEWLINE}\p{{L}}\p{{N}}]?\p{{L}}+"
        r"|\p{N}{1,3}"
        rf"| ?[^{_SPACE}\p{{L}}\p{{N}}]+[{_NEWLINE}]*"
        rf"|[{_SPACE}]*[{_NEWLINE}]+"
        rf"|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    ),
    # exaone3-code with words of letters that one blank, a comma and a blank, or an apostrophe joins taken
    # as one: what superwords are learnt from and encoded in. Every border is one of exaone3-code's too.
    "superwords": (
        rf"{_CONTRACTIONS}"
        rf"|[^{_NEWLINE}\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+(?:(?:,? |')[\p{{L}}\p{{M}}]+)*"
        r"|\p{N}"
        rf"| ?[^{_SPACE}\p{{L}}\p{{N}}]+[{_NEWLINE}]*"
        rf"|[{_SPACE}]*[{_NEWLINE}]+"
        rf"|[{_SPACE}]+(?=\p{{N}})|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    ),
}


def _gpt2_table() -> tuple[str, ...]:
    """Printable Latin-1 stands for itself; the other bytes take the code points from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(spare)) for byte in range(256))


CODE_POINT_OF_BYTE = _gpt2_table()
"""GPT-2's alphabet: byte -> a printable code point, none of them white space."""
_MAP = dict(enumerate(CODE_POINT_OF_BYTE))
_UNMAP = {ord(character): byte for byte, character in enumerate(CODE_POINT_OF_BYTE)}


def map_bytes(text: str) -> str:
    """The UTF-8 bytes of `text`, each as its code point."""
    return text.encode("utf-8").decode("latin-1").translate(_MAP)


def map_piece(piece: bytes) -> str:
    """Bytes, UTF-8 or not, each as its code point."""
    return piece.decode("latin-1").translate(_MAP)


def unmap_bytes(mapped: str) -> bytes:
    """The bytes that mapped code points stand for."""
    return mapped.translate(_UNMAP).encode("latin-1")
