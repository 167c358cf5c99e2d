"""The tensors of a checkpoint: one safetensors file per rank, readable by any number of ranks.

    state/rank-00000-of-00008.safetensors    {kind}/{parameter}, float32, one axis

Contract: a rank writes the part of every parameter that ZeRO-3 gives it: elements r*s .. (r+1)*s of the flattened
parameter, with s = ceil(elements / ranks); the last ranks' parts are cut where the parameter ends. Any range of any
parameter can be read back by slices, by any number of ranks, without conversion. The files hold plain numbers only:
no pickle is ever opened. `SavedTensors.read` costs the bytes that it returns.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from pretrain.checkpoints import safetensors_stream
from twofold.files import patiently

MASTER, FIRST_MOMENT, SECOND_MOMENT = "master", "exp_avg", "exp_avg_sq"
KINDS = (MASTER, FIRST_MOMENT, SECOND_MOMENT)
"""Float32 weights and Adam's two moments."""

STATE_DIR = "state"
_FILE = re.compile(r"rank-(\d{5})-of-(\d{5})\.safetensors")

Parts = Mapping[str, Mapping[str, Tensor]]
"""kind -> parameter -> this rank's elements, one axis, float32."""


def part_bounds(elements: int, rank: int, size: int) -> tuple[int, int]:
    """First and last-but-one element that `rank` of `size` holds of a parameter."""
    share = -(-elements // size)
    return min(elements, rank * share), min(elements, (rank + 1) * share)


def file_name(rank: int, size: int) -> str:
    """Path of a rank's file, relative to the checkpoint."""
    return f"{STATE_DIR}/rank-{rank:05d}-of-{size:05d}.safetensors"


def write(folder: Path, parts: Parts, rank: int, size: int) -> Path:
    """Write a rank's parts; return the file."""
    path = folder / file_name(rank, size)
    tensors = {f"{kind}/{name}": part for kind, named in parts.items() for name, part in named.items()}
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    safetensors_stream.write(path, shapes, torch.float32, tensors.items())
    return path


class SavedTensors:
    """A checkpoint's tensors as whole parameters, read by range; a context manager."""

    def __init__(self, folder: Path) -> None:
        paths = sorted((folder / STATE_DIR).glob("rank-*.safetensors"))
        found = [_FILE.fullmatch(path.name) for path in paths]
        self.size = len(paths)
        assert paths, f"{folder} has no state"
        assert all(m is not None and int(m[2]) == self.size for m in found), f"{folder} mixes numbers of ranks"
        # A rank opens what it reads: with the same number of ranks, its own file alone.
        self._open: Any = functools.cache(lambda rank: patiently(safe_open, paths[rank], framework="pt"))

    def __enter__(self) -> SavedTensors:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.cache_clear()

    def read(self, kind: str, name: str, elements: int, first: int = 0, end: int | None = None) -> Tensor:
        """Elements first .. end-1 of a parameter of `elements`, one axis, float32."""
        end = elements if end is None else end
        pieces: list[Tensor] = [
            self._open(rank).get_slice(f"{kind}/{name}")[begin:stop]
            for rank, begin, stop in self._ranges(elements, first, end)
        ]
        return torch.cat(pieces) if pieces else torch.empty(0)

    def _ranges(self, elements: int, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        for rank in range(self.size):
            low, high = part_bounds(elements, rank, self.size)
            begin, stop = max(first, low), min(end, high)
            if begin < stop:
                yield rank, begin - low, stop - low
