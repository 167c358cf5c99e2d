"""What this very device can do: matrix products and copies, before anyone is measured against it.

Contract: `measure` times products of random bf16 (and float8) matrices of the model's shapes and of large
squares, and a copy that reads and writes; medians. Random data on purpose: products of zeros run faster. What
the device or torch cannot do is there as a message.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu_cases import Case
from benchmarks.gpu_device import describe

_REPEATS = 20


def measure(case: Case) -> dict[str, Any]:
    """TFLOP/s by shape and precision, GB/s, and the best of each."""
    found: dict[str, Any] = {"case": case.as_json(), **describe(case.device)}
    rates: dict[str, dict[str, float | str]] = {"bf16": {}, "float8": {}}
    for name, shape in _shapes(case).items():
        for precision, product in (("bf16", _bf16), ("float8", _float8)):
            try:
                rates[precision][name] = _tflops(product(*shape, case.device), shape, case.device)
            except (RuntimeError, AttributeError, ValueError) as error:
                rates[precision][name] = f"not run: {str(error).splitlines()[0][:200]}"
    best = {
        precision: max((rate for rate in by_shape.values() if isinstance(rate, float)), default=None)
        for precision, by_shape in rates.items()
    }
    return found | {"tflops": rates, "peak_tflops": best, "copy_gb_per_s": _copy(case)}


def _shapes(case: Case) -> dict[str, tuple[int, int, int]]:
    """Rows, inner, columns: a micro-batch of tokens through each linear layer, and squares."""
    model, tokens = case.model(), case.micro_batch * case.sequence_length
    keys = model.n_kv_heads * model.d_head
    side = 64 if case.tiny else 8192
    return {
        f"square {side}": (side, side, side),
        "queries, keys and values": (tokens, model.d_model, model.d_model + 2 * keys),
        "attention output": (tokens, model.d_model, model.d_model),
        "gate and up": (tokens, model.d_model, 2 * model.d_ff),
        "down": (tokens, model.d_ff, model.d_model),
        "down, weight gradient": (model.d_model, tokens, model.d_ff),
        "head": (tokens, model.d_model, case.vocab_size),
        "gate and up of four": (4 * tokens, model.d_model, 2 * model.d_ff),
    }


def _bf16(rows: int, inner: int, columns: int, device: str) -> Callable[[], Any]:
    left = torch.randn(rows, inner, device=device).bfloat16()
    right = torch.randn(inner, columns, device=device).bfloat16()
    out = torch.empty(rows, columns, device=device, dtype=torch.bfloat16)
    return lambda: torch.mm(left, right, out=out)


def _float8(rows: int, inner: int, columns: int, device: str) -> Callable[[], Any]:
    left = torch.randn(rows, inner, device=device).to(torch.float8_e4m3fn)
    right = torch.randn(columns, inner, device=device).to(torch.float8_e4m3fn).t()
    one = torch.ones((), device=device)
    return lambda: torch._scaled_mm(
        left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
    )


def _tflops(product: Callable[[], Any], shape: tuple[int, int, int], device: str) -> float:
    rows, inner, columns = shape
    return 2 * rows * inner * columns / _median_seconds(product, device) / 1e12


def _copy(case: Case) -> float:
    """Bytes read and written a second, in GB."""
    count = 1_000_000 if case.tiny else 1_000_000_000
    source = torch.empty(count, device=case.device, dtype=torch.float32).fill_(1.5)
    target = torch.empty_like(source)
    return 2 * 4 * count / _median_seconds(lambda: target.copy_(source), case.device) / 1e9


def _median_seconds(run: Callable[[], Any], device: str) -> float:
    for _ in range(3):
        run()
    if device == "cuda":
        return _median_by_events(run)
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def _median_by_events(run: Callable[[], Any]) -> float:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(_REPEATS + 1)]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in itertools.pairwise(marks)) / 1000
