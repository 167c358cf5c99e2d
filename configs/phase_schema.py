"""The `phases` section: how much of what is trained on, in which batches, at which rate.

Contract: as schema.py. Everything that follows from a phase alone is computed here, in integers: its
segments of equal batch, its steps, tokens and samples; `with_replay` writes the mixtures out that a
replay share implies, so a resolved recipe says what is trained on and needs no rule to be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from configs.types import Count, Name, NonNegative, Positive, Section, Share, as_tuple
from configs.units import Tokens, TokensOrZero, invalid

DEFAULT_EPOCHS = 4.0
"""Passes over one text up to which repetition is nearly as good as new text (arXiv 2305.16264)."""


def _as_shares(mixture: Any) -> Any:
    """Weights of at least 1 (`{web: 3, law: 1}`) cannot be meant as shares, so they are scaled to add up to 1."""
    weights = list(mixture.values()) if isinstance(mixture, dict) else []
    numbers = all(isinstance(weight, (int, float)) and not isinstance(weight, bool) for weight in weights)
    if not weights or not numbers or min(weights) < 1:
        return mixture
    return {name: weight / sum(weights) for name, weight in mixture.items()}


class LRScheduler(Section):
    """A phase's learning rate over its own tokens: warm-up, then the schedule from `lr` to `min_lr`."""

    schedule: Literal["constant", "linear", "cosine", "wsd"] = "constant"
    """Shape after the warm-up. `wsd` is constant, then decays to `min_lr` over the last `decay_ratio` of the phase."""
    lr: Positive
    """Peak learning rate. Example: `3e-4`."""
    min_lr: NonNegative | None = None
    """Learning rate at the end of linear, cosine and wsd; not used by constant. Example: `0`."""
    warmup: TokensOrZero = 0
    """Tokens to rise to `lr`, from 0 (first phase) or from the previous phase's last rate (later phases).
    Example: `8B`."""
    decay_ratio: Share | None = None
    """wsd only: share of the phase that decays. Example: `0.5`."""
    decay_type: Literal["linear", "sqrt"] = "linear"
    """wsd only: `linear`, or `sqrt` for 1 - sqrt(progress) (arXiv 2405.18392, section 3)."""
    jump: bool = False
    """Allow this phase to start at another learning rate than the previous one ended with."""

    @model_validator(mode="after")
    def _fields_fit_schedule(self) -> LRScheduler:
        if (self.schedule == "constant") != (self.min_lr is None):
            raise invalid(
                f"has schedule {self.schedule} {'with' if self.min_lr is not None else 'without'} `min_lr`",
                "give `min_lr` for linear, cosine and wsd, and only for them",
            )
        if (self.schedule == "wsd") != (self.decay_ratio is not None):
            raise invalid(
                f"has schedule {self.schedule} {'with' if self.decay_ratio is not None else 'without'} `decay_ratio`",
                "give `decay_ratio` for wsd, and only for wsd",
            )
        if self.min_lr is not None and self.min_lr > self.lr:
            raise invalid(f"has min_lr {self.min_lr} above lr {self.lr}", "lower `min_lr`")
        if self.decay_type != "linear" and self.schedule != "wsd":
            raise invalid(f"has decay_type {self.decay_type} with schedule {self.schedule}", "use it with wsd only")
        return self


class Ramp(Section):
    """A smaller batch at the beginning of a phase."""

    until: Tokens
    """The batch size holds until this many tokens of the phase are trained. Example: `50B`."""
    global_batch_size: Tokens
    """Tokens per step up to there. Example: `1_048_576`."""


@dataclass(frozen=True)
class Segment:
    """Steps of a phase with one batch; all counts are of the phase."""

    first_step: int
    first_sample: int
    steps: int
    global_batch_size: int
    """Tokens a step."""


