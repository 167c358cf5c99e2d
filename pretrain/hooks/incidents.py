"""What went wrong in training, one file per incident.

    incidents/step-00001234.json        a skipped step: verdict, loss, norm, the limits
    incidents/rollback-00001240.json    a rollback: the step it returned to, the steps it skips

Contract: rank 0 writes, atomically; the files outlive rollbacks and restarts, which cut the metrics.
The documents of a step follow from its number (`twofold inspect-batch RECIPE --step 1234`): to look them up here would
hold all ranks for as long as the side indexes of thousands of shards take to read.
"""

from __future__ import annotations

from pretrain import layout
from pretrain.hooks.hook import Hook, Run, StepResult
from pretrain.hooks.metrics import finite
from twofold.files import write_json


class Incidents(Hook):
    """Writes a file for every skipped step."""

    def after_step(self, result: StepResult) -> None:
        if not (result.is_skipped and self.run.ranks.is_first):
            return
        step, judgement = result.step, result.judgement
        incident = {
            "step": step.index + 1,
            "verdict": judgement.verdict,
            "loss": finite(result.sums.loss),
            "loss_limit": judgement.loss_limit,
            "grad_norm": finite(result.grad_norm),
            "grad_norm_limit": judgement.norm_limit,
            "lr": step.lr,
        }
        write_json(self.run.out / layout.INCIDENTS_DIR / f"step-{step.index + 1:08d}.json", incident)


def write_rollback(run: Run, returned_to: int, steps_to_skip: range) -> None:
    """Write the file of a rollback; `steps_to_skip` are step indexes."""
    if not run.ranks.is_first:
        return
    incident = {
        "returned_to_step": returned_to,
        "first_skipped": steps_to_skip[0] + 1,
        "last_skipped": steps_to_skip[-1] + 1,
    }
    write_json(run.out / layout.INCIDENTS_DIR / f"rollback-{steps_to_skip[-1] + 1:08d}.json", incident)
