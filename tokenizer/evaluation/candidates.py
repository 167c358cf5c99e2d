"""Any tokenizer.json, ours or a public one, in a form that can be measured.

Contract: `load` takes byte-level BPE and sentencepiece's kinds (BPE or Unigram, `▁` for a blank, bytes for unknown
characters). Tokens of other kinds do not give the text back, so those are a `UserError`, as is a file that `tokenizers`
cannot read. Text is encoded as corpus text: no token is added around it, and text that looks like a special token is
text. Cost: 0.3 to 2 s and up to 0.5 GB per file. All candidates are encoded by `tokenizers`, at 2 MB/s per core, so
that they are measured through the same engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Engine

from tokenizer.formats import TOKENIZER_FILE
from tokenizer.patterns import CODE_POINT_OF_BYTE, unmap_bytes
from twofold.errors import UserError, user_error

CURVE = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the merges that `prefixes` keeps."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_BLANK = "▁"
_ALPHABET = frozenset(CODE_POINT_OF_BYTE)


@dataclass(frozen=True)
class Candidate:
    """A tokenizer with a name."""

    name: str
    engine: Engine
    pieces: tuple[bytes | None, ...]
    """What each id stands for; None for specials and unused ids."""

    @property
    def vocab_size(self) -> int:
        """Ids, specials included."""
        return len(self.pieces)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        return [row.ids for row in self.engine.encode_batch_fast(list(texts), add_special_tokens=False)]

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """(begin, end) of each token in its text, in code points; a part of a character spans it all."""
        return [row.offsets for row in self.engine.encode_batch(list(texts), add_special_tokens=False)]


def load(name: str, path: Path) -> Candidate:
    """The tokenizer of a file."""
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text)
        kind = raw["model"].get("type")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused(path, f"is not a tokenizer.json ({error!r})") from None
    if kind not in ("BPE", "Unigram"):
        raise _refused(path, f"is of the kind {kind}, whose tokens do not give the text back")
    return _candidate(name, path, raw, text)


def load_folder(folder: Path) -> list[Candidate]:
    """Every `<name>/tokenizer.json` and `<name>.json` of a folder, by name."""
    found = {path.parent.name: path for path in sorted(folder.glob(f"*/{TOKENIZER_FILE}"))}
    for path in sorted(folder.glob("*.json")):
        if path.stem in found:
            raise user_error(str(path), None, f"has the name of {found[path.stem]}", "rename one of them")
        found[path.stem] = path
    if not found:
        hint = "put <name>/tokenizer.json or <name>.json files there"
        raise user_error("--with", str(folder), "holds no tokenizer", hint)
    return [load(name, found[name]) for name in sorted(found)]


def prefixes(path: Path) -> Iterator[Candidate]:
    """Our tokenizer with fewer merges, `CURVE`: greedy BPE of a smaller vocabulary is a prefix of a larger one."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    vocabulary, merges = raw["model"]["vocab"], raw["model"]["merges"]
    first = len(vocabulary) - len(merges)
    for share in CURVE:
        kept = round(share * len(merges))
        smaller = {token: number for token, number in vocabulary.items() if number < first + kept}
        cut = {**raw, "model": {**raw["model"], "vocab": smaller, "merges": merges[:kept]}}
        yield _candidate(f"{first + kept}", path, cut, json.dumps(cut))


def _candidate(name: str, path: Path, raw: Mapping[str, Any], text: str) -> Candidate:
    try:
        engine = Engine.from_str(text)
    except Exception as error:  # the binding raises bare Exception
        raise _refused(path, f"cannot be read by tokenizers ({error})") from None
    engine.no_truncation()
    engine.no_padding()
    engine.encode_special_tokens = True
    byte_level = '"ByteLevel"' in json.dumps((raw.get("pre_tokenizer"), raw.get("decoder")))
    tokens = raw.get("added_tokens") or ()
    specials, added = {row["content"] for row in tokens if row["special"]}, {row["content"] for row in tokens}
    specials.add(raw["model"].get("unk_token") or "")
    vocabulary = engine.get_vocab()
    pieces: list[bytes | None] = [None] * (1 + max(vocabulary.values(), default=-1))
    for token, number in vocabulary.items():
        if token not in specials:
            pieces[number] = _bytes_of(token, byte_level and token not in added)
    return Candidate(name, engine, tuple(pieces))


def _bytes_of(token: str, byte_level: bool) -> bytes:
    if byte_level and _ALPHABET.issuperset(token):
        return unmap_bytes(token)
    if match := _BYTE.fullmatch(token):
        return bytes([int(match[1], 16)])
    return (token if byte_level else token.replace(_BLANK, " ")).encode("utf-8", "replace")


def _refused(path: Path, problem: str) -> UserError:
    hint = "give the tokenizer.json of a byte-level BPE or sentencepiece tokenizer"
    return user_error(str(path), None, problem, hint)
