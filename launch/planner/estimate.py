"""What a recipe costs on N devices: every setting that fits, the recommended one, and its days, hours and bytes.

Contract: pure. A setting (`Way`) is micro-batch x recomputation x ZeRO++ options; the trainer can run each of them,
on CUDA with engine.backend auto. The recommended one is the fastest that fits and changes no arithmetic. Those with
ZeRO++ are shown beside it but never recommended (pretrain/engine/ds_lint.py lists the reports against them). A
UserError reports a batch that does not divide over the devices, or a model that does not fit, with device counts
that work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

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
    """One way to train on these devices, at the longest phase's sequence length and the last phase's batch."""

    setting: Setting
    zero_plus: ZeroPlus
    footprint: Footprint
    time: times.StepTime
    tps: float
    """Tokens per second of all devices together."""
    utilisation: dict[str, float]
    fits: bool

    def overrides(self, recipe: Recipe, gpu: Gpu) -> list[str]:
        """Overrides to add to the recipe's command line."""
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
    """The cost of a phase without failures."""

    name: str
    steps: int
    tokens: int
    days: float
    device_hours: float


@dataclass(frozen=True)
class Estimate:
    """A recipe on `ranks` devices of one kind."""

    ranks: int
    gpu: Gpu
    best: Way
    ways: tuple[Way, ...]
    """See `_fastest_of_each_kind`."""
    phases: tuple[PhaseCost, ...]
    saving: goodput.Saving
    interval: goodput.Interval
    storage: dict[str, int]

    @property
    def days(self) -> float:
        """Including failures, restarts and checkpoints."""
        return sum(phase.days for phase in self.phases) / self.interval.goodput

    @property
    def device_hours(self) -> float:
        return 24 * self.days * self.ranks


def estimate(recipe: Recipe, ranks: int, gpu: Gpu, constants: Constants) -> Estimate:
    """The recipe on `ranks` devices."""
    _check_batches(recipe, ranks)
    ways = list(_ways(recipe, ranks, gpu, constants))
    fitting = [way for way in ways if way.fits]
    plain = [way for way in fitting if not way.zero_plus]
    if not plain:
        raise UserError(_too_large(recipe, ranks, gpu, constants, [way for way in ways if not way.zero_plus]))
    best = max(plain, key=lambda way: way.tps)
    saving = goodput.saving(recipe, ranks, gpu, constants)
    return Estimate(
        ranks=ranks,
        gpu=gpu,
        best=best,
        ways=_fastest_of_each_kind(fitting),
        phases=tuple(_phase_costs(recipe, best, gpu, constants)),
        saving=saving,
        interval=goodput.best(saving),
        storage=goodput.storage(recipe),
    )


def _fastest_of_each_kind(fitting: Sequence[Way]) -> tuple[Way, ...]:
    """The fastest way of each recomputation, and of each ZeRO++ option that is faster than without; fastest first."""
    fastest: dict[tuple[Recompute, ZeroPlus], Way] = {}
    for way in sorted(fitting, key=lambda way: ZERO_PLUS.index(way.zero_plus)):  # without ZeRO++ first
        kind = (way.setting.recompute, way.zero_plus)
        rival = fastest.get(kind) or fastest.get((way.setting.recompute, ""))
        if (rival is None and not way.zero_plus) or (rival is not None and way.tps > rival.tps):
            fastest[kind] = way
    return tuple(sorted(fastest.values(), key=lambda way: -way.tps))


