"""What the ranks say to each other outside the engine: sums, agreement, barriers.

Contract: every method but the properties is collective: all ranks call it, in the same order, and all
get the same answer, bit for bit. A decision that only one rank can see (a signal, a damaged file, a
full disk) goes through here before anyone acts on it; ranks that branch apart hang ZeRO-3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """One process among `size`; without a process group it is alone."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over ranks in float64 (integers below 2**53 are exact)."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def all_true(self, here: bool) -> bool:
        """Whether it holds on every rank."""
        return self.sum([float(here)])[0] == self.size

    def barrier(self) -> None:
        self.sum([0.0])
