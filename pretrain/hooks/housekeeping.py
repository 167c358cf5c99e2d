"""What keeps long runs even: garbage collection at set steps, and the search for slow ranks."""

from __future__ import annotations

import gc

from pretrain.data.plan import Step
from pretrain.hooks.hook import Hook
from pretrain.profiling.timing import probe_seconds

_COLLECT_EVERY_STEPS = 200


class GarbageCollection(Hook):
    """Collects Python's cyclic garbage on all ranks at once, never in the middle of a step."""

    def on_start(self) -> None:
        gc.collect()
        gc.freeze()  # what lives until the end is not searched again
        gc.disable()

    def after_advance(self, step: Step, stopping: bool) -> None:
        if self.run.progress.done % _COLLECT_EVERY_STEPS == 0:
            gc.collect(1)


class Stragglers(Hook):
    """Measures what each rank does alone, for its heartbeat, and reports ranks that are slower than the others."""

    def after_advance(self, step: Step, stopping: bool) -> None:
        run = self.run
        if run.progress.done % run.recipe.watch.probe_every_steps == 0:
            run.watch.measured(probe_s=probe_seconds(run.ranks.device))
        for straggler in run.watch.stragglers():
            run.monitor.event("straggler", run.progress.done, **straggler)