def setting_of(recipe: Recipe, ranks: int, gpu: Gpu, sequences: int, recompute: Recompute) -> Setting:
    """How the trainer would run the recipe (pretrain/model/backends.py makes the same choice on the device)."""
    engine = recipe.engine.model_copy(update={"micro_batch_size": sequences})
    zero = deepspeed_config(recipe.model_copy(update={"engine": engine}), ranks, gpu.kind)["zero_optimization"]
    compiled = gpu.kind == "cuda" and engine.backend == "auto"
    head: memory.Head = "plain" if not compiled else "recomputed" if recompute == "blocks" else "kept"
    return Setting(
        ranks=ranks,
        sequences=sequences,
        sequence_length=max(phase.sequence_length for phase in recipe.phases),
        recompute=recompute,
        compiled=compiled,
        head=head,
        bucket_elements=zero["reduce_bucket_size"],
        prefetch_elements=zero["stage3_prefetch_bucket_size"],
        persistence_threshold=zero["stage3_param_persistence_threshold"],
        bf16=engine.precision == "bf16",
        cpu=gpu.kind == "cpu",
    )


def way_of(recipe: Recipe, setting: Setting, zero_plus: ZeroPlus, gpu: Gpu, constants: Constants) -> Way:
    """Memory and time of one setting, at the last phase's full batch."""
    if zero_plus:
        weights, gradients = "qwZ" in zero_plus, "qgZ" in zero_plus
        setting = replace(
            setting, secondary_ranks=gpu.per_node, quantised_weights=weights, quantised_gradients=gradients
        )
    model, vocab = recipe.model, recipe.tokenizer.vocab_size
    footprint = memory.footprint(model, vocab, setting, constants, gpu.kind)
    micro_batches = max(1, recipe.phases[-1].global_batch_size // (setting.ranks * setting.tokens))
    time = times.step_time(model, vocab, setting, gpu, constants, micro_batches, recipe.engine.float8)
    return Way(
        setting=setting,
        zero_plus=zero_plus,
        footprint=footprint,
        time=time,
        tps=setting.ranks * setting.tokens * micro_batches / time.total,
        utilisation=times.utilisation(model, vocab, setting, gpu, time),
        fits=footprint.total <= gpu.memory_bytes,
    )


def divisors_of_batches(recipe: Recipe, ranks: int) -> list[int]:
    """Micro-batch sizes, in sequences, that divide every batch of the recipe over `ranks` devices."""
    batches = {batch // phase.sequence_length for phase in recipe.phases for batch in phase.batches}
    return [size for size in range(1, _MOST_SEQUENCES + 1) if all(batch % (ranks * size) == 0 for batch in batches)]


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
                fewer = max(number for number in range(1, min(ranks, sequences) + 1) if sequences % number == 0)
                fitting = max(1, round(sequences / ranks)) * ranks * phase.sequence_length
                what = f"is {sequences} sequences, which do not divide over {ranks} devices"
                hint = f"use {fewer} devices, or a batch of {fitting} tokens"
                problems.append(Problem(f"phases.{phase.name}.global_batch_size", batch, what, hint))
    if problems:
        raise UserError(problems)


def _too_large(recipe: Recipe, ranks: int, gpu: Gpu, constants: Constants, ways: Sequence[Way]) -> Problem:
    """The smallest footprint that was tried with its largest causes, and the fewest devices that would do."""
    least = min((way.footprint for way in ways), key=lambda footprint: footprint.total)
    largest = sorted(least.causes.items(), key=lambda cause: -cause[1])[:3]
    causes = ", ".join(f"{name} {format_bytes(size)}" for name, size in largest)
    needed, held = format_bytes(least.total), format_bytes(gpu.memory_bytes)
    problem = f"do not hold the model: it needs at least {needed} on each {gpu.name}, which has {held} ({causes})"
    more = _fewest_devices(recipe, ranks, gpu, constants)
    return Problem("--gpus", ranks, problem, f"use {more} of them, a device with more memory, or a smaller model")


def _fewest_devices(recipe: Recipe, ranks: int, gpu: Gpu, constants: Constants) -> int:
    """The first doubling of `ranks` on which single sequences fit with all blocks recomputed."""
    model, vocab = recipe.model, recipe.tokenizer.vocab_size
    while ranks < 1 << 20:
        ranks *= 2
        setting = setting_of(recipe, ranks, gpu, 1, "blocks")
        if memory.footprint(model, vocab, setting, constants, gpu.kind).total <= gpu.memory_bytes:
            break
    return ranks
