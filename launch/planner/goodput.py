"""How often to save a checkpoint, and what share of the time is useful training.

Contract: pure. Failures occur at a constant rate (exponential gaps). Training pauses while a checkpoint is copied to
the host and continues while it is written; a failure costs the steps since the newest complete checkpoint, the
time until it is detected, and a restart. `best` minimises the expected time exactly; Young's and Daly's
sqrt(2 x pause / rate) is its limit for rare failures (Daly, doi 10.1016/j.future.2004.11.016).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from configs.schema import Recipe
from launch.planner.hardware import Constants, Gpu
from pretrain.model.sizes import n_parameters

STATE_BYTES = 12
"""Per parameter in a checkpoint: float32 weight and both moments of Adam."""
_TOKEN_BYTES = 4
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Saving:
    """The cost of one checkpoint and of one failure, in seconds."""

    pause: float
    """Copy to host memory, while training waits."""
    write: float
    """Until it is complete on disk, while training continues."""
    restart: float
    """From a failure to the first step after it: detection, start, reading the weights."""
    failures_per_s: float


@dataclass(frozen=True)
class Interval:
    """An interval between checkpoints, and its goodput."""

    seconds: float
    goodput: float
    """Share of the time spent on steps that are not lost."""


def saving(recipe: Recipe, ranks: int, gpu: Gpu, constants: Constants) -> Saving:
    """The trainer's checkpoints (pretrain/checkpoints/checkpoint.py) on `ranks` devices."""
    whole = checkpoint_bytes(recipe)
    nodes = max(1, -(-ranks // gpu.per_node))
    disk = min(nodes * constants.disk_write_bytes_per_s, constants.disk_total_bytes_per_s)
    part = whole / ranks
    return Saving(
        part / constants.host_copy_bytes_per_s,
        whole / disk + part / constants.hash_bytes_per_s,
        constants.detect_s + constants.start_s + whole / disk,
        constants.failures_per_gpu_day * ranks / _DAY_S,
    )


def goodput(costs: Saving, seconds: float) -> float:
    """Share of the time spent on steps that are not lost, with a checkpoint every `seconds` of training.

    The expected time to complete a stretch x at failure rate r, if each failure costs c and restarts the stretch, is
    (1 / r + c) (e^(r x) - 1). The stretch is interval and pause; a failure also costs the checkpoint that was being
    written, `write` at most.
    """
    stretch, rate = seconds + costs.pause, costs.failures_per_s
    if rate == 0.0:
        return seconds / stretch
    lost = costs.restart + min(costs.write, seconds)
    exponent = rate * stretch
    return 0.0 if exponent > 700 else seconds / ((1 / rate + lost) * math.expm1(exponent))


def best(costs: Saving) -> Interval:
    """The interval of highest goodput, at least as long as writing a checkpoint takes."""
    low, high = math.log(max(costs.write, costs.pause, 1.0)), math.log(30 * _DAY_S)
    shrink = (math.sqrt(5) - 1) / 2  # golden section; goodput has one maximum
    while high - low > 1e-6:
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        if goodput(costs, math.exp(left)) < goodput(costs, math.exp(right)):
            low = left
        else:
            high = right
    seconds = math.exp((low + high) / 2)
    return Interval(seconds, goodput(costs, seconds))


def checkpoint_bytes(recipe: Recipe) -> int:
    return STATE_BYTES * n_parameters(recipe.model, recipe.tokenizer.vocab_size)


def storage(recipe: Recipe) -> dict[str, int]:
    """Bytes on the shared file system: shards (if no source is repeated), checkpoints that are kept, weights."""
    parameters = n_parameters(recipe.model, recipe.tokenizer.vocab_size)
    phases = len(recipe.phases)
    return {
        "token shards": _TOKEN_BYTES * sum(phase.tokens for phase in recipe.phases),
        # One more is written before the oldest is removed.
        "checkpoints": (recipe.checkpoints.keep + phases + 1) * checkpoint_bytes(recipe),
        "weights of each phase": phases * 4 * parameters,
    }