class Phase(Section):
    """One phase of training: how many tokens, of what, in which batches, at which learning rate."""

    name: Name
    """Name of the phase; overrides use it: `phases.domain.tokens=2T`. Example: `general`."""
    tokens: Tokens
    """Token budget of the phase. Example: `6T`."""
    sequence_length: Count
    """Tokens per sequence. Example: `4096`."""
    global_batch_size: Tokens
    """Tokens per step, over all ranks and accumulation steps. Example: `4_194_304`."""
    rampup_batch_size: Annotated[tuple[Ramp, ...], BeforeValidator(as_tuple)] = ()
    """Smaller batch sizes at the beginning. Example: `[{until: 50B, global_batch_size: 1_048_576}]`."""
    lr_scheduler: LRScheduler
    """Learning rate over the phase."""
    mixture: Annotated[dict[str, Positive], Field(min_length=1), BeforeValidator(_as_shares)]
    """Source or route to its share of the phase's tokens. Shares add up to 1; weights of at least 1 are scaled.
    Example: `{web: 0.7, law: 0.3}` or `{web: 7, law: 3}`."""
    replay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the phase that repeats the previous phase's mixture; `mixture` gets the rest.
    A resolved recipe has the result written out in `mixture`."""
    mixture_block_size: Count = 1024
    """Sequences within which the mixture is exact."""
    max_epochs: Positive | dict[str, Positive] = DEFAULT_EPOCHS
    """Most passes over one source, earlier phases included; a number, or one per source. Example: `{code: 6}`."""
    z_loss: NonNegative = 0.0
    """Weight of log²(Z) in the loss. Example: `1e-5`."""
    intra_document_masking: bool = False
    """Whether attention stays within a document if several share a sequence."""

    @model_validator(mode="after")
    def _adds_up(self) -> Phase:
        for batch in (*(ramp.global_batch_size for ramp in self.rampup_batch_size), self.global_batch_size):
            if batch % self.sequence_length:
                raise invalid(
                    f"has a batch of {batch} tokens, no multiple of sequence_length {self.sequence_length}",
                    f"use {max(1, round(batch / self.sequence_length)) * self.sequence_length}",
                )
        if self.tokens < self.segments[0].global_batch_size:
            raise invalid(
                f"has {self.tokens} tokens, fewer than one batch of {self.global_batch_size}",
                "raise `tokens` or lower `global_batch_size`",
            )
        total = sum(self.mixture.values())
        if abs(total - 1) > 1e-6:
            scaled = ", ".join(f"{name}: {share / total:.3g}" for name, share in self.mixture.items())
            raise invalid(f"has mixture shares that add up to {total:.6g}", f"make them add up to 1, such as {scaled}")
        if self.lr_scheduler.warmup > self.tokens:
            raise invalid("warms up for longer than it lasts", "lower lr_scheduler.warmup")
        return self

    @model_validator(mode="after")
    def _ramps_rise(self) -> Phase:
        ends = [ramp.until for ramp in self.rampup_batch_size]
        if ends != sorted(set(ends)) or (ends and ends[-1] >= self.tokens):
            raise invalid(
                f"has a rampup_batch_size until {', '.join(map(str, ends))} of {self.tokens} tokens",
                "let each `until` be above the one before it and below `tokens`",
            )
        return self

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Stretches of equal batch: whole batches, each until its tokens are reached."""
        found: list[Segment] = []
        step = tokens = 0
        for ramp in self.rampup_batch_size:
            steps = max(0, -(-(ramp.until - tokens) // ramp.global_batch_size))
            steps = min(steps, (self.tokens - tokens) // ramp.global_batch_size)
            found.append(Segment(step, tokens // self.sequence_length, steps, ramp.global_batch_size))
            step, tokens = step + steps, tokens + steps * ramp.global_batch_size
        found.append(
            Segment(
                step,
                tokens // self.sequence_length,
                (self.tokens - tokens) // self.global_batch_size,
                self.global_batch_size,
            )
        )
        return tuple(segment for segment in found if segment.steps) or (found[-1],)

    @property
    def steps(self) -> int:
        """Whole batches that the budget pays for."""
        return sum(segment.steps for segment in self.segments)

    @property
    def trained_tokens(self) -> int:
        """Tokens of those batches."""
        return sum(segment.steps * segment.global_batch_size for segment in self.segments)

    @property
    def samples(self) -> int:
        """Sequences of those batches."""
        return self.trained_tokens // self.sequence_length

    @property
    def batches(self) -> tuple[int, ...]:
        """Every batch that occurs, tokens a step."""
        return tuple(dict.fromkeys(segment.global_batch_size for segment in self.segments))

    @property
    def last_rate(self) -> float:
        """The learning rate at the phase's end."""
        rate = self.lr_scheduler
        decays = rate.min_lr is not None and rate.warmup < self.trained_tokens
        return rate.min_lr if decays and rate.min_lr is not None else rate.lr

    def epochs_allowed(self, source: str) -> float:
        """Passes over `source` before its budget is refused."""
        if isinstance(self.max_epochs, dict):
            return self.max_epochs.get(source, DEFAULT_EPOCHS)
        return self.max_epochs


def with_replay(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """The phases with every replay share written out into the mixtures."""
    resolved: list[Phase] = []
    for phase in phases:
        if not phase.replay:
            resolved.append(phase)
            continue
        if not resolved:
            raise invalid(
                f"has replay {phase.replay} in its first phase {phase.name}, where there is nothing to replay",
                "remove it",
            )
        former = resolved[-1].mixture
        total, own = sum(former.values()), sum(phase.mixture.values())
        mixture = {
            name: phase.replay * former.get(name, 0.0) / total + (1 - phase.replay) * phase.mixture.get(name, 0.0) / own
            for name in dict.fromkeys((*phase.mixture, *former))
        }
        resolved.append(phase.model_copy(update={"mixture": mixture, "replay": 0.0}))
    return tuple(resolved)
