"""How fast this rank is by itself: a fixed piece of work that waits for nobody.

Contract: `probe_seconds` multiplies the same two matrices each time (some milliseconds), on the device that
trains, and returns the fastest of three: what another process takes for a moment is not the device's fault,
a clock that is throttled is.
"""

from __future__ import annotations

import time

import torch

_SIDE = {"cuda": 4096, "cpu": 256}
_PRODUCTS = 4
_TRIALS = 3


def probe_seconds(device: torch.device) -> float:
    """Seconds for the fixed work; waits for what the device does at the moment."""
    side = _SIDE.get(device.type, 1024)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    return min(_timed(matrix, device) for _ in range(_TRIALS))


def _timed(matrix: torch.Tensor, device: torch.device) -> float:
    _finish(device)
    begin = time.perf_counter()
    for _ in range(_PRODUCTS):
        matrix @ matrix
    _finish(device)
    return time.perf_counter() - begin


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
