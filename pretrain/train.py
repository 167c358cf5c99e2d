"""The trainer: `deepspeed --module pretrain.train --recipe R --shards DIR --tokenizer DIR --out DIR`.

Contract: trains the recipe's phases to the end of the plan, from the newest intact checkpoint in
`--out` if there is one; what it writes is listed in stage.py. Interrupted anywhere and started again
with the same number of ranks, it gives the same losses and weights, bit for bit on CPU, as a run that
was never interrupted: data, learning rate and phase are functions of the step alone.

Ends with 0 when the plan is done (at once when it was done before), with 75 when SIGTERM, SIGINT or
SIGUSR1 reached any rank (the step is finished and saved), with 2 when the user can mend it (error.json).

A `train` line of metrics.jsonl:
    step, tokens            behind it, over all phases; `seconds` of training behind it, restarts included
    loss, z_loss            cross-entropy (nats a token) and log²(Z), means over the global batch
    gradient_norm           global, before clipping; null in a skipped step (`skipped`: not finite)
    mfu_full_attention, mfu_causal_attention    share of the devices' peak, both conventions (sizes.py)
    data_wait_share         of the step's time, on rank 0
    memory_bytes            rank 0's peak: device memory on CUDA, resident memory on CPU
    tokens_by_source        taken from each source so far, exact
    batch_hash              fingerprint of the global batch, equal on any number of ranks
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from configs.errors import EXIT_CODE_USER_ERROR, UserError, user_error
from configs.files import write_json
from configs.recipe import load_recipe
from configs.schema import Recipe
from pretrain import inputs, llama, safetensors_stream, stage, summary
from pretrain.checkpoint import Checkpoints, State
from pretrain.data import HASH_MODULUS, Batches, batch_hash
from pretrain.engine import Engine, StepResult, start_ranks
from pretrain.evaluate import Validation
from pretrain.model import initial_weights, parameter_shapes
from pretrain.monitor import Monitor
from pretrain.order import Order
from pretrain.plan import Plan, Step, ledger
from pretrain.ranks import Ranks
from pretrain.sizes import flops_per_token

MOST_SKIPPED_IN_A_ROW = 10
"""Steps with a gradient that is not finite, before training gives up."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; return the exit code."""
    options = _parse(arguments)
    out: Path = options.out
    stop = StopSignals()
    try:
        ranks = start_ranks(options.device)
        if ranks.is_first:
            (out / stage.ERROR_FILE).unlink(missing_ok=True)
        return _run(options, ranks, stop)
    except UserError as error:
        problems = [
            {"field": p.field, "value": None if p.value is None else str(p.value), "problem": p.problem, "mend": p.mend}
            for p in error.problems
        ]
        print(error, file=sys.stderr)
        with contextlib.suppress(UserError):  # the disk may be what is full
            write_json(out / stage.ERROR_FILE, {"problems": problems})
        return EXIT_CODE_USER_ERROR


def _run(options: argparse.Namespace, ranks: Ranks, stop: StopSignals) -> int:
    recipe = load_recipe(options.recipe)
    data = inputs.open_inputs(recipe, options.shards, options.tokenizer, ranks)
    warnings: list[str] = []
    checkpoints = Checkpoints(
        options.out / stage.CHECKPOINTS_DIR, recipe.checkpoints.keep, inputs.identity(recipe, data.index), ranks
    )
    found = checkpoints.newest(warnings.append)
    if found is not None and found[0].step == Plan(recipe).total_steps:
        return 0
    state = found[0] if found else None
    monitor = Monitor(recipe, options.out, state.step if state else 0, enabled=ranks.is_first)
    for warning in warnings:
        monitor.event("warning", state.step if state else 0, message=warning)
    engine = Engine(recipe, ranks)
    if found:
        engine.load(found[1])
    else:
        engine.set_weights(_start_weights(recipe))
    trainer = Trainer(recipe, data, engine, checkpoints, monitor, options.out, state)
    code = 1
    try:
        code = trainer.run(stop, options.stop_after_step)
        ranks.barrier()
    finally:
        monitor.close(code)
    return code


