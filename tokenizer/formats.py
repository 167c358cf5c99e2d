"""Pieces in rank order -> `tokenizer.json`, the artifact of record, and the same for tiktoken; and back.

    tokenizer.json        for `tokenizers` and `transformers` (with tokenizer_config.json, special_tokens_map.json)
    tokenizer.tiktoken    one line per id without specials: base64 of its bytes, the id
    tiktoken.json         the other arguments of `tiktoken.Encoding`: name, pat_str, special_tokens, explicit_n_vocab
    token_bytes.npy       how many bytes each id stands for, uint16

Contract: ids are those of twofold.special_ids, reserved slots, the 256 bytes in order of value, then one id per merge
in order of rank. Nothing is normalised, and no token is added around a text. All files give equal ids. Writing takes
seconds at 102,400 ids. `tiktoken.load.load_tiktoken_bpe` caches files by path, not by content: pass the hash in the
manifest as `expected_hash`, or read the lines yourself.

A piece's merge is the pair of parts that remains when it is encoded with the earlier ranks alone: always two, since
training made it from two. Encoding never meets another split of it, because within a piece's bounds merges happen as
they do in the piece alone. (Listing every split would double the file.)
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Engine

from tokenizer.patterns import CODE_POINT_OF_BYTE, PATTERNS, unmap_bytes
from twofold.errors import user_error
from twofold.files import atomic_path, read_json, write_json
from twofold.special_ids import SPECIAL_TOKENS, TOKEN_ROLES

TOKENIZER_FILE = "tokenizer.json"
_TRANSFORMERS_SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_input_names": ["input_ids", "attention_mask"],  # transformers 4 would add token_type_ids
    "clean_up_tokenization_spaces": False,
    "add_bos_token": False,
    "add_eos_token": False,
}


def special_tokens(reserved: int) -> list[str]:
    """Specials in the order of their ids, from 0."""
    return [*SPECIAL_TOKENS, *(f"<|reserved_{number}|>" for number in range(reserved))]


def merges_of(pieces: Sequence[str]) -> list[tuple[str, str]]:
    """The pair that each piece (mapped code points, in rank order) was merged from."""
    ranks: dict[tuple[str, str], int] = {}
    merges = []
    for rank, piece in enumerate(pieces):
        parts = _encode(list(piece), ranks)
        assert len(parts) == 2, (piece, parts)
        ranks[parts[0], parts[1]] = rank
        merges.append((parts[0], parts[1]))
    return merges


def write_tokenizer(folder: Path, pieces: Sequence[str], reserved: int, pattern: str) -> None:
    """Write tokenizer.json, the files that `transformers` and tiktoken need, and token_bytes.npy."""
    specials = special_tokens(reserved)
    vocabulary = {token: number for number, token in enumerate([*specials, *CODE_POINT_OF_BYTE, *pieces])}
    engine = Engine(models.BPE(vocab=vocabulary, merges=merges_of(pieces)))
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pattern]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    with atomic_path(folder / TOKENIZER_FILE) as path:
        engine.save(str(path), pretty=False)
    write_json(folder / "special_tokens_map.json", TOKEN_ROLES)
    write_json(folder / "tokenizer_config.json", {**_TRANSFORMERS_SETTINGS, **TOKEN_ROLES})
    pieces_of_bytes = [unmap_bytes(piece) for piece in [*CODE_POINT_OF_BYTE, *pieces]]
    _write_tiktoken(folder, pieces_of_bytes, specials, PATTERNS[pattern])
    sizes = [0] * len(specials) + [len(piece) for piece in pieces_of_bytes]
    with atomic_path(folder / "token_bytes.npy") as path, path.open("wb") as stream:
        np.save(stream, np.array(sizes, np.uint16))


def _write_tiktoken(folder: Path, pieces: Sequence[bytes], specials: Sequence[str], pattern: str) -> None:
    """tiktoken ranks pieces by id, and merges any pair that makes a piece, which is the same (see the module)."""
    lines = [b"%s %d\n" % (base64.b64encode(piece), number) for number, piece in enumerate(pieces, start=len(specials))]
    with atomic_path(folder / "tokenizer.tiktoken") as path:
        path.write_bytes(b"".join(lines))
    write_json(
        folder / "tiktoken.json",
        {
            "name": f"twofold-{hashlib.sha256(b''.join(lines)).hexdigest()[:12]}",
            "pat_str": pattern,
            "special_tokens": {token: number for number, token in enumerate(specials)},
            "explicit_n_vocab": len(specials) + len(pieces),
        },
    )


@dataclass(frozen=True)
class Record:
    """What a tokenizer.json says."""

    pattern: str
    specials: int
    """How many of the lowest ids are special."""
    pieces: tuple[bytes, ...]
    """What each id stands for: its bytes, or the special's name."""
    byte_ids: npt.NDArray[np.uint32]
    """Id of each byte, uint32 [256]."""
    merges: npt.NDArray[np.uint32]
    """Ids of left part, right part and result, in order of rank, uint32 [merges, 3]; results ascend."""


def read_tokenizer(folder: Path) -> Record:
    """Read the tokenizer.json that `write_tokenizer` wrote, or `transformers` after it; else a `UserError`."""
    path = folder / TOKENIZER_FILE
    try:
        return _record(read_json(path))
    except (FileNotFoundError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        problem, hint = f"is not a tokenizer ({error!r})", f"restore it, or remove the folder {folder} and run again"
        raise user_error(str(path), None, problem, hint) from None


def _record(raw: Mapping[str, Any]) -> Record:
    split, byte_level = raw["pre_tokenizer"]["pretokenizers"]
    vocabulary, pairs = raw["model"]["vocab"], raw["model"]["merges"]
    specials = [token["content"] for token in raw["added_tokens"]]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    merges = [(vocabulary[left], vocabulary[right], vocabulary[left + right]) for left, right in pairs]
    plain = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    if (
        raw["normalizer"] is not None
        or _adds_tokens(raw["post_processor"])
        or (split["type"], split["behavior"], split["invert"]) != ("Split", "Isolated", False)
        or (byte_level["type"], byte_level["add_prefix_space"], byte_level["use_regex"]) != ("ByteLevel", False, False)
        or any(raw["model"].get(key) != value for key, value in plain.items())
        or [vocabulary[token] for token in tokens] != list(range(len(tokens)))
        or tokens[: len(specials)] != specials
        or [number for *_, number in merges] != list(range(len(tokens) - len(merges), len(tokens)))
    ):
        raise ValueError("it was not written by this project")
    return Record(
        pattern=split["pattern"]["Regex"],
        specials=len(specials),
        pieces=(*(token.encode() for token in specials), *map(unmap_bytes, tokens[len(specials) :])),
        byte_ids=np.array([vocabulary[character] for character in CODE_POINT_OF_BYTE], np.uint32),
        merges=np.array(merges, np.uint32).reshape(-1, 3),
    )


def _adds_tokens(post_processor: Mapping[str, Any] | None) -> bool:
    """Whether ids are added around a text; `transformers` saves a template that adds none."""
    return post_processor is not None and (
        post_processor["type"] != "TemplateProcessing" or bool(post_processor["special_tokens"])
    )


def _encode(parts: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of one word: the pair of lowest rank is merged, leftmost first."""
    never = len(ranks)
    while len(parts) > 1:
        pairs = [ranks.get(pair, never) for pair in pairwise(parts)]
        best = min(pairs)
        if best == never:
            break
        at = pairs.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
