"""The plan: step -> phase, tokens, learning rate. Pure, no torch, nothing remembered between calls.

Contract: `Plan.at(step)` is random access and knows everything about a step except its data. Budgets are in tokens; a
phase trains the whole batches that its budget pays for. The learning rate is a continuous function of the phase's
tokens (`rate_at`); a step takes its value at the middle of the step's tokens, so neither the first nor the last step
of a phase is spent at rate 0.

Steps are counted from 0: `at(step)` describes the step about to be made, after `step` finished ones.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from configs.phase_schema import LRScheduler, Phase
from configs.schema import Recipe
from configs.units import format_count
from twofold.errors import Problem, UserError

if TYPE_CHECKING:
    from pretrain.data.order import Order


@dataclass(frozen=True)
class Step:
    """One step of the plan."""

    index: int
    phase: int
    first_sample: int
    """Global sample index within the phase of the batch's first sequence."""
    sequences: int
    sequence_length: int
    tokens_before: int
    """Tokens trained on before this step, over all phases."""
    lr: float
    z_loss: float
    intra_document_masking: bool
    """Whether a token sees only tokens of its own document."""

    @property
    def tokens(self) -> int:
        return self.sequences * self.sequence_length

    @property
    def tokens_after(self) -> int:
        return self.tokens_before + self.tokens


class Schedule:
    """All steps of some phases."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = tuple(phases)
        self._first_steps = [0, *accumulate(phase.steps for phase in self.phases)]
        self._first_tokens = [0, *accumulate(phase.trained_tokens for phase in self.phases)]
        self._segments = [(n, segment) for n, phase in enumerate(self.phases) for segment in phase.segments]
        self._segment_steps = [self._first_steps[n] + segment.first_step for n, segment in self._segments]
        self._start_rates = [0.0]
        for phase in self.phases[:-1]:
            self._start_rates.append(rate_at(phase, phase.trained_tokens, self._start_rates[-1]))

    @property
    def total_steps(self) -> int:
        return self._first_steps[-1]

    def first_step(self, phase: int) -> int:
        """Steps before `phase`; all steps for the number of phases."""
        return self._first_steps[phase]

    @property
    def total_tokens(self) -> int:
        return self._first_tokens[-1]

    def at(self, step: int) -> Step:
        """The step with index `step`, 0 <= step < total_steps."""
        assert 0 <= step < self.total_steps, step
        number, segment = self._segments[bisect_right(self._segment_steps, step) - 1]
        phase = self.phases[number]
        inside = step - self._first_steps[number] - segment.first_step
        sequences = segment.global_batch_size // phase.sequence_length
        first_sample = segment.first_sample + inside * sequences
        before = first_sample * phase.sequence_length
        return Step(
            index=step,
            phase=number,
            first_sample=first_sample,
            sequences=sequences,
            sequence_length=phase.sequence_length,
            tokens_before=self._first_tokens[number] + before,
            lr=rate_at(phase, before + 0.5 * segment.global_batch_size, self._start_rates[number]),
            z_loss=phase.z_loss,
            intra_document_masking=phase.intra_document_masking,
        )

    def samples_behind(self, phase: int, done: int) -> int:
        """Sequences of `phase` among the first `done` steps."""
        if done <= self.first_step(phase):
            return 0
        if done >= self.first_step(phase) + self.phases[phase].steps:
            return self.phases[phase].samples
        return self.at(done).first_sample

    def phase_ended_by(self, done: int) -> Phase | None:
        """The phase whose last step is step `done - 1`, or None."""
        return self.phases[self._first_steps.index(done) - 1] if done in self._first_steps[1:] else None


class Plan(Schedule):
    """All steps of a recipe, where they begin, and what is due after them."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe.phases)
        self._checkpoint_every = recipe.checkpoints.every
        self._validate_every = recipe.validation.every
        names = [phase.name for phase in self.phases]
        self.start_phase = names.index(recipe.model.start_at_phase) if recipe.model.start_at_phase else 0

    @property
    def start_step(self) -> int:
        """Where a fresh run begins: at 0, or at the phase for which weights were imported."""
        return self.first_step(self.start_phase)

    def checkpoints_at(self, done: int) -> bool:
        """Whether the state is saved after `done` steps."""
        return self._is_due(done, self._checkpoint_every)

    def validates_at(self, done: int) -> bool:
        """Whether held-out data is measured after `done` steps; also before the first step."""
        return done == 0 or self._is_due(done, self._validate_every)

    def _is_due(self, done: int, every_tokens: int) -> bool:
        if done == 0:
            return False
        step = self.at(done - 1)
        crossed = step.tokens_after // every_tokens > step.tokens_before // every_tokens
        return crossed or self.phase_ended_by(done) is not None


