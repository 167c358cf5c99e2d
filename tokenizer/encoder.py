"""Text -> ids and back, as `tokenizer.json` says, by the compiled engine.

Contract: the ids that `tokenizers` gives for the same file. Every string that UTF-8 can write comes back unchanged.
Text that looks like a special token is text. A lone surrogate has no bytes, and is a `UserError` instead of a silent
replacement. Texts that crash other libraries are encoded like any other: with the pattern `exaone3-code`, tiktoken
fails at a million spaces in a row, and `tokenizers` at six million. What tokenizer.json says of truncation and padding,
which depend on a reader's use, is not followed.

Cost: 17 to 50 MB/s per core, the slower the more superwords there are (engine/bpe_encoder.py); no threads. Opening
takes about a second at 102,400 ids. Memory: 140 MB at 102,400 ids, 5 bytes for each byte of a batch, and 32 for each
byte of its longest word. Threads that share an encoder take turns; for speed, use one per process.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokenizer.engine import Bytes, Integers, Vocabulary, encode
from tokenizer.formats import read_tokenizer
from twofold.errors import user_error
from twofold.special_ids import EOS_ID


class Encoder:
    """The tokenizer of a folder, for corpus text. Threads may share it, and take turns: encoding writes a cache."""

    def __init__(self, folder: Path) -> None:
        self._record = read_tokenizer(folder)
        self._vocabulary = Vocabulary.of(self._record.pattern, self._record.byte_ids, self._record.merges)
        self._one_at_a_time = threading.Lock()

    @property
    def vocab_size(self) -> int:
        """How many ids there are, specials included."""
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

    def encode_utf8(self, text: Bytes, ends: Integers) -> tuple[npt.NDArray[np.uint32], Integers]:
        """Documents, one after the other in valid UTF-8 -> (ids, each document followed by eos; its ends in ids)."""
        with self._one_at_a_time:
            return encode(text, ends, self._vocabulary, EOS_ID)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; specials are skipped, bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.piece(number) for number in ids if not self.is_special(number)).decode("utf-8", "replace")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        problem, hint = (
            f"holds a lone surrogate at {error.start}",
            "decode the bytes as UTF-8, or with errors='replace'",
        )
        raise user_error("text", text[error.start : error.end], problem, hint) from None
