"""What follows bad steps in a row: training returns to a checkpoint from before them, or ends with a hint.

Contract: collective, and the same decision on every rank. After a rollback, the bad steps and
`stability.rollback_after` steps before them are left out (`Progress.skipped_steps`); metrics and checkpoints of later
steps than the one returned to are removed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pretrain import layout
from pretrain.checkpoints.manifest import State
from pretrain.data.plan import Step
from pretrain.hooks import incidents
from pretrain.hooks.checkpointing import Checkpointer
from pretrain.hooks.hook import Run
from pretrain.hooks.skip_step import MOST_BAD_IN_A_ROW, SpikeGuard
from twofold.errors import user_error


class Rollback:
    """Not a hook, since it changes the next step."""

    def __init__(
        self, run: Run, guard: SpikeGuard, checkpointer: Checkpointer, resume: Callable[[State, Path], None]
    ) -> None:
        self._run, self._guard, self._checkpointer, self._resume = run, guard, checkpointer, resume

    def after_step(self, step: Step) -> bool:
        """Roll back if the guard asks for it and a checkpoint allows it; return whether training went back."""
        if self._guard.wants_rollback() and self._roll_back(step):
            return True
        if self._guard.bad_in_a_row >= MOST_BAD_IN_A_ROW:
            problem = (
                f"had {MOST_BAD_IN_A_ROW} gradients in a row that were not finite or spikes, "
                "and no checkpoint from before them to return to"
            )
            hint = f"lower phases.{self._phase(step)}.lr_scheduler.lr or lengthen its warmup"
            raise user_error(f"training, step {step.index + 1}", None, problem, hint)
        return False

    def _roll_back(self, step: Step) -> bool:
        run, guard = self._run, self._guard
        run.watch.at(step.index + 1, "rollback")
        margin = run.recipe.stability.rollback_after
        first = max(step.index + 1 - guard.bad_in_a_row - margin, run.plan.first_step(step.phase))
        found = self._checkpointer.checkpoints.newest(self._warn, upto=first)
        if found is None:
            return False
        state, folder = found
        rollbacks = [*guard.recent_rollbacks(step.index), step.index]
        if len(rollbacks) > run.recipe.stability.attempts:
            raise self._too_many(step, len(rollbacks) - 1)
        steps_to_skip = range(first, step.index + 1)
        # Nothing is removed before the state is back, and metrics last: a start cuts them, but cannot add to them.
        self._resume(state, folder)
        guard.rollbacks = rollbacks
        run.progress.skipped_steps |= set(steps_to_skip)
        incidents.write_rollback(run, state.step, steps_to_skip)
        self._checkpointer.drop_after(state.step)
        run.monitor.rewind(state.step)
        run.monitor.event(
            "rollback",
            state.step,
            at_step=step.index + 1,
            first_skipped=steps_to_skip[0] + 1,
            last_skipped=steps_to_skip[-1] + 1,
            checkpoint=folder.name,
        )
        return True

    def _too_many(self, step: Step, rollbacks: int) -> Exception:
        hint = (
            f"look at {self._run.out / layout.INCIDENTS_DIR}, lower phases.{self._phase(step)}"
            ".lr_scheduler.lr, or raise stability.attempts"
        )
        return user_error(
            f"training, step {step.index + 1}", None, f"still has spikes after {rollbacks} rollbacks", hint
        )

    def _phase(self, step: Step) -> str:
        return self._run.recipe.phases[step.phase].name

    def _warn(self, message: str) -> None:
        self._run.monitor.event("warning", self._run.progress.done, message=message)
