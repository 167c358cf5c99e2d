"""Communication between ranks outside of the engine: sums, agreement, barriers.

Contract: every method except the properties is collective: all ranks call it, in the same order, and all get the same
answer, bit for bit. Whatever only one rank can see (a signal, a damaged file, a full disk) is exchanged here before
anyone acts on it, because ranks that take different branches hang ZeRO-3.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

_T = TypeVar("_T")
_OF_SLURM = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}


def place() -> tuple[int, int]:
    """(rank, size) from the launcher's environment; srun's variables are copied to those that torch reads."""
    for name, slurms in _OF_SLURM.items():
        if name not in os.environ and slurms in os.environ:
            os.environ[name] = os.environ[slurms]
    if "SLURM_NTASKS_PER_NODE" in os.environ:
        os.environ.setdefault("LOCAL_SIZE", os.environ["SLURM_NTASKS_PER_NODE"])
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class OtherRankFailed(Exception):
    """Another rank failed and reports why."""


@dataclass(frozen=True)
class Ranks:
    """One process among `size`; with a size of 1, no process group is needed."""

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

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank. Values are pickled."""
        everyone: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(everyone, value)
        return everyone

    def from_first(self, value: Any) -> Any:
        """The first rank's value, which is pickled."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def on_first(self, action: Callable[[], _T]) -> _T:
        """What `action` returns on the first rank, on every rank; its failure there ends all of them."""
        value, failure = None, None
        if self.is_first:
            try:
                value = action()
            except Exception as error:
                failure = error
        found, failed = self.from_first((value, failure is not None))
        if failed:
            raise failure or OtherRankFailed
        answer: _T = found
        return answer

    def barrier(self) -> None:
        self.sum([0.0])
