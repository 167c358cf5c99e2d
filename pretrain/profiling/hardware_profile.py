"""What the planner cannot compute: a device's rates, the seconds of real micro-batches, and where the bytes are.

    deepspeed … --module pretrain.profiling.hardware_profile --recipe R --out DIR --device D

Contract: builds the trainer's own engine on every rank, with random weights and tokens, and leaves
`hardware_profile.json` in `--out`: bytes by cause (ZeRO-3's state by its tensors, activations by what is alive when
the head begins and ends), rates of matrix products, attention, copies and collectives, and seconds of micro-batches
of two sizes and of an update. Figures are medians; nothing is trained and nothing else is kept.
Bytes on a CPU are those of torch's allocator as its profiler saw them; on CUDA they are the allocator's own.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from configs.recipe import load_recipe
from configs.schema import Recipe
from pretrain import rank_program
from pretrain.engine.deepspeed_adapter import start_ranks
from pretrain.engine.distributed import Ranks, place
from pretrain.engine.zero3 import Engine
from pretrain.model.attention import attend
from twofold.files import write_json

HARDWARE_PROFILE_FILE = "hardware_profile.json"
_MARK = "twofold: "
_REPEATS = 5
_COPY_BYTES = {"cuda": 1 << 31, "cpu": 1 << 26}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return the exit code."""
    description = "Measure rates, seconds and bytes of a device."
    parser = rank_program.parser("pretrain.profiling.hardware_profile", description, out="folder for the profile")
    options = parser.parse_args(arguments)
    place()

    def program() -> int:
        recipe = load_recipe(options.recipe)
        ranks = start_ranks(options.device)
        found = measure(recipe, ranks)
        if ranks.is_first:
            write_json(options.out / HARDWARE_PROFILE_FILE, found)
        ranks.barrier()
        return 0

    return rank_program.exit_code_of(program, options.out)


def measure(recipe: Recipe, ranks: Ranks) -> dict[str, Any]:
    """Everything that the file holds; collective."""
    engine = Engine(recipe, ranks)
    engine.set_initial_weights()
    length = max(phase.sequence_length for phase in recipe.phases)
    return {
        "device": torch.cuda.get_device_name() if ranks.device.type == "cuda" else "cpu",
        "kind": ranks.device.type,
        "ranks": ranks.size,
        "threads": torch.get_num_threads(),
        "memory_bytes": _device_bytes(ranks),
        "kernels": engine.kernels.describe(),
        "compiled": engine.kernels.compiler is not None,
        "sequence_length": length,
        "sequences": recipe.engine.micro_batch_size,
        "bytes": memory(recipe, engine, length),
        "rates": rates(recipe, ranks, length),
        "seconds": seconds(recipe, engine, length),
    }


# --- bytes --------------------------------------------------------------------------------------


def memory(recipe: Recipe, engine: Engine, length: int) -> dict[str, int]:
    """Bytes by cause of this rank, in a step that is not the first."""
    rows_BU = _tokens(recipe, recipe.engine.micro_batch_size, length)
    for _ in range(2):  # ZeRO-3 traces the modules' order in the first
        engine.accumulate(rows_BU, 0.0)
        _update(engine)
    with _marks(engine) as levels:
        engine.accumulate(rows_BU, 0.0)
    _update(engine)
    begin = levels["begin"]
    return {
        **engine.zero.state_bytes(),
        "activations": levels["head"] - begin,
        "loss": levels["loss"] - levels["head"],
        "peak": levels["peak"] - begin,
    }


def _update(engine: Engine) -> None:
    engine.step(0.0) if math.isfinite(engine.grad_norm()) else engine.skip_step()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def _marks(engine: Engine) -> Iterator[dict[str, int]]:
    """Bytes alive when a pass begins, when the head begins, when the loss is there, and at the peak."""
    levels: dict[str, int] = {}
    cuda = engine.ranks.device.type == "cuda"

    def mark(name: str) -> None:
        if cuda:
            levels[name] = torch.cuda.memory_allocated()
        else:
            with torch.profiler.record_function(_MARK + name):
                pass

    model = engine.zero.module
    hooks = [
        model.register_forward_pre_hook(lambda *_: mark("begin")),
        model.lm_head.register_forward_pre_hook(lambda *_: mark("head")),
        model.register_forward_hook(lambda *_: mark("loss")),
    ]
    try:
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            yield levels
            levels["peak"] = torch.cuda.max_memory_allocated()
        else:
            activities = [torch.profiler.ProfilerActivity.CPU]
            with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
                yield levels
            levels.update(_levels(profile))
    finally:
        for hook in hooks:
            hook.remove()


def _levels(profile: Any) -> dict[str, int]:
    """Bytes alive at each mark and at the peak, counted from the profile's start."""
    live = peak = 0
    found: dict[str, int] = {}
    events = sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    for event in events:
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
        elif event.name().startswith(_MARK):
            found[event.name().removeprefix(_MARK)] = live
    return {**found, "peak": peak}


# --- rates --------------------------------------------------------------------------------------


