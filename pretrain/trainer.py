"""The training loop and what happens between its steps. It does not know phases: plan and order do.

Contract: step k of the plan has one effect on weights, token counts and metrics, whatever happened before it:
interruption, another number of ranks (but for the order of float sums), a rollback. All ranks take the
same branch everywhere: a step's loss and norm are the same on all of them after their reduction, and
what only one rank sees (a signal, a clock, a file on its disk) is summed with the loss.

A step is skipped when its gradient is not finite or a spike (`skipped`), or when it is one of those that a
rollback leaves out (`skipped_after_rollback`); both are in the checkpoint, the token counts and `incidents/`.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

import torch

from configs.schema import Recipe
from pretrain import layout
from pretrain.checkpoints import safetensors_stream
from pretrain.checkpoints.checkpoint import Checkpoints, State
from pretrain.checkpoints.training_state import SavedTensors
from pretrain.data import inputs
from pretrain.data.batches import HASH_MODULUS, Prefetched, batch_hash
from pretrain.data.plan import Plan, Step, TokenCounts, token_counts
from pretrain.engine.engine import Engine
from pretrain.hooks import incidents, summary
from pretrain.hooks.metrics import Monitor
from pretrain.hooks.skip_step import MOST_BAD_IN_A_ROW, Judgement, SpikeGuard
from pretrain.hooks.watchdog import Watch
from pretrain.model.decoder import parameter_shapes
from pretrain.model.generate import Speaker
from pretrain.model.sizes import flops_per_token
from pretrain.profiling.probe import probe_seconds
from twofold.errors import user_error
from twofold.exit_codes import EXIT_CODE_STOPPED
from twofold.files import write_json

_COLLECT_EVERY_STEPS = 200
"""Python's cyclic garbage is collected at set steps: on all ranks at once, never in the middle of one."""


