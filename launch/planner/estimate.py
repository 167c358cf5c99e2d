"""What a recipe costs on N devices: every way to run it that fits, the one to take, and days, hours, bytes of it.

Contract: pure. A way is micro-batch x recomputation x ZeRO options; the trainer can run each of them, on CUDA with
engine.backend auto. The recommended way is the fastest that fits among those that change no arithmetic; ways of
ZeRO++ are shown beside it and never recommended (pretrain/engine/ds_lint.py has the reports against them). Problems are
`UserError`s: a batch that does not divide (with the device counts that do), a model that does not fit (with the
fewest devices on which it would).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from configs.schema import Recipe
from configs.units import format_bytes
from launch.planner import goodput, memory, times
from launch.planner.hardware import Constants, Gpu
from launch.planner.memory import Footprint, Recompute, Setting
from pretrain.engine.ds_config import deepspeed_config
from twofold.errors import Problem, UserError

_DAY_S = 86_400.0
_MOST_SEQUENCES = 64
_SETTINGS: dict[Recompute, bool | str] = {"nothing": False, "selective": "selective", "blocks": True}
ZeroPlus = Literal["", "hpZ", "hpZ, qwZ", "hpZ, qwZ, qgZ"]
ZERO_PLUS: tuple[ZeroPlus, ...] = ("", "hpZ", "hpZ, qwZ", "hpZ, qwZ, qgZ")


@dataclass(frozen=True)
class Way:
    """One way to train on so many devices, at the longest phase's batch and sequence length."""

    setting: Setting
    zero_plus: ZeroPlus
    footprint: Footprint
    time: times.StepTime
    tps: float
    """Of all devices."""
    utilisation: dict[str, float]
    fits: bool

    def overrides(self, recipe: Recipe, gpu: Gpu) -> list[str]:
        """What to add to the recipe's command line."""
        recompute = _SETTINGS[self.setting.recompute]
        found = [
            f"engine.micro_batch_size={self.setting.sequences}",
            f"engine.activation_checkpointing={str(recompute).lower()}",
        ]
        if gpu.kind == "cuda":
            nodes = -(-self.setting.ranks // gpu.per_node)
            found += [f"launch.nodes={nodes}", f"launch.gpus_per_node={min(gpu.per_node, self.setting.ranks)}"]
            if (recipe.launch.min_nodes or 0) > nodes:
                found.append(f"launch.min_nodes={nodes}")
        return found


@dataclass(frozen=True)
class PhaseCost:
    """What a phase takes without failures."""

    name: str
    steps: int
    tokens: int
    days: float
    device_hours: float


@dataclass(frozen=True)
class Estimate:
    """A recipe on so many devices of a kind."""

    ranks: int
    gpu: Gpu
    best: Way
    ways: tuple[Way, ...]
    """The fastest fitting one of each recomputation; with each ZeRO++ option where that is faster; fastest first."""
    phases: tuple[PhaseCost, ...]
    saving: goodput.Saving
    interval: goodput.Interval
    storage: dict[str, int]

    @property
    def days(self) -> float:
        """With failures and checkpoints."""
        return sum(phase.days for phase in self.phases) / self.interval.goodput

    @property
    def device_hours(self) -> float:
        return 24 * self.days * self.ranks


def estimate(recipe: Recipe, ranks: int, gpu: Gpu, constants: Constants) -> Estimate:
    """The recipe on `ranks` devices."""
    _check_batches(recipe, ranks)
    ways = list(_ways(recipe, ranks, gpu, constants))
    fitting = sorted((way for way in ways if way.fits), key=lambda way: ZERO_PLUS.index(way.zero_plus))
    plain = [way for way in fitting if not way.zero_plus]
    if not plain:
        raise UserError([_too_large(recipe, ranks, gpu, constants, [way for way in ways if not way.zero_plus])])
    best = max(plain, key=lambda way: way.tps)
    kinds: dict[Any, Way] = {}
    for way in fitting:  # without ZeRO++ first
        kind, usual = (way.setting.recompute, way.zero_plus), kinds.get((way.setting.recompute, ""))
        if way.tps > kinds.get(kind, usual or way).tps or (not way.zero_plus and kind not in kinds):
            kinds[kind] = way
    saving = goodput.saving(recipe, ranks, gpu, constants)
    return Estimate(
        ranks, gpu, best, tuple(sorted(kinds.values(), key=lambda way: -way.tps)),
        tuple(_phase_costs(recipe, best, gpu, constants)), saving, goodput.best(saving), goodput.storage(recipe),
    )  # fmt: skip


def setting_of(recipe: Recipe, ranks: int, gpu: Gpu, sequences: int, recompute: Recompute) -> Setting:
    """How the trainer would run the recipe (kernels.py chooses the same way on the device)."""
    engine = recipe.engine.model_copy(update={"micro_batch_size": sequences})
    zero = deepspeed_config(recipe.model_copy(update={"engine": engine}), ranks, gpu.kind)["zero_optimization"]
    compiled = gpu.kind == "cuda" and engine.backend == "auto"
    head: memory.Head = "plain" if not compiled else "recomputed" if recompute == "blocks" else "kept"
    return Setting(
        ranks, sequences, max(phase.sequence_length for phase in recipe.phases), recompute, compiled, head,
        zero["reduce_bucket_size"], zero["stage3_prefetch_bucket_size"], zero["stage3_param_persistence_threshold"],
        bf16=engine.precision == "bf16", cpu=gpu.kind == "cpu",
    )  # fmt: skip


def way_of(recipe: Recipe, setting: Setting, zero_plus: ZeroPlus, gpu: Gpu, constants: Constants) -> Way:
    """Memory and time of one setting, at the last phase's full batch."""
    if zero_plus:
        setting = replace(
            setting, secondary_ranks=gpu.per_node, quantised_weights="qwZ" in zero_plus,
            quantised_gradients="qgZ" in zero_plus,
        )  # fmt: skip
    model, vocab = recipe.model, recipe.tokenizer.vocab_size
    footprint = memory.footprint(model, vocab, setting, constants, gpu.kind)
    micro_batches = max(1, recipe.phases[-1].global_batch_size // (setting.ranks * setting.tokens))
    time = times.step_time(model, vocab, setting, gpu, constants, micro_batches, recipe.engine.float8)
    tokens = setting.ranks * setting.tokens * micro_batches
    return Way(
        setting, zero_plus, footprint, time, tokens / time.total,
        times.utilisation(model, vocab, setting, gpu, time), footprint.total <= gpu.memory_bytes,
    )  # fmt: skip


def divisors_of_batches(recipe: Recipe, ranks: int) -> list[int]:
    """Sequences a micro-batch into which every batch of the recipe divides on so many devices."""
    parts = [
        segment.global_batch_size // phase.sequence_length
        for phase in recipe.phases
        for segment in phase.segments
    ]  # fmt: skip
    return [
        number
        for number in range(1, _MOST_SEQUENCES + 1)
        if all(sequences % (ranks * number) == 0 for sequences in parts)
    ]


def _ways(recipe: Recipe, ranks: int, gpu: Gpu, constants: Constants) -> Iterator[Way]:
    recomputes: Sequence[Recompute] = ("nothing", "selective", "blocks")
    if gpu.kind == "cpu" or recipe.engine.backend == "plain":
        recomputes = ("nothing", "blocks")
    options = ZERO_PLUS if ranks > gpu.per_node and gpu.kind == "cuda" else ZERO_PLUS[:1]
    for sequences in divisors_of_batches(recipe, ranks):
        for recompute in recomputes:
            setting = setting_of(recipe, ranks, gpu, sequences, recompute)
            for zero_plus in options:
                yield way_of(recipe, setting, zero_plus, gpu, constants)


def _phase_costs(recipe: Recipe, way: Way, gpu: Gpu, constants: Constants) -> Iterator[PhaseCost]:
    model, vocab = recipe.model, recipe.tokenizer.vocab_size
    for phase in recipe.phases:
        setting = replace(way.setting, sequence_length=phase.sequence_length)
        seconds = 0.0
        for segment in phase.segments:
            micro_batches = segment.global_batch_size // (setting.ranks * setting.tokens)
            step = times.step_time(model, vocab, setting, gpu, constants, micro_batches, recipe.engine.float8)
            seconds += segment.steps * step.total
        days = seconds / _DAY_S
        yield PhaseCost(phase.name, phase.steps, phase.trained_tokens, days, 24 * days * way.setting.ranks)


def _check_batches(recipe: Recipe, ranks: int) -> None:
    """Refuse a number of devices over which not even single sequences divide."""
    problems = []
    for phase in recipe.phases:
        for batch in phase.batches:
            sequences = batch // phase.sequence_length
            if sequences % ranks:
                fewer = max(number for number in range(1, sequences + 1) if sequences % number == 0 and number <= ranks)
                fitting = max(1, round(sequences / ranks)) * ranks * phase.sequence_length
                problems.append(
                    Problem(f"phases.{phase.name}.batch", batch,
                            f"is {sequences} sequences, which do not divide over {ranks} devices",
                            f"take {fewer} devices, or a batch of {fitting} tokens")
                )  # fmt: skip
    if problems:
        raise UserError(problems)


def _too_large(recipe: Recipe, ranks: int, gpu: Gpu, constants: Constants, ways: Sequence[Way]) -> Problem:
    """The least that was tried, by its largest causes, and the fewest devices that would do."""
    least = min(ways, key=lambda way: way.footprint.total)
    largest = sorted(least.footprint.causes.items(), key=lambda cause: -cause[1])[:3]
    told = ", ".join(f"{name} {format_bytes(size)}" for name, size in largest)
    more = ranks
    while more < 1 << 20:
        more *= 2
        setting = setting_of(recipe, more, gpu, 1, "blocks")
        if memory.footprint(
            recipe.model, recipe.tokenizer.vocab_size, setting, constants, gpu.kind
        ).total <= gpu.memory_bytes:  # fmt: skip
            break
    return Problem(
        "--gpus", ranks,
        f"do not hold the model: at least {format_bytes(least.footprint.total)} on each {gpu.name} of "
        f"{format_bytes(gpu.memory_bytes)} ({told})",
        f"take {more} of them, a device with more memory, or a smaller model",
    )  # fmt: skip
