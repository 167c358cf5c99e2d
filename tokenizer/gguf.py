"""tokenizer.json -> the fields of a GGUF file from which llama.cpp gives the same ids.

Contract: llama.cpp cuts text by expressions of its own, chosen by name, so a pattern that it does not know is refused.
Specials are control tokens, which llama.cpp reads in text only if it is asked to (`parse_special`), and it adds no bos.
"""

from __future__ import annotations

from pathlib import Path

from tokenizer.formats import TOKENIZER_FILE, read_tokenizer
from tokenizer.patterns import LLAMA_CPP_NAMES, PATTERNS, map_piece
from twofold.errors import user_error
from twofold.special_ids import EOS_ID, PAD_ID, UNK_ID

_NORMAL, _CONTROL = 1, 3


def fields(folder: Path) -> dict[str, str | bool | int | list[str] | list[int]]:
    """The fields `tokenizer.ggml.*` of the tokenizer in `folder`."""
    record = read_tokenizer(folder)
    names = {PATTERNS[pattern]: name for pattern, name in LLAMA_CPP_NAMES.items()}
    if record.pattern not in names:
        raise user_error(
            str(folder / TOKENIZER_FILE),
            None,
            "cuts text by a pattern that llama.cpp does not know",
            "train with tokenizer.superwords above 0, or with tokenizer.pattern=exaone3 or plain",
        )
    specials = [piece.decode() for piece in record.pieces[: record.specials]]
    tokens = [*specials, *map(map_piece, record.pieces[record.specials :])]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": names[record.pattern],
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [_CONTROL] * len(specials) + [_NORMAL] * (len(tokens) - len(specials)),
        "tokenizer.ggml.merges": [f"{tokens[left]} {tokens[right]}" for left, right, _ in record.merges.tolist()],
        "tokenizer.ggml.bos_token_id": EOS_ID,
        "tokenizer.ggml.eos_token_id": EOS_ID,
        "tokenizer.ggml.unknown_token_id": UNK_ID,
        "tokenizer.ggml.padding_token_id": PAD_ID,
        "tokenizer.ggml.add_bos_token": False,
    }
