"""Patterns that cut text into words before merges are learnt, and the alphabet that bytes are written in.

Contract: pure tables. Every pattern cuts every string without remainder. The same pattern drives counting and encoding
in the engine, and the `Split` of tokenizer.json in other libraries. White space is written out instead of `\\s`, on
whose members regex engines differ.

llama.cpp has no expressions but those in its source, each with a name. All of ours but one are among them
(`LLAMA_CPP_NAMES`), so that a GGUF file of a model gives the ids of its tokenizer.json there.
"""

from __future__ import annotations

SUPERWORDS = "superwords"
"""The pattern of stretches of words, from which superwords are learnt."""
_SPACE = r"\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NEWLINE = r"\r\n"
_CONTRACTIONS = r"'(?:[sdmtSDMT]|[lL][lL]|[vV][eE]|[rR][eE])"
_AFTER_LETTERS = (
    r"|\p{N}"
    rf"| ?[^{_SPACE}\p{{L}}\p{{N}}]+[{_NEWLINE}/]?"
    rf"|[{_SPACE}]*[{_NEWLINE}]"
    rf"|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
)

PATTERNS: dict[str, str] = {
    # EXAONE 3.0's cut in one expression: every digit alone, then GPT-2's expression on the text between digits, where
    # white space before a digit counts as white space at an end.
    "exaone3": (
        r"'(?:[sdmt]|ll|ve|re)"
        r"| ?\p{L}+"
        r"|\p{N}"
        rf"| ?[^{_SPACE}\p{{L}}\p{{N}}]+"
        rf"|[{_SPACE}]+(?=\p{{N}})|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    ),
    # The words of K-EXAONE's stretches, see below. Keeps indentation and operators together. Letters take one symbol
    # before them, so that `.append` and `_name` are one word. Digits stay alone, as in all EXAONE models.
    "exaone3-code": rf"{_CONTRACTIONS}|[^{_NEWLINE}\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*)+{_AFTER_LETTERS}",
    # Llama 3's: digits by threes, letters take one symbol before them, marks are symbols.
    "plain": (
        rf"{_CONTRACTIONS}"
        rf"|[^{_NEWLINE}\p{{L}}\p{{N}}]?\p{{L}}+"
        r"|\p{N}{1,3}"
        rf"| ?[^{_SPACE}\p{{L}}\p{{N}}]+[{_NEWLINE}]*"
        rf"|[{_SPACE}]*[{_NEWLINE}]+"
        rf"|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    ),
    # K-EXAONE's: exaone3-code, but words of letters with one blank between them stay together. Superwords are learnt
    # from these stretches and encoded in them. Every border is one of exaone3-code's too.
    SUPERWORDS: (
        rf"{_CONTRACTIONS}|[^{_NEWLINE}\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+{_AFTER_LETTERS}"
    ),
}


LLAMA_CPP_NAMES = {"exaone3": "exaone", "plain": "llama-bpe", SUPERWORDS: "exaone-moe"}
"""Our name of a pattern -> its name in llama.cpp (`tokenizer.ggml.pre`). Words without superwords have none there."""


def _gpt2_table() -> tuple[str, ...]:
    """Printable Latin-1 stands for itself; the other bytes take the code points from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(spare)) for byte in range(256))


CODE_POINT_OF_BYTE = _gpt2_table()
"""GPT-2's alphabet: byte -> a printable code point, none of them white space."""
_MAP = dict(enumerate(CODE_POINT_OF_BYTE))
_UNMAP = {ord(character): byte for byte, character in enumerate(CODE_POINT_OF_BYTE)}


def map_piece(piece: bytes) -> str:
    """Bytes, UTF-8 or not, each written as its code point."""
    return piece.decode("latin-1").translate(_MAP)


def unmap_bytes(mapped: str) -> bytes:
    """The bytes that mapped code points stand for."""
    return mapped.translate(_UNMAP).encode("latin-1")
