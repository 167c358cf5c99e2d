"""Text -> ids and back, through `tokenizer.json`.

Contract: lossless for every string that UTF-8 can write. What looks like a special token in text is
text. A lone surrogate is not text and has no bytes: `UserError`, rather than a replacement in silence.
Cost: 1.5 to 2.5 MB/s a thread; 40 bytes of memory a token of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as Engine

from configs.errors import user_error

TOKENIZER_FILE = "tokenizer.json"


class Encoder:
    """The tokenizer of a folder, for corpus text."""

    def __init__(self, folder: Path) -> None:
        path = folder / TOKENIZER_FILE
        try:
            self._engine = Engine.from_file(str(path))
        except Exception as error:  # the binding raises bare Exception
            raise user_error(str(path), None, f"is no tokenizer ({error})", "train the tokenizer again") from None
        # Corpus text may quote special tokens; they must not become special there.
        self._engine.encode_special_tokens = True

    @property
    def vocab_size(self) -> int:
        """Ids in all, specials included."""
        return int(self._engine.get_vocab_size(with_added_tokens=True))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, no special added; uses all cores unless TOKENIZERS_PARALLELISM=false."""
        for text in texts:
            _require_utf8(text)
        return [encoding.ids for encoding in self._engine.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; specials are skipped, bytes that are no UTF-8 become U+FFFD."""
        return str(self._engine.decode(list(ids), skip_special_tokens=True))


def _require_utf8(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise user_error(
            "text", text[error.start : error.end], f"holds a lone surrogate at {error.start}",
            "decode the bytes properly, or with errors='replace'",
        ) from None  # fmt: skip