class StopSignals:
    """Remembers that SIGTERM, SIGINT or SIGUSR1 arrived."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._remember)

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True


class Trainer:
    """The loop and what it does between steps. It does not know phases: plan and order do."""

    def __init__(
        self,
        recipe: Recipe,
        data: inputs.Inputs,
        engine: Engine,
        checkpoints: Checkpoints,
        monitor: Monitor,
        out: Path,
        state: State | None,
    ) -> None:
        self.recipe, self.engine, self.checkpoints, self.monitor, self.out = recipe, engine, checkpoints, monitor, out
        self.ranks = engine.ranks
        self.plan = Plan(recipe)
        self.order: Order = data.order
        self.batches: Batches = data.batches
        self.validation: Validation = data.validation
        self.done = state.step if state else 0
        self._seconds_before = state.seconds if state else 0.0
        self._started = time.perf_counter()
        self._skipped_in_a_row = 0

    def run(self, stop: StopSignals, stop_after_step: int | None = None) -> int:
        """Train to the end of the plan, or until told to stop; return the exit code."""
        self.monitor.event(
            "start", self.done, total_steps=self.plan.total_steps, total_tokens=self.plan.total_tokens,
            world_size=self.ranks.size, device=self.ranks.device.type, pid=os.getpid(),
        )  # fmt: skip
        if self.done == 0:
            self._validate()
        for index in range(self.done, self.plan.total_steps):
            step = self.plan.at(index)
            stopping = self._step(step, stop)
            self.done = index + 1
            stopping = stopping or self.done == stop_after_step
            finished = self.done == self.plan.total_steps
            phase = self.plan.phase_ended_by(self.done)
            if self.plan.validates_at(self.done):
                self._validate()
            if phase is not None:
                self._write_weights(phase.name)
            if finished:
                self._write_summary()
            if stopping or self.plan.checkpoints_at(self.done):
                self._save(step.tokens_after, phase.name if phase else None)
            if stopping and not finished:
                self.monitor.event("stop", self.done)
                return stage.EXIT_CODE_STOPPED
        self.monitor.event("end", self.done)
        return 0

    def _step(self, step: Step, stop: StopSignals) -> bool:
        """Make one step; True when any rank was asked to stop."""
        ranks = self.ranks
        begin = time.perf_counter()
        batch_BU = self.batches.read(step, ranks.rank, ranks.size)
        waited = time.perf_counter() - begin
        result = self.engine.train_step(batch_BU, step.learning_rate, step.z_loss)
        fingerprint = batch_hash(batch_BU, first_row=ranks.rank * len(batch_BU))
        loss, z_loss, fingerprints, asked = ranks.sum(
            [result.loss / ranks.size, result.z_loss / ranks.size, fingerprint, float(stop.asked)]
        )
        seconds = time.perf_counter() - begin
        self._count_skips(result, step)
        if self._is_logged(step):
            flops = flops_per_token(self.recipe.model, self.recipe.tokenizer.vocab_size, step.sequence_length)
            self.monitor.event(
                "train",
                step.index + 1,
                phase=self.recipe.phases[step.phase].name,
                tokens=step.tokens_after,
                loss=loss,
                z_loss=z_loss,
                learning_rate=step.learning_rate,
                gradient_norm=result.gradient_norm,
                skipped=not result.applied,
                tokens_per_s=step.tokens / seconds,
                mfu_full_attention=self._utilisation(flops["full"] * step.tokens / seconds),
                mfu_causal_attention=self._utilisation(flops["causal"] * step.tokens / seconds),
                data_wait_share=waited / seconds,
                memory_bytes=_peak_memory(ranks.device),
                step_seconds=seconds,
                seconds=self._seconds(),
                tokens_by_source=ledger(self.order, self.plan, step.index + 1).by_source(),
                batch_hash=f"{int(fingerprints) % HASH_MODULUS:08x}",
            )
        return asked > 0

    def _is_logged(self, step: Step) -> bool:
        done = step.index + 1
        at_edge = step.first_sample == 0 or self.plan.phase_ended_by(done) is not None
        return at_edge or done % self.recipe.monitor.log_every_steps == 0

    def _count_skips(self, result: StepResult, step: Step) -> None:
        self._skipped_in_a_row = 0 if result.applied else self._skipped_in_a_row + 1
        if self._skipped_in_a_row == MOST_SKIPPED_IN_A_ROW:
            raise user_error(
                f"training, step {step.index + 1}", None,
                f"had {MOST_SKIPPED_IN_A_ROW} gradients in a row that were not finite",
                f"lower phases.{self.recipe.phases[step.phase].name}.learning_rate.peak or lengthen its warmup",
            )  # fmt: skip

    def _utilisation(self, flops_per_s: float) -> float | None:
        peak = self.recipe.monitor.peak_tflops
        return flops_per_s / (self.ranks.size * peak * 1e12) if peak else None

    def _validate(self) -> None:
        begin = time.perf_counter()
        found = self.validation.bits_per_byte(self.engine.token_losses, self.recipe.engine.micro_batch_sequences)
        last = self.plan.at(max(0, self.done - 1))
        self.monitor.event(
            "validation",
            self.done,
            phase=self.recipe.phases[last.phase].name,
            tokens=last.tokens_after if self.done else 0,
            bits_per_byte=found,
            elapsed_seconds=time.perf_counter() - begin,
        )

    def _write_weights(self, phase: str) -> None:
        weights = self.engine.full_weights()
        if self.ranks.is_first:
            shapes = parameter_shapes(self.recipe.model, self.recipe.tokenizer.vocab_size)
            safetensors_stream.write(self.out / stage.weights_file(phase), shapes, torch.float32, weights)
        else:
            for _ in weights:
                pass

    def _write_summary(self) -> None:
        if self.ranks.is_first:
            taken = ledger(self.order, self.plan, self.done)
            counts = summary.summarise(self.recipe, self.out, taken, self._seconds(), self.ranks)
            write_json(self.out / stage.SUMMARY_FILE, counts)

    def _save(self, tokens: int, ends_phase: str | None) -> None:
        begin = time.perf_counter()
        self.monitor.sync()
        state = State(self.done, tokens, self._seconds(), ends_phase, self.ranks.size, self.checkpoints.identity)
        path = self.checkpoints.save(state, self.engine.save)
        self.monitor.event(
            "checkpoint", self.done, path=str(path.relative_to(self.out)), elapsed_seconds=time.perf_counter() - begin
        )

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started


def _start_weights(recipe: Recipe) -> Iterable[tuple[str, Tensor]]:
    if recipe.model.start_from is None:
        return initial_weights(recipe.model, recipe.tokenizer.vocab_size, recipe.seed)
    return llama.read(Path(recipe.model.start_from), recipe.model, recipe.tokenizer.vocab_size)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pretrain.train", description="Train a resolved recipe on token shards.")
    parser.add_argument("--recipe", type=Path, required=True, help="resolved recipe (YAML)")
    parser.add_argument("--shards", type=Path, required=True, help="folder with index.json")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with token_bytes.npy")
    parser.add_argument("--out", type=Path, required=True, help="metrics, checkpoints and weights go here")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--stop-after-step", type=int, help="save and stop after this step, as on a signal")
    parser.add_argument("--local_rank", type=int, help="appended by the launcher; LOCAL_RANK is what counts")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter's teardown waits for the process group's threads, or aborts on them, where a peer is gone.
    os._exit(exit_code)
