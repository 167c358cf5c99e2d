"""Validation at the plan's cadence: bits per byte by source, and continuations of the recipe's prompts."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

from torch import Tensor

from pretrain.data.plan import Step
from pretrain.hooks.hook import Hook, Run

if TYPE_CHECKING:
    from pretrain.model.generate import Speaker


class Validate(Hook):
    """Writes `validation` events, before the first step as well; documents are masked as in the phase's training."""

    def __init__(self, run: Run, speaker: Speaker | None) -> None:
        super().__init__(run)
        self._speaker = speaker

    def on_start(self) -> None:
        if self.run.progress.done == self.run.plan.start_step:
            self._validate()

    def after_advance(self, step: Step, stopping: bool) -> None:
        if self.run.plan.validates_at(self.run.progress.done):
            self._validate()

    def _validate(self) -> None:
        run, plan, done = self.run, self.run.plan, self.run.progress.done
        begin = time.perf_counter()
        last = plan.at(max(plan.start_step, done - 1))
        found = run.data.validation.bits_per_byte(
            functools.partial(self._token_losses, last.intra_document_masking), run.recipe.engine.micro_batch_size
        )
        samples = self._speaker.say(run.engine.next_logits) if self._speaker else []
        run.monitor.event(
            "validation",
            done,
            phase=run.recipe.phases[last.phase].name,
            tokens=last.tokens_after if done > plan.start_step else last.tokens_before,
            bits_per_byte=found,
            samples=samples,
            elapsed_seconds=time.perf_counter() - begin,
        )

    def _token_losses(self, intra_document_masking: bool, batch_BU: Tensor) -> Tensor:
        self.run.watch.at(self.run.progress.done, "validation")
        return self.run.engine.token_losses(batch_BU, intra_document_masking)
