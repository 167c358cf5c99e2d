"""Clock and memory of one device, CUDA or CPU, for the GPU benchmark.

Contract: nothing here makes the host wait for the device while steps are measured: `Stopwatch` records
events and reads them at the end. On a CPU the clock is the host's and memory is the process's.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch


class Stopwatch:
    """Seconds between pairs of marks on the device's own line of time."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._marks: list[tuple[Any, Any]] = []

    def __len__(self) -> int:
        return len(self._marks)

    @contextmanager
    def timed(self) -> Iterator[None]:
        begin = self._mark()
        yield
        self._marks.append((begin, self._mark()))

    def seconds(self) -> list[float]:
        """Of every pair so far; waits for the device."""
        if not self._cuda:
            return [end - begin for begin, end in self._marks]
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) / 1000 for begin, end in self._marks]

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Memory:
    """Bytes in use now, and the most so far: the allocator's on CUDA, resident ones on a CPU."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._most_allocated = self._most_reserved = 0

    def allocated(self) -> int:
        if self._cuda:
            return torch.cuda.memory_allocated()
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * resource.getpagesize()

    @contextmanager
    def staged(self, stages: dict[str, int], name: str, inner: AbstractContextManager[Any]) -> Iterator[None]:
        """Note the peak within the block and what is left behind it, as `name`_peak and `name`_after."""
        self._remember()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        with inner:
            yield
        stages[f"{name}_peak"] = torch.cuda.max_memory_allocated() if self._cuda else self.allocated()
        stages[f"{name}_after"] = self.allocated()

    def peaks(self) -> dict[str, int]:
        """The most bytes in tensors, and held by the allocator, since the process began."""
        self._remember()
        return {"peak_allocated_bytes": self._most_allocated, "peak_reserved_bytes": self._most_reserved}

    def _remember(self) -> None:
        """Keep the peaks: the allocator's are reset at each stage."""
        if self._cuda:
            allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        else:
            allocated = reserved = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self._most_allocated = max(self._most_allocated, allocated)
        self._most_reserved = max(self._most_reserved, reserved)


def describe(device: str) -> dict[str, Any]:
    """The device and the software that drives it, without names of hosts."""
    found: dict[str, Any] = {"device": device, "torch": torch.__version__, "memory_bytes": 0}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name, "memory_bytes": properties.total_memory, "cuda": torch.version.cuda,
            "multiprocessors": properties.multi_processor_count, "cudnn": torch.backends.cudnn.version(),
        }  # fmt: skip
    for package in ("deepspeed", "transformers", "triton", "torchao"):
        found[package] = _version(package)
    return found


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