def rates(recipe: Recipe, ranks: Ranks, length: int) -> dict[str, float]:
    """What this device does per second while all ranks do the same."""
    model, tokens = recipe.model, recipe.engine.micro_batch_size * length
    dtype = torch.bfloat16 if recipe.engine.precision == "bf16" else torch.float32
    keys, queries = model.n_kv_heads * model.d_head, model.n_heads * model.d_head
    layers = [(queries, model.d_model)] * 2 + [(keys, model.d_model)] * 2 + [(model.d_ff, model.d_model)] * 3
    head = (recipe.tokenizer.vocab_size, model.d_model)
    weighted = [(shape, model.n_layers) for shape in layers] + [(head, 1)]
    took = sum(times * _product_seconds(ranks, tokens, *shape, dtype) for shape, times in weighted)
    operations = sum(times * 6 * tokens * rows * columns for (rows, columns), times in weighted)
    return {
        "products_flops": operations / took,
        "attention_flops": _attention_flops(recipe, ranks, length, dtype),
        "copy_bytes_per_s": _copy_rate(ranks),
        **_collectives(recipe, ranks),
    }


def _product_seconds(ranks: Ranks, tokens: int, rows: int, columns: int, dtype: torch.dtype) -> float:
    """A linear layer's three products."""
    x_XC, y_XR, weight_RC = (
        torch.randn(shape, device=ranks.device).to(dtype)
        for shape in ((tokens, columns), (tokens, rows), (rows, columns))
    )

    def products() -> None:
        x_XC @ weight_RC.t()
        y_XR @ weight_RC
        y_XR.t() @ x_XC

    return _median_seconds(products, ranks)


def _attention_flops(recipe: Recipe, ranks: Ranks, length: int, dtype: torch.dtype) -> float:
    """Forward and backward, causal pairs counted."""
    model, sequences = recipe.model, recipe.engine.micro_batch_size
    kind = torch.float32 if ranks.device.type == "cpu" else dtype
    q, k, v = (
        torch.randn(sequences, heads, length, model.d_head, device=ranks.device).to(kind).requires_grad_()
        for heads in (model.n_heads, model.n_kv_heads, model.n_kv_heads)
    )

    def passes() -> None:
        torch.autograd.grad(attend(q, k, v, None).sum(), (q, k, v))

    return 6 * sequences * model.n_heads * model.d_head * length**2 / _median_seconds(passes, ranks)


def _copy_rate(ranks: Ranks) -> float:
    """Bytes read and written per second."""
    source = torch.ones(_COPY_BYTES[ranks.device.type] // 4, device=ranks.device)
    target = torch.empty_like(source)
    return 2 * _bytes(source) / _median_seconds(lambda: target.copy_(source), ranks)


def _collectives(recipe: Recipe, ranks: Ranks) -> dict[str, float]:
    """Bytes per second of a ring's link, and seconds of a call that carries nothing."""
    if ranks.size == 1:
        return {}
    model = recipe.model
    block = model.d_model * (2 * model.d_model + 3 * model.d_ff)
    part = torch.ones(max(1, block // ranks.size), device=ranks.device)
    whole = torch.empty(part.numel() * ranks.size, device=ranks.device)
    small, small_whole = part[:1].clone(), whole[: ranks.size].clone()
    carried = _median_seconds(lambda: dist.all_gather_into_tensor(whole, part), ranks)
    empty = _median_seconds(lambda: dist.all_gather_into_tensor(small_whole, small), ranks)
    moved = _bytes(part) * (ranks.size - 1)
    return {"link_bytes_per_s": moved / max(carried - empty, 1e-9), "collective_s": empty}


# --- seconds ------------------------------------------------------------------------------------


def seconds(recipe: Recipe, engine: Engine, length: int) -> dict[str, Any]:
    """A micro-batch's forward and backward pass, by number of sequences, and an update."""
    full = recipe.engine.micro_batch_size
    passes = {}
    for sequences in sorted({max(1, full // 2), full}):
        rows_BU = _tokens(recipe, sequences, length)

        def accumulate(rows_BU: Tensor = rows_BU) -> None:
            engine.accumulate(rows_BU, 0.0)

        passes[str(sequences)] = _median_seconds(accumulate, engine.ranks, warmups=2)
    updates = []
    rows_BU = _tokens(recipe, 1, length)
    for _ in range(_REPEATS):
        engine.accumulate(rows_BU, 0.0)
        updates.append(_seconds(lambda: _update(engine), engine.ranks))
    return {"micro_batch": passes, "update": statistics.median(updates)}


def _tokens(recipe: Recipe, sequences: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(recipe.seed)
    return torch.randint(5, recipe.tokenizer.vocab_size, (sequences, length + 1), generator=generator)


def _median_seconds(run: Callable[[], Any], ranks: Ranks, warmups: int = 1) -> float:
    for _ in range(warmups):
        run()
    return statistics.median(_seconds(run, ranks) for _ in range(_REPEATS))


def _seconds(run: Callable[[], Any], ranks: Ranks) -> float:
    _wait(ranks)
    begin = time.perf_counter()
    run()
    _wait(ranks)
    return time.perf_counter() - begin


def _wait(ranks: Ranks) -> None:
    """For the device; on a CPU, for the other ranks."""
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)
    else:
        ranks.barrier()


def _device_bytes(ranks: Ranks) -> int:
    """The device's memory; of a CPU, a rank's share of the host's."""
    if ranks.device.type == "cuda":
        return int(torch.cuda.get_device_properties(ranks.device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // ranks.size


if __name__ == "__main__":
    sys.exit(main())
