"""When checkpoints are saved and committed: by the plan, the clock, a signal, and at the end of every phase.

Contract: `save` copies the state and returns; training continues while it is written. The checkpoint is committed
after the first step at which every rank's part is on the disk, or before the next one is saved, or at the end.
"""

from __future__ import annotations

import time

from pretrain import layout
from pretrain.checkpoints.checkpoint import Checkpoints
from pretrain.checkpoints.manifest import State
from pretrain.data.plan import Step
from pretrain.hooks.hook import Hook, Run, StepResult
from pretrain.hooks.skip_step import SpikeGuard
from twofold.files import write_json


class Checkpointer(Hook):
    """Saves and commits; knows which checkpoint is pending."""

    def __init__(self, run: Run, checkpoints: Checkpoints, guard: SpikeGuard) -> None:
        super().__init__(run)
        self.checkpoints, self._guard = checkpoints, guard
        self._saved_at, self._pause = time.perf_counter(), 0.0
        self._minutes_are_over = False

    @property
    def is_due(self) -> bool:
        """Whether `checkpoints.every_minutes` are over, by the clock of the first rank."""
        minutes = self.run.recipe.checkpoints.every_minutes
        if minutes is None or not self.run.ranks.is_first or self.checkpoints.pending is not None:
            return False
        return time.perf_counter() - self._saved_at >= 60 * minutes

    def after_step(self, result: StepResult) -> None:
        self._minutes_are_over = result.sums.checkpoint_requests > 0
        if result.sums.parts_written == self.run.ranks.size:
            self.commit()

    def after_advance(self, step: Step, stopping: bool) -> None:
        done, plan = self.run.progress.done, self.run.plan
        minutes, self._minutes_are_over = self._minutes_are_over, False
        phase = plan.phase_ended_by(done)
        if stopping or minutes or plan.checkpoints_at(done):
            reason = "phase end" if phase else "signal" if stopping else "minutes" if minutes else "tokens"
            self.save(step.tokens_after, phase.name if phase else None, reason)
        if stopping or done == plan.total_steps:
            self.commit()

    def save(self, tokens: int, ends_phase: str | None, reason: str) -> None:
        """Copy the state and begin to write it. Collective."""
        self.commit()
        begin = time.perf_counter()
        run, progress = self.run, self.run.progress
        run.watch.at(progress.done, "checkpoint")
        run.monitor.sync()
        state = State(
            step=progress.done,
            tokens=tokens,
            seconds=progress.seconds,
            ends_phase=ends_phase,
            reason=reason,
            world_size=run.ranks.size,
            identity=self.checkpoints.identity,
            optimizer_steps=run.engine.optimizer_steps,
            skipped_steps=tuple(sorted(progress.skipped_steps)),
            guard=self._guard.memory(),
            lineage=progress.lineage,
        )
        if run.ranks.is_first:
            write_json(run.out / layout.TOKEN_COUNTS_FILE, run.token_counts().as_json())
        self.checkpoints.begin(state, run.engine.parts())
        run.watch.saved(progress.done)
        self._saved_at = time.perf_counter()
        self._pause = self._saved_at - begin

    def commit(self) -> None:
        """Finish the pending checkpoint, if any. Collective."""
        state = self.checkpoints.pending
        if state is None:
            return
        begin = time.perf_counter()
        self.run.watch.at(self.run.progress.done, "commit")
        path = self.checkpoints.commit()
        now = time.perf_counter()
        self.run.monitor.event(
            "checkpoint",
            state.step,
            path=str(path.relative_to(self.run.out)),
            reason=state.reason,
            pause_seconds=self._pause + now - begin,
            elapsed_seconds=now - self._saved_at + self._pause,
        )

    def drop_after(self, step: int) -> None:
        """Remove every checkpoint of a later step, the pending one as well. Collective."""
        self._minutes_are_over = False
        self.checkpoints.drop_after(step)
