"""The interface of a hook: what surrounds the training step and changes nothing in it.

Contract: the trainer calls each method of its hooks in the order of its list, on every rank, so a hook may use
collectives. A hook may read all of `Run`; only `Progress` is shared state that changes. To add one, derive from
`Hook`, override what it needs, and list it in `pretrain/train.py`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.schema import Recipe
from pretrain.checkpoints.manifest import State
from pretrain.data.inputs import Inputs
from pretrain.data.plan import Plan, Step, TokenCounts, token_counts
from pretrain.engine.distributed import Ranks
from pretrain.hooks.metrics import Monitor
from pretrain.hooks.skip_step import Judgement
from pretrain.hooks.watchdog import Watch

if TYPE_CHECKING:
    from pretrain.engine.zero3 import Engine


@dataclass
class Progress:
    """How far training has come; the part of its state that is not in tensors."""

    done: int
    """Steps behind it."""
    skipped_steps: set[int] = field(default_factory=set)
    """Indexes of steps that had no effect, and of those to skip after a rollback."""
    lineage: tuple[Mapping[str, Any], ...] = ()
    """Checkpoints of other runs that this one branched from."""
    seconds_before: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def resume(self, state: State) -> None:
        """Continue from a checkpoint; a rollback takes no time back."""
        self.done = state.step
        self.skipped_steps = set(state.skipped_steps)
        self.lineage = state.lineage
        self.seconds_before = max(self.seconds_before, state.seconds)

    @property
    def seconds(self) -> float:
        """Training time so far, over all restarts."""
        return self.seconds_before + time.perf_counter() - self.started


@dataclass(frozen=True)
class Run:
    """What one rank trains with."""

    recipe: Recipe
    out: Path
    data: Inputs
    plan: Plan
    engine: Engine
    monitor: Monitor
    watch: Watch
    progress: Progress

    @property
    def ranks(self) -> Ranks:
        return self.engine.ranks

    def token_counts(self) -> TokenCounts:
        """Tokens that the steps so far took from each source."""
        done = self.progress.done
        skipped = [index for index in self.progress.skipped_steps if index < done]
        return token_counts(self.data.order, self.plan, done, skipped)


@dataclass(frozen=True)
class StepSums:
    """What the ranks tell each other about a step, added up over them."""

    loss: float
    """Mean cross-entropy, nats per token: each rank gives its mean divided by the number of ranks."""
    z_loss: float
    """Mean of log²(Z), in the same way."""
    batch_hash: float
    """Fingerprint of the global batch, to be taken modulo `HASH_MODULUS`."""
    stop_requests: float
    parts_written: float
    """Ranks whose part of the pending checkpoint is on the disk."""
    checkpoint_requests: float
    """Ranks by whose clock a checkpoint is due."""

    def over(self, ranks: Ranks) -> StepSums:
        """The sums of all ranks' values. Collective."""
        return StepSums(*ranks.sum(astuple(self)))


@dataclass(frozen=True)
class StepResult:
    """The result of a step, the same on every rank except for the seconds."""

    step: Step
    sums: StepSums
    grad_norm: float
    """Before clipping; NaN if a gradient was not finite."""
    judgement: Judgement
    data_seconds: float
    """The wait for the batch."""
    seconds: float

    @property
    def is_skipped(self) -> bool:
        return self.judgement.verdict != "accepted"


class Hook:
    """Does nothing; derive from it."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_start(self) -> None:
        """Called before the first step of this process."""

    def after_step(self, result: StepResult) -> None:
        """Called when the ranks have updated the weights or skipped the step; `progress.done` counts it."""

    def after_advance(self, step: Step, stopping: bool) -> None:
        """Called for each step that is behind, those left out after a rollback included; `stopping`: the last one."""
