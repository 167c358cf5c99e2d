"""Bits per byte on held-out windows, by source: comparable across tokenizers, unlike loss per token.

Contract: the windows are the first `sequences_per_source` of each source's validation stream, at one length for the
whole run, so curves are comparable across phases. The result does not depend on the number of ranks (up to the order
of float64 sums): the windows are distributed, padded with empty ones so that every rank makes the same number of
forward passes, and summed. bits/byte = sum of -log2 p(token) / sum of bytes(token), over tokens that stand for bytes;
special tokens (end of document) and padding count in neither sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretrain.data.batches import TokenStream
from pretrain.engine.distributed import Ranks
from twofold.errors import user_error
from twofold.files import patiently

TokenLosses = Callable[[Tensor], Tensor]
"""[B, T+1] tokens -> -log p [B, T] in nats."""


class Validation:
    """The held-out windows of all sources, cut once."""

    def __init__(
        self, streams: Mapping[str, TokenStream], token_bytes: Tensor, length: int, sequences: int, ranks: Ranks
    ) -> None:
        """`streams`: held-out tokens by source; `token_bytes`: bytes of text by token id, 0 for specials."""
        cut = {source: _windows(stream, length, sequences) for source, stream in streams.items() if stream.tokens > 1}
        self.sources = tuple(cut)
        self._ranks = ranks
        self._token_bytes = token_bytes
        windows = [window for source in self.sources for window in cut[source]]
        owners = [number for number, source in enumerate(self.sources) for _ in cut[source]]
        self._windows = torch.from_numpy(np.stack(windows)) if windows else torch.empty((0, length + 1))
        self._owners = torch.tensor(owners, dtype=torch.int64)

    def bits_per_byte(self, token_losses: TokenLosses, batch: int) -> dict[str, float]:
        """Source -> bits per byte, with `batch` windows per forward pass. Collective."""
        bits = torch.zeros(len(self.sources), dtype=torch.float64)
        text_bytes = torch.zeros(len(self.sources), dtype=torch.float64)
        stride = batch * self._ranks.size
        for first in range(0, len(self._windows), stride):
            windows_BU, owners_B = self._share(first + batch * self._ranks.rank, batch)
            nll_BT = token_losses(windows_BU.clamp(min=0)).to("cpu", torch.float64)
            targets_BT = windows_BU[:, 1:]
            bytes_BT = torch.where(targets_BT >= 0, self._token_bytes[targets_BT.clamp(min=0)], 0).double()
            nll_BT = torch.where(bytes_BT > 0, nll_BT, 0.0)
            bits.index_add_(0, owners_B, nll_BT.sum(1) / np.log(2))
            text_bytes.index_add_(0, owners_B, bytes_BT.sum(1))
        totals = self._ranks.sum([*bits.tolist(), *text_bytes.tolist()])
        half = len(self.sources)
        return {s: totals[n] / totals[half + n] for n, s in enumerate(self.sources) if totals[half + n] > 0}

    def _share(self, first: int, batch: int) -> tuple[Tensor, Tensor]:
        """`batch` windows from `first` on, padded with empty ones."""
        windows, owners = self._windows[first : first + batch], self._owners[first : first + batch]
        lacking = batch - len(windows)
        empty = torch.full((lacking, self._windows.shape[1]), -1, dtype=torch.int64)
        return torch.cat((windows, empty)), torch.cat((owners, torch.zeros(lacking, dtype=torch.int64)))


def read_token_bytes(tokenizer: Path, vocab_size: int) -> Tensor:
    """Bytes of text by token id, int64 [vocab_size], from the tokenizer's `token_bytes.npy`."""
    path = tokenizer / "token_bytes.npy"
    try:
        table = patiently(np.load, path, allow_pickle=False)
    except (FileNotFoundError, EOFError, ValueError) as error:
        hint = f"restore it, or remove the folder {tokenizer} and run again"
        raise user_error(str(path), None, f"cannot be read ({error})", hint) from None
    if table.shape != (vocab_size,):
        problem = f"lists {table.size} tokens, and the shards were built with {vocab_size}"
        raise user_error(str(path), None, problem, "pass the tokenizer that the shards were built with")
    return torch.from_numpy(table.astype(np.int64))


def _windows(stream: TokenStream, length: int, sequences: int) -> list[np.ndarray]:
    """The first windows of length + 1 tokens; the last one is padded with -1."""
    count = min(sequences, -(-(stream.tokens - 1) // length))
    windows = []
    for number in range(count):
        window = np.full(length + 1, -1, np.int64)
        tokens = stream.read(number * length, min(length + 1, stream.tokens - number * length))
        window[: len(tokens)] = tokens
        windows.append(window)
    return windows