class StopSignals:
    """Remembers that SIGTERM, SIGINT or SIGUSR1 arrived; on the first rank a file says the same, on any host."""

    def __init__(self, file: Path | None = None) -> None:
        self._signalled = False
        self._file = file
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._remember)

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled = True

    @property
    def asked(self) -> bool:
        return self._signalled or (self._file is not None and self._file.exists())

    def heard(self) -> None:
        """Training has saved and ends: the file has done its work."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)


class Trainer:
    """Trains from one state to the end of the plan."""

    def __init__(
        self,
        recipe: Recipe,
        data: inputs.Inputs,
        engine: Engine,
        checkpoints: Checkpoints,
        monitor: Monitor,
        speaker: Speaker | None,
        watch: Watch,
        out: Path,
    ) -> None:
        self.recipe, self.data, self.engine, self.checkpoints, self.monitor = recipe, data, engine, checkpoints, monitor
        self.out = out
        self.ranks = engine.ranks
        self.plan = Plan(recipe)
        self.done = self.plan.start_step
        self.guard = SpikeGuard(recipe.stability)
        self.skipped_steps: set[int] = set()
        self._speaker, self._watch = speaker, watch
        self._rows = Prefetched(data.batches, self.ranks.rank, self.ranks.size)
        self._seconds_before = 0.0
        self._started = self._saved_at = time.perf_counter()

    def resume(self, state: State, folder: Path) -> None:
        """Go on from a checkpoint."""
        with SavedTensors(folder) as saved:
            self.engine.restore(saved, state.optimizer_steps)
        self.done = state.step
        self.guard.remember(state.guard)
        self.skipped_steps = set(state.skipped_steps)
        self._seconds_before = max(self._seconds_before, state.seconds)

    def run(self, stop: StopSignals, stop_after_step: int | None = None) -> int:
        """Train to the end of the plan, or until told to stop; return the exit code."""
        self.monitor.event(
            "start", self.done, total_steps=self.plan.total_steps, total_tokens=self.plan.total_tokens,
            world_size=self.ranks.size, device=self.ranks.device.type, pid=os.getpid(), host=socket.gethostname(),
        )  # fmt: skip
        if self.done == self.plan.start_step:
            self._validate()
        gc.collect()
        gc.freeze()  # what lives until the end is not looked through again
        gc.disable()
        try:
            return self._run(stop, stop_after_step)
        finally:
            self._rows.close()
            gc.enable()

    def _run(self, stop: StopSignals, stop_after_step: int | None) -> int:
        while self.done < self.plan.total_steps:
            step = self.plan.at(self.done)
            stopping, minutes = False, False
            if step.index in self.skipped_steps:
                self.monitor.event("skipped_after_rollback", self.done + 1, tokens=step.tokens_after)
            else:
                stopping, minutes = self._step(step, stop)
                if self.guard.wants_rollback() and self._roll_back(step):
                    continue
                self._give_up_on_bad_steps(step)
            self.done += 1
            if self.done % _COLLECT_EVERY_STEPS == 0:
                gc.collect(1)
            stopping = stopping or self.done == stop_after_step
            self._after(step, stopping, minutes)
            if stopping and self.done < self.plan.total_steps:
                self.monitor.event("stop", self.done)
                stop.heard()
                return EXIT_CODE_STOPPED
        self.monitor.event("end", self.done)
        return 0

    def _after(self, step: Step, stopping: bool, minutes: bool) -> None:
        """What the plan, the clock or a signal asks for once `done` steps are made."""
        finished = self.done == self.plan.total_steps
        phase = self.plan.phase_ended_by(self.done)
        if self.done % self.recipe.watch.probe_every_steps == 0:
            self._watch.measured(probe_s=probe_seconds(self.ranks.device))
        for straggler in self._watch.stragglers():
            self.monitor.event("straggler", self.done, **straggler)
        if self.plan.validates_at(self.done):
            self._validate()
        if phase is not None:
            self._write_weights(phase.name)
        if finished:
            self._write_summary()
        reason = "phase end" if phase else "signal" if stopping else "minutes" if minutes else "tokens"
        if stopping or minutes or self.plan.checkpoints_at(self.done):
            self._save(step.tokens_after, phase.name if phase else None, reason)
        if stopping or finished:
            self._commit()

    def _step(self, step: Step, stop: StopSignals) -> tuple[bool, bool]:
        """Make one step; (any rank was asked to stop, it is time for a checkpoint)."""
        ranks = self.ranks
        begin = time.perf_counter()
        self._watch.at(step.index + 1, "data")
        batch_BU = self._rows.read(step, self._following(step))
        waited = time.perf_counter() - begin
        self._watch.measured(data_wait_s=waited)
        self._watch.at(step.index + 1, "gradients")
        local_loss, local_z = self.engine.accumulate(batch_BU, step.z_loss, step.intra_document_masking)
        fingerprint = batch_hash(batch_BU, first_row=ranks.rank * len(batch_BU))
        self._watch.at(step.index + 1, "agreement")
        loss, z_loss, fingerprints, asked, written, minutes = ranks.sum(
            [
                local_loss / ranks.size, local_z / ranks.size, fingerprint,
                stop.asked, self.checkpoints.is_written, self._minutes_are_over(),
            ]
        )  # fmt: skip
        judgements: list[Judgement] = []

        def accepts(norm: float) -> bool:
            judgements.append(self.guard.judge(step.phase, loss, norm))
            return judgements[-1].verdict == "accepted"

        self._watch.at(step.index + 1, "update")
        norm, applied = self.engine.apply(step.lr, accepts)
        assert applied == (judgements[-1].verdict == "accepted"), (step.index, norm, judgements)
        seconds = time.perf_counter() - begin
        if not applied:
            self.skipped_steps.add(step.index)
            incidents.write(self.out, self.data, step, loss, norm, judgements[-1], ranks)
        if self.checkpoints.pending is not None and written == ranks.size:
            self._commit()
        if self._is_logged(step) or not applied:
            flops = flops_per_token(self.recipe.model, self.recipe.tokenizer.vocab_size, step.sequence_length)
            self.monitor.event(
                "train",
                step.index + 1,
                phase=self.recipe.phases[step.phase].name,
                tokens=step.tokens_after,
                loss=loss,
                z_loss=z_loss,
                lr=step.lr,
                grad_norm=norm,
                skipped=not applied,
                verdict=judgements[-1].verdict,
                tps=step.tokens / seconds,
                mfu=self._utilisation(flops["full"] * step.tokens / seconds),
                mfu_causal=self._utilisation(flops["causal"] * step.tokens / seconds),
                data_loading_pct=100 * waited / seconds,
                memory_bytes=_peak_memory(ranks.device),
                step_seconds=seconds,
                seconds=self._seconds(),
                tokens_by_source=self._token_counts(step.index + 1).by_source(),
                batch_hash=f"{int(fingerprints) % HASH_MODULUS:08x}",
            )
        return asked > 0, minutes > 0

    def _following(self, step: Step) -> Step | None:
        """The next step that reads data."""
        after = range(step.index + 1, self.plan.total_steps)
        index = next((index for index in after if index not in self.skipped_steps), None)
        return None if index is None else self.plan.at(index)

    def _minutes_are_over(self) -> bool:
        minutes = self.recipe.checkpoints.every_minutes
        if minutes is None or not self.ranks.is_first or self.checkpoints.pending is not None:
            return False
        return time.perf_counter() - self._saved_at >= 60 * minutes

    def _is_logged(self, step: Step) -> bool:
        done = step.index + 1
        at_edge = step.first_sample == 0 or self.plan.phase_ended_by(done) is not None
        return at_edge or done % self.recipe.monitor.log_every_steps == 0

    def _roll_back(self, step: Step) -> bool:
        """Return to a checkpoint from before the bad steps and mark them as steps to skip; False without one."""
        margin = self.recipe.stability.rollback_after
        first = max(step.index + 1 - self.guard.bad_in_a_row - margin, self.plan.first_step(step.phase))
        found = self.checkpoints.newest(self._warn, upto=first)
        if found is None:
            return False
        state, folder = found
        rollbacks = [*self.guard.recent_rollbacks(step.index), step.index]
        if len(rollbacks) > self.recipe.stability.attempts:
            raise user_error(
                f"training, step {step.index + 1}", None,
                f"still has spikes after {len(rollbacks) - 1} rollbacks",
                f"look at {self.out / layout.INCIDENTS_DIR}, lower phases.{self.recipe.phases[step.phase].name}"
                ".lr_scheduler.lr, or raise stability.attempts",
            )  # fmt: skip
        steps_to_skip = range(first, step.index + 1)
        self.checkpoints.drop_after(state.step)
        self.monitor.rewind(state.step)
        self.resume(state, folder)
        self.guard.rollbacks = rollbacks
        self.skipped_steps |= set(steps_to_skip)
        self.monitor.event(
            "rollback", state.step, at_step=step.index + 1, first_skipped=steps_to_skip[0] + 1,
            last_skipped=steps_to_skip[-1] + 1, checkpoint=folder.name,
        )  # fmt: skip
        incidents.write_rollback(self.out, self.data, self.plan, state.step, steps_to_skip, self.ranks)
        return True

    def _give_up_on_bad_steps(self, step: Step) -> None:
        if self.guard.bad_in_a_row < MOST_BAD_IN_A_ROW:
            return
        name = self.recipe.phases[step.phase].name
        raise user_error(
            f"training, step {step.index + 1}", None,
            f"had {MOST_BAD_IN_A_ROW} gradients in a row that were not finite or spikes, "
            "and no checkpoint from before them to return to",
            f"lower phases.{name}.lr_scheduler.lr or lengthen its warmup",
        )  # fmt: skip

    def _utilisation(self, flops_per_s: float) -> float | None:
        peak = self.recipe.monitor.peak_tflops
        return flops_per_s / (self.ranks.size * peak * 1e12) if peak else None

    def _validate(self) -> None:
        begin = time.perf_counter()
        found = self.data.validation.bits_per_byte(self._token_losses, self.recipe.engine.micro_batch_size)
        said = self._speaker.say(self.engine.next_logits) if self._speaker else []
        last = self.plan.at(max(self.plan.start_step, self.done - 1))
        self.monitor.event(
            "validation",
            self.done,
            phase=self.recipe.phases[last.phase].name,
            tokens=last.tokens_after if self.done > self.plan.start_step else last.tokens_before,
            bits_per_byte=found,
            samples=said,
            elapsed_seconds=time.perf_counter() - begin,
        )

    def _token_losses(self, batch_BU: torch.Tensor) -> torch.Tensor:
        self._watch.at(self.done, "validation")
        return self.engine.token_losses(batch_BU)

    def _write_weights(self, phase: str) -> None:
        self._watch.at(self.done, "weights")
        weights = self.engine.full_weights()
        if self.ranks.is_first:
            shapes = parameter_shapes(self.recipe.model, self.recipe.tokenizer.vocab_size)
            safetensors_stream.write(self.out / layout.weights_file(phase), shapes, torch.float32, weights)
        else:
            _drain(weights)

    def _write_summary(self) -> None:
        if self.ranks.is_first:
            counts = summary.summarise(
                self.recipe, self.out, self._token_counts(self.done), self._seconds(), self.ranks
            )
            write_json(self.out / layout.SUMMARY_FILE, counts)

    def _save(self, tokens: int, ends_phase: str | None, reason: str) -> None:
        """Copy the state and begin to write it; training goes on meanwhile."""
        if self.checkpoints.pending is not None:
            self._commit()
        begin = time.perf_counter()
        self._watch.at(self.done, "checkpoint")
        self.monitor.sync()
        state = State(
            self.done, tokens, self._seconds(), ends_phase, reason, self.ranks.size, self.checkpoints.identity,
            self.engine.optimizer_steps, tuple(sorted(self.skipped_steps)), self.guard.memory(),
        )  # fmt: skip
        if self.ranks.is_first:
            write_json(self.out / layout.TOKEN_COUNTS_FILE, self._token_counts(self.done).as_json())
        self.checkpoints.begin(state, self.engine.parts())
        self._saved_at = time.perf_counter()
        self._pause = self._saved_at - begin

    def _commit(self) -> None:
        """Finish the pending checkpoint, if any."""
        state = self.checkpoints.pending
        if state is None:
            return
        begin = time.perf_counter()
        self._watch.at(self.done, "commit")
        path = self.checkpoints.commit()
        now = time.perf_counter()
        self.monitor.event(
            "checkpoint", state.step, path=str(path.relative_to(self.out)), reason=state.reason,
            pause_seconds=self._pause + now - begin, elapsed_seconds=now - self._saved_at + self._pause,
        )  # fmt: skip

    def _token_counts(self, done: int) -> TokenCounts:
        return token_counts(self.data.order, self.plan, done, [index for index in self.skipped_steps if index < done])

    def _warn(self, message: str) -> None:
        self.monitor.event("warning", self.done, message=message)

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started


def _drain(values: Iterable[object]) -> None:
    for _ in values:
        pass


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
