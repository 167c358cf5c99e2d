"""Seconds and bytes of one rank, on the device that trains.

Contract: `probe_seconds` takes some milliseconds and waits for no other rank: it multiplies the same two matrices
each time and returns the fastest of three, since a process that takes the device for a moment is not the device's
fault, and a throttled clock is.
"""

from __future__ import annotations

import contextlib
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_SIDE = {"cuda": 4096, "cpu": 256}
_PRODUCTS = 4
_TRIALS = 3


def probe_seconds(device: torch.device) -> float:
    """Seconds for the fixed work, after what the device does at the moment."""
    side = _SIDE.get(device.type, 1024)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.ones(side, side, dtype=dtype, device=device)

    def multiply() -> None:
        for _ in range(_PRODUCTS):
            matrix @ matrix

    return min(seconds_of(multiply, device) for _ in range(_TRIALS))


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of `run`, the device waited for before and after it."""
    synchronize(device)
    begin = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begin


def synchronize(device: torch.device) -> None:
    """Wait for what the device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """What the maker calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def peak_memory(device: torch.device) -> int:
    """Peak bytes so far: the allocator's on CUDA, the process's resident ones on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
