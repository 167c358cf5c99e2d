"""What went wrong in training, each incident a file of its own, with the documents that were in it.

    incidents/step-00001234.json        a skipped step: verdict, loss, norm, the limits, its documents
    incidents/rollback-00001240.json    a rollback: where it went back to, the steps it skips, theirs

Contract: rank 0 writes, atomically; the files outlive rollbacks and restarts, which cut the metrics.
A document is named by source, shard, its number there, id and the tokens of it that were in the batch.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pretrain import layout
from pretrain.data import provenance
from pretrain.data.inputs import Inputs
from pretrain.data.plan import Plan, Step
from pretrain.engine.distributed import Ranks
from pretrain.hooks.skip_step import Judgement
from twofold.files import write_json


def write(out: Path, data: Inputs, step: Step, loss: float, norm: float, judgement: Judgement, ranks: Ranks) -> None:
    """Keep a skipped step."""
    if not ranks.is_first:
        return
    incident = {
        "step": step.index + 1,
        "verdict": judgement.verdict,
        "loss": _finite(loss),
        "loss_limit": judgement.loss_limit,
        "grad_norm": _finite(norm),
        "grad_norm_limit": judgement.norm_limit,
        "lr": step.lr,
        "documents": _documents(data, step),
    }
    write_json(out / layout.INCIDENTS_DIR / f"step-{step.index + 1:08d}.json", incident)


def write_rollback(out: Path, data: Inputs, plan: Plan, returned_to: int, steps_to_skip: range, ranks: Ranks) -> None:
    """Keep a rollback; `steps_to_skip` are step indexes."""
    if not ranks.is_first:
        return
    incident = {
        "returned_to_step": returned_to,
        "first_skipped": steps_to_skip[0] + 1,
        "last_skipped": steps_to_skip[-1] + 1,
        "documents_by_step": {str(index + 1): _documents(data, plan.at(index)) for index in steps_to_skip},
    }
    write_json(out / layout.INCIDENTS_DIR / f"rollback-{steps_to_skip[-1] + 1:08d}.json", incident)


def _documents(data: Inputs, step: Step) -> list[dict[str, Any]]:
    return [span.as_json() for span in provenance.documents(data.index, data.order, step)]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
