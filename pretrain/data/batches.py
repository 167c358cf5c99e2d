"""Token shards -> batches.

Contract: a source's shards are one long stream in the index's order. Sequence i of length T is tokens i*T .. i*T+T:
T + 1 of them, where the last one is a target here and the first token of the next sequence. `Batches.read` is random
access through memory maps, with no iterator state, no workers and nothing to resume; a batch costs its own bytes.
Rank r of R reads rows r*B/R .. (r+1)*B/R of the global batch, so the batch is the same on any number of ranks.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor

from pretrain.data.order import Order
from pretrain.data.plan import Step
from tokenizer.shards import Index, open_tokens
from twofold.errors import user_error

HASH_MODULUS = 1 << 32


class TokenStream:
    """The tokens of one source, shard after shard, addressed by position (64-bit)."""

    def __init__(self, index: Index, split: str, source: str) -> None:
        shards = index.splits[split][source].shards
        self._paths = tuple(index.folder / shard.path for shard in shards)
        self._ends = tuple(accumulate(shard.tokens for shard in shards))

    @property
    def tokens(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, first: int, count: int) -> np.ndarray:
        """Tokens first .. first+count-1 as int64."""
        assert first >= 0, first
        assert first + count <= self.tokens, (first, count, self.tokens)
        parts = []
        shard = bisect_right(self._ends, first)
        while count:
            begin = self._ends[shard - 1] if shard else 0
            here = min(count, self._ends[shard] - first)
            parts.append(_mapped(self._paths[shard])[first - begin : first - begin + here])
            first, count, shard = first + here, count - here, shard + 1
        return np.concatenate(parts).astype(np.int64)


class Batches:
    """The plan's global batches."""

    def __init__(self, index: Index, order: Order) -> None:
        self._order = order
        self._vocab_size = index.vocab_size
        self._streams = [TokenStream(index, "train", source) for source in order.sources]

    def read(self, step: Step, rank: int = 0, size: int = 1) -> Tensor:
        """This rank's rows of the step's global batch, int64 [sequences / size, T + 1]."""
        assert step.sequences % size == 0, (step.sequences, size)
        rows = step.sequences // size
        samples = self._order.samples(step.phase, step.first_sample + rank * rows, rows)
        length = step.sequence_length
        batch = np.stack(
            [
                self._streams[source].read(sequence * length, length + 1)
                for source, sequence in zip(samples.source.tolist(), samples.sequence.tolist(), strict=True)
            ]
        )
        if batch.max() >= self._vocab_size:
            row = int(batch.max(axis=1).argmax())
            source = f"shards of {self._order.sources[samples.source[row]]}"
            problem = f"is a token id outside the vocabulary of {self._vocab_size}"
            hint = "find the altered file with `twofold verify RECIPE`, remove the shards' folder, and run again"
            raise user_error(source, int(batch.max()), problem, hint)
        return torch.from_numpy(batch)


class Prefetched:
    """One rank's rows; a thread reads the next step's while the current step runs.

    There is nothing to resume: rows that were prefetched for another step are dropped. An error surfaces in the `read`
    that asks for the rows.
    """

    def __init__(self, batches: Batches, rank: int, size: int) -> None:
        self._batches, self._rank, self._size = batches, rank, size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ahead: tuple[Step, Future[Tensor]] | None = None

    def read(self, step: Step, following: Step | None = None) -> Tensor:
        """The rows of `step` [sequences / size, T + 1]; starts to read the rows of `following`."""
        ahead, self._ahead = self._ahead, None
        rows = ahead[1].result() if ahead and ahead[0] == step else self._batches.read(step, self._rank, self._size)
        if following is not None:
            self._ahead = following, self._thread.submit(self._batches.read, following, self._rank, self._size)
        return rows

    def close(self) -> None:
        """End the thread and drop what was prefetched."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def batch_hash(rows: Tensor, first_row: int) -> int:
    """Fingerprint of some rows of a global batch; those of its parts add up to the batch's modulo 2**32.

    Each row is hashed with its place in the batch, so the sum is the same on any number of ranks, and exact in float64.
    """
    total: int = sum(xxhash.xxh64_intdigest(row.tobytes(), seed=first_row + n) for n, row in enumerate(rows.numpy()))
    return total % HASH_MODULUS


@functools.lru_cache(maxsize=256)
def _mapped(path: Path) -> np.ndarray:
    """A shard's memory map; 256 stay open, well below the usual limit of open files."""
    return open_tokens(path, scattered=True)
