"""What training leaves behind at the end of a phase and at its own end: weights, and the summary."""

from __future__ import annotations

from collections import deque

import torch

from pretrain import layout
from pretrain.checkpoints import safetensors_stream
from pretrain.data.plan import Step
from pretrain.hooks import summary
from pretrain.hooks.hook import Hook
from pretrain.model.decoder import parameter_shapes
from twofold.files import write_json


class PhaseWeights(Hook):
    """Writes the float32 master weights at the end of each phase, in the memory of one parameter."""

    def after_advance(self, step: Step, stopping: bool) -> None:
        run = self.run
        phase = run.plan.phase_ended_by(run.progress.done)
        if phase is None:
            return
        run.watch.at(run.progress.done, "phase weights")
        weights = run.engine.full_weights()
        if run.ranks.is_first:
            shapes = parameter_shapes(run.recipe.model, run.recipe.tokenizer.vocab_size)
            safetensors_stream.write(run.out / layout.weights_file(phase.name), shapes, torch.float32, weights)
        else:
            deque(weights, maxlen=0)  # every rank takes part in gathering


class Summary(Hook):
    """Writes summary.json, which says that training is complete."""

    def after_advance(self, step: Step, stopping: bool) -> None:
        run = self.run
        if run.ranks.is_first and run.progress.done == run.plan.total_steps:
            progress = run.progress
            counts = summary.summarize(
                run.recipe, run.out, run.token_counts(), progress.seconds, run.ranks, progress.lineage
            )
            write_json(run.out / layout.SUMMARY_FILE, counts)
