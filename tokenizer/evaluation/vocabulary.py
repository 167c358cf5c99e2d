"""What a vocabulary holds, and which of its tokens training never sees.

Contract: `contents` uses the pieces alone. `usage` counts ids over the training shards, which it maps without loading.
Tokens that are rare or absent in training cannot be learned and may act as glitch tokens (Land and Bartolo 2024,
"Fishing for Magikarp"). Many of them are steps on the way to a longer token, and do no harm until someone writes them.
Cost: 1 to 2 s per 1e9 tokens, 8 bytes per id.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenizer.evaluation.candidates import Candidate
from tokenizer.evaluation.compression import partial_ids
from tokenizer.shards import Index, open_tokens

RARE = 100
"""Tokens with fewer occurrences in training may be glitch tokens."""
EXAMPLES = 24
LISTED = 200
_STEP = 1 << 24
_DECADES = (0, 1, 10, 100, 1_000, 10_000)
_HAN = {"CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC"}
Row = dict[str, Any]


def contents(candidate: Candidate) -> dict[str, Row]:
    """Kind of token -> how many there are, and the longest of them."""
    texts = [piece.decode("utf-8") for piece in candidate.pieces if piece is not None and _decodes(piece)]
    found: dict[str, Row] = {"longest": {"count": len(texts), "examples": _longest(texts)}}
    for kind, holds in _KINDS.items():
        chosen = [text for text in texts if holds(text)]
        found[kind] = {"count": len(chosen), "examples": _longest(chosen)}
    return found


def partial_count(candidate: Candidate) -> int:
    """How many tokens are not whole characters, apart from the single bytes."""
    single = [piece is not None and len(piece) == 1 for piece in candidate.pieces]
    return int((partial_ids(candidate) & ~np.array(single)).sum())


def usage(candidate: Candidate, index: Index) -> Row:
    """How often our tokens occur in the training shards."""
    counts = token_counts(index)
    usual = np.array([piece is not None and len(piece) > 1 for piece in candidate.pieces], np.bool_)
    own = counts[usual]
    rare = np.flatnonzero(usual & (counts < RARE))
    ordered = rare[np.lexsort((-rare, counts[rare]))][:LISTED].tolist()
    most = int(own.max(initial=0))
    borders = [*(decade for decade in _DECADES if decade <= most), most + 1]
    return {
        "training_tokens": int(counts.sum()),
        "tokens": int(usual.sum()),
        "unused": int((own == 0).sum()),
        "rare": int((own < RARE).sum()),
        "rare_below": RARE,
        "by_count": [
            {"least": low, "most": high - 1, "tokens": int(((own >= low) & (own < high)).sum())}
            for low, high in pairwise(borders)
        ],
        "candidates": [
            {"id": number, "count": int(counts[number]), "bytes": (candidate.pieces[number] or b"").hex()}
            for number in ordered
        ],
    }


def token_counts(index: Index) -> npt.NDArray[np.int64]:
    """How often each id occurs in the training shards, int64 [vocab_size]."""
    counts = np.zeros(index.vocab_size, np.int64)
    for entry in index.splits["train"].values():
        for shard in entry.shards:
            tokens = open_tokens(index.folder / shard.path)
            for first in range(0, len(tokens), _STEP):
                counts += np.bincount(tokens[first : first + _STEP], minlength=index.vocab_size)
    return counts


def _longest(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=lambda text: (-len(text), text))[:EXAMPLES]


def _decodes(piece: bytes) -> bool:
    return piece.decode("utf-8", "ignore").encode() == piece


def _scripts(text: str) -> set[str]:
    """Scripts of the letters; kana and Han characters are one, as in Japanese."""
    names = {re.split("[ -]", unicodedata.name(letter, "MODIFIER"))[0] for letter in text if letter.isalpha()}
    return {"HAN" if name in _HAN else name for name in names - {"MODIFIER"}}


_KINDS: dict[str, Callable[[str], bool]] = {
    "across words": lambda text: len(text.split()) > 1,
    "mixed scripts": lambda text: len(_scripts(text)) > 1,
    "letters and digits": lambda text: any(map(str.isalpha, text)) and any(map(str.isdigit, text)),
    "several digits": lambda text: text.strip().isdigit() and len(text.strip()) > 1,
    "one character repeated": lambda text: len(text) > 2 and len(set(text)) == 1,
    "punctuation": lambda text: len(text) > 2 and not any(c.isalnum() or c.isspace() for c in text),
    "white space": lambda text: len(text) > 1 and text.isspace(),
    "control characters": lambda text: any(unicodedata.category(c) == "Cc" and c not in "\t\n\r" for c in text),
}
