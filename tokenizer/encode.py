"""Text -> ids and back, as `tokenizer.json` says, by our own machine code.

Contract: the ids of `tokenizers` for the same file, lossless for every string that UTF-8 can write. What looks like
a special token in text is text. A lone surrogate is not text and has no bytes: `UserError`, rather than a
replacement in silence; bytes that are no UTF-8 are for the caller to refuse. Texts that stop the other engines
(a million spaces in a row end tiktoken, six million end `tokenizers`) are encoded like all others.

Cost: 50 MB/s a core (bpe.py); opening takes about 1 s at 102,400 ids; 4 bytes of memory for each byte of a
batch, and 32 for each byte of its longest word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from configs.errors import user_error
from tokenizer import bpe
from tokenizer.convert import EOS_ID
from tokenizer.cutter import Cutter, cutter_of
from tokenizer.patterns import CODE_POINT_OF_BYTE, unmap_bytes

TOKENIZER_FILE = "tokenizer.json"


class Encoder:
    """The tokenizer of a folder, for corpus text. Not for several threads at once: they would share a cache."""

    def __init__(self, folder: Path) -> None:
        path = folder / TOKENIZER_FILE
        try:
            self._record = _read(path)
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            problem = f"is no tokenizer ({error})" if isinstance(error, (OSError, ValueError)) else f"is no tokenizer ({error!r})"
            raise user_error(str(path), None, problem, "train the tokenizer again") from None
        self._bytes = [unmap_bytes(piece) if number >= self._record.specials else b"" for number, piece in enumerate(self._record.pieces)]

    @property
    def vocab_size(self) -> int:
        """Ids in all, specials included."""
        return len(self._record.pieces)
