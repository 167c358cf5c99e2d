"""Pieces in rank order -> `tokenizer.json`, the artefact of record, and the bytes of each id.

Contract: ids are pad 0, bos 1, eos 2, unk 3, reserved slots, the 256 bytes in order of value, then one id a
merge in order of rank. No normaliser, no token added around a text. Seconds at 102,400.

A piece's merge is the pair of parts that encoding it with the earlier ranks alone leaves: always two,
since training made it from two. No other split of it can be met when text is encoded: within a piece's
bounds merges happen as they do in the piece alone. (Listing every split would double the file.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Engine

from configs.checks import NAMED_SPECIALS
from configs.files import atomic_path, write_json
from tokenizer.patterns import CODE_POINT_OF_BYTE, PATTERNS, unmap_bytes

SPECIALS = {"pad_token": "<|pad|>", "bos_token": "<|bos|>", "eos_token": "<|eos|>", "unk_token": "<|unk|>"}
EOS_ID = list(SPECIALS).index("eos_token")
assert len(SPECIALS) == NAMED_SPECIALS


def special_tokens(reserved: int) -> list[str]:
    """Specials in the order of their ids, from 0."""
    return [*SPECIALS.values(), *(f"<|reserved_{number}|>" for number in range(reserved))]


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
    """Write tokenizer.json, what `transformers` wants beside it, and token_bytes.npy."""
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
    with atomic_path(folder / "tokenizer.json") as path:
        engine.save(str(path), pretty=False)
    write_json(folder / "special_tokens_map.json", SPECIALS)
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **SPECIALS},
    )
    sizes = [0] * len(specials) + [1] * len(CODE_POINT_OF_BYTE) + [len(unmap_bytes(piece)) for piece in pieces]
    with atomic_path(folder / "token_bytes.npy") as path, path.open("wb") as stream:
        np.save(stream, np.array(sizes, np.uint16))


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