def rate_at(phase: Phase, tokens: float, start: float) -> float:
    """The learning rate after `tokens` of the phase; `start` is the rate the phase begins from.

    Warmup is linear from `start` to `lr`. linear and cosine decay over all that is left; wsd decays over the last
    `decay_ratio` of the phase (but never before the end of the warmup), linearly or as 1 - sqrt(progress).
    """
    rate, end = phase.lr_scheduler, phase.trained_tokens
    warmup = min(rate.warmup, end)
    if tokens < warmup:
        return start + (rate.lr - start) * tokens / warmup
    if rate.schedule == "constant":
        return rate.lr
    assert rate.min_lr is not None
    decay_start = max(warmup, _decay_start(rate, end))
    if tokens <= decay_start:
        return rate.lr
    progress = min(1.0, (tokens - decay_start) / (end - decay_start))
    if rate.schedule == "cosine":
        progress = (1 - math.cos(math.pi * progress)) / 2
    elif rate.decay_type == "sqrt":
        progress = math.sqrt(progress)
    return rate.lr + (rate.min_lr - rate.lr) * progress


@dataclass(frozen=True)
class TokenCounts:
    """Tokens taken from each source, by phase; exact, since they follow from the data order."""

    by_phase: dict[str, dict[str, int]]
    """Tokens that changed the weights."""
    skipped: dict[str, dict[str, int]]
    """Tokens of skipped steps."""

    def by_source(self) -> dict[str, int]:
        """Tokens that changed the weights, over all phases."""
        totals: dict[str, int] = {}
        for taken in self.by_phase.values():
            for source, tokens in taken.items():
                totals[source] = totals.get(source, 0) + tokens
        return totals

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def token_counts(order: Order, plan: Plan, done: int, skipped_steps: Collection[int] = ()) -> TokenCounts:
    """Tokens that steps start_step .. `done`-1 take; the whole plan's for `plan.total_steps`.

    `skipped_steps`: indexes of the steps among them that did not change the weights. Costs one look at the order for
    each of them and for each phase.
    """
    by_phase, skipped = {}, {}
    all_dropped = _dropped(order, plan, frozenset(index for index in skipped_steps if index < done))
    for number, phase in enumerate(plan.phases):
        if number < plan.start_phase:
            by_phase[phase.name] = skipped[phase.name] = dict.fromkeys(phase.mixture, 0)
            continue
        taken = order.taken(number, plan.samples_behind(number, done))
        dropped = all_dropped[number]
        length = phase.sequence_length
        by_phase[phase.name] = {name: (count - dropped[name]) * length for name, count in taken.items()}
        skipped[phase.name] = {name: count * length for name, count in dropped.items()}
    return TokenCounts(by_phase, skipped)


@functools.lru_cache(maxsize=2)
def _dropped(order: Order, plan: Plan, steps: frozenset[int]) -> list[dict[str, int]]:
    """Sequences of each source in `steps`, by phase; remembered, since it is asked for at every logged step."""
    found = [dict.fromkeys(phase.mixture, 0) for phase in plan.phases]
    for step in map(plan.at, sorted(steps)):
        behind = order.taken(step.phase, step.first_sample + step.sequences)
        before = order.taken(step.phase, step.first_sample)
        for name, count in behind.items():
            found[step.phase][name] += count - before[name]
    return found


def check_supply(phases: Sequence[Phase], tokens: Mapping[str, int]) -> None:
    """Raise `UserError` for every source that has too few tokens for the plan.

    `tokens`: training tokens of each source, as the shards' index counts them.
    """
    problems = [
        Problem(
            f"phases.{phase.name}.mixture.{source}",
            phase.mixture[source],
            f"has {tokens.get(source, 0)} training tokens, less than one sequence of {phase.sequence_length + 1}",
            f"give {source} more documents, loosen its rules, or remove it from the mixture",
        )
        for phase in phases
        for source in phase.mixture
        if tokens.get(source, 0) <= phase.sequence_length
    ]
    if problems:
        raise UserError(problems)
    # How many sequences a source gives depends on the seed in a last, cut block only.
    from pretrain.data.order import Order  # numpy: `twofold validate` does without

    order = Order(0, phases, tokens)
    for number, phase in enumerate(phases):
        for source in phase.mixture:
            needed = order.tokens_taken(source, number)
            if needed > phase.epochs_allowed(source) * tokens[source]:
                problems.append(_shortage(phase, source, needed, tokens[source]))
    if problems:
        raise UserError(problems)


def _shortage(phase: Phase, source: str, needed: int, available: int) -> Problem:
    epochs = needed / available
    enough = math.ceil(epochs * 10) / 10
    return Problem(
        f"phases.{phase.name}.mixture.{source}",
        phase.mixture[source],
        f"needs {format_count(needed)} tokens of {source} by the end of the phase, {epochs:.2f} epochs of the "
        f"{format_count(available)} available, above max_epochs {phase.epochs_allowed(source):g}",
        f"set phases.{phase.name}.max_epochs to {enough:g}, lower the share or the phase's tokens, or add documents",
    )


def _decay_start(rate: LRScheduler, end: int) -> float:
    if rate.schedule != "wsd":
        return 0.0
    assert rate.decay_ratio is not None
    return end * (1 - rate.decay_ratio)
