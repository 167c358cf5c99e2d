"""The training loop. It does not know phases: the plan and the data order do.

Contract: step k of the plan has one effect on weights, token counts and metrics, whatever happened before it:
an interruption, another number of ranks (up to the order of float sums), a rollback. All ranks take the same
branches: a step's loss and norm are the same on all of them after their reduction, and what only one rank sees
(a signal, a clock, a file on its disk) is summed together with the loss.

A step has no effect if its gradient is not finite or a spike (`skipped`), or if a rollback leaves it out
(`skipped_after_rollback`). What surrounds the step is in `pretrain/hooks`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pretrain.checkpoints.manifest import State
from pretrain.checkpoints.training_state import SavedTensors
from pretrain.data.batches import Prefetched, batch_hash
from pretrain.data.plan import Step
from pretrain.hooks.checkpointing import Checkpointer
from pretrain.hooks.hook import Hook, Run, StepResult, StepSums
from pretrain.hooks.rollback import Rollback
from pretrain.hooks.skip_step import SpikeGuard
from pretrain.hooks.stop_signals import StopSignals
from twofold.exit_codes import EXIT_CODE_STOPPED


class Trainer:
    """Trains from one state to the end of the plan."""

    def __init__(
        self, run: Run, guard: SpikeGuard, checkpointer: Checkpointer, hooks: Sequence[Hook], stop: StopSignals
    ) -> None:
        """`hooks` are called in this order; `checkpointer` is one of them."""
        self.run, self.guard, self.checkpointer, self.hooks, self.stop = run, guard, checkpointer, hooks, stop
        self.rollback = Rollback(run, guard, checkpointer, self.resume)
        self.batches = Prefetched(run.data.batches, run.ranks.rank, run.ranks.size)

    def resume(self, state: State, folder: Path) -> None:
        """Continue from a checkpoint."""
        with SavedTensors(folder) as saved:
            self.run.engine.restore(saved, state.optimizer_steps)
        self.run.progress.resume(state)
        self.run.watch.resumed(state.step)
        self.guard.remember(state.guard)
        behind = self.run.ranks.gather(state.step)
        assert len(set(behind)) == 1, f"ranks resumed from different steps: {behind}"

    def train(self, stop_after_step: int | None = None) -> int:
        """Train to the end of the plan, or until a stop is asked for; return the exit code."""
        try:
            for hook in self.hooks:
                hook.on_start()
            return 0 if self._train(stop_after_step) else EXIT_CODE_STOPPED
        finally:
            self.batches.close()
            gc.enable()

    def _train(self, stop_after_step: int | None) -> bool:
        """All steps that are left; whether the plan's last one is behind."""
        progress, plan = self.run.progress, self.run.plan
        stopping = False
        while progress.done < plan.total_steps and not stopping:
            step = plan.at(progress.done)
            progress.done += 1
            if step.index in progress.skipped_steps:
                self.run.monitor.event("skipped_after_rollback", progress.done, tokens=step.tokens_after)
            else:
                result = self.train_step(step)
                for hook in self.hooks:
                    hook.after_step(result)
                if self.rollback.after_step(step):
                    continue
                stopping = result.sums.stop_requests > 0
            stopping = stopping or progress.done == stop_after_step
            for hook in self.hooks:
                hook.after_advance(step, stopping)
        return progress.done == plan.total_steps

    def train_step(self, step: Step) -> StepResult:
        """Read a batch, add up its gradients, agree on it with the other ranks, and update the weights or skip."""
        engine, begin = self.run.engine, time.perf_counter()
        self._mark(step, "data")
        batch_BU = self.batches.read(step, self._next_step(step))
        data_seconds = time.perf_counter() - begin
        self.run.watch.measured(data_wait_s=data_seconds)
        self._mark(step, "gradients")
        loss, z_loss = engine.accumulate(batch_BU, step.z_loss, step.intra_document_masking)
        sums = self._local_sums(step, batch_BU, loss, z_loss)
        self._mark(step, "agreement")
        sums = sums.over(self.run.ranks)
        self._mark(step, "update")
        grad_norm = engine.grad_norm()
        judgement = self.guard.judge(step.phase, sums.loss, grad_norm)
        if judgement.verdict == "accepted":
            engine.step(step.lr)
        else:
            engine.skip_step()
            self.run.progress.skipped_steps.add(step.index)
        return StepResult(step, sums, grad_norm, judgement, data_seconds, time.perf_counter() - begin)

    def _mark(self, step: Step, doing: str) -> None:
        """Tell the watchdog how far this rank has come."""
        self.run.watch.at(step.index + 1, doing)

    def _local_sums(self, step: Step, batch_BU: Tensor, loss: float, z_loss: float) -> StepSums:
        """This rank's share of what the ranks add up."""
        ranks = self.run.ranks
        return StepSums(
            loss=loss / ranks.size,
            z_loss=z_loss / ranks.size,
            batch_hash=batch_hash(batch_BU, first_row=ranks.rank * len(batch_BU)),
            stop_requests=self.stop.asked,
            parts_written=self.checkpointer.checkpoints.is_written,
            checkpoint_requests=self.checkpointer.is_due,
        )

    def _next_step(self, step: Step) -> Step | None:
        """The next step that reads data."""
        plan, skipped = self.run.plan, self.run.progress.skipped_steps
        after = range(step.index + 1, plan.total_steps)
        index = next((index for index in after if index not in skipped), None)
        return None if index is None else plan.at(index)
