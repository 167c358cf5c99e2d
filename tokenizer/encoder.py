"""Text -> ids and back, as `tokenizer.json` says, by machine code of our own.

Contract: the ids that `tokenizers` gives for the same file; lossless for every string that UTF-8 can write. What
looks like a special token in text is text. A lone surrogate is not text and has no bytes: `UserError`, rather
than a replacement in silence. Texts that end other engines are encoded like all others: with the pattern
`exaone3-code`, tiktoken gives up at a million spaces in a row, and `tokenizers` at six million.

Cost: 17 to 50 MB/s a core, the less the more superwords (bpe.py), no threads; opening
takes about a second at 102,400 ids. Memory: 140 MB at
102,400 ids, 5 bytes for each byte of a batch, and 32 for each byte of its longest word.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokenizer.engine import bpe_encoder
from tokenizer.engine.pretokenizer import cutter_of
from tokenizer.formats import read_tokenizer
from twofold.errors import user_error
from twofold.special_ids import EOS_ID


class Encoder:
    """The tokenizer of a folder, for corpus text. One thread at a time: encoding writes a cache."""

    def __init__(self, folder: Path) -> None:
        self._record = read_tokenizer(folder)
        self._cutter = cutter_of(self._record.pattern)
        self._vocabulary = bpe_encoder.vocabulary_of(self._record.byte_ids, self._record.merges)

    @property
    def vocab_size(self) -> int:
        """Ids in all, specials included."""
        return len(self._record.pieces)

    def is_special(self, number: int) -> bool:
        """Whether the id stands for no text."""
        return number < self._record.specials

    def piece(self, number: int) -> bytes:
        """The bytes that an id stands for; the name of a special."""
        return self._record.pieces[number]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, no special added."""
        encoded = [_utf8(text) for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        ids, id_ends = self.encode_utf8(np.frombuffer(b"".join(encoded), np.uint8), ends)
        return [part[:-1].tolist() for part in np.split(ids, id_ends[:-1])] if encoded else []

    def encode_utf8(
        self, text: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Documents, one after the other in valid UTF-8 -> (ids, each document followed by eos; its ends in ids)."""
        padded = np.zeros(len(text) + bpe_encoder.PADDING, np.uint8)
        padded[: len(text)] = text
        ids = np.empty(len(text) + len(ends), np.uint32)
        id_ends = np.empty(len(ends), np.int64)
        written = bpe_encoder.encode(padded, ends, self._cutter, self._vocabulary, np.uint32(EOS_ID), ids, id_ends)
        return ids[:written], id_ends

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; specials are skipped, bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.piece(number) for number in ids if not self.is_special(number)).decode("utf-8", "replace")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise user_error(
            "text", text[error.start : error.end], f"holds a lone surrogate at {error.start}",
            "decode the bytes properly, or with errors='replace'",
        ) from None  # fmt: skip
