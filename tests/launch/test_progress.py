"""The progress bar of a training, drawn from the events that it writes."""

from __future__ import annotations

from typing import Any

import pytest
from rich.progress import Progress

from launch import progress
from pretrain.hooks.metrics import finite


@pytest.mark.parametrize(("loss", "shown"), [(4.25, "loss 4.250"), (float("nan"), "loss not finite")])
def test_every_loss_that_training_can_log_is_shown(loss: float, shown: str) -> None:
    """A skipped step may have a loss that is not finite, which metrics.jsonl holds as null."""
    line: dict[str, Any] = finite({"event": "train", "step": 3, "phase": "general", "loss": loss, "tps": 1200.0})
    bar = Progress()
    task = bar.add_task("starting ranks", numbers="")
    progress._show(bar, task, line)
    assert bar.tasks[0].fields["numbers"] == f"{shown} 1,200 tok/s"
