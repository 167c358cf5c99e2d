"""The training program: `deepspeed --module pretrain.start --recipe R --shards DIR --tokenizer DIR --out DIR`.

Contract: trains the recipe's phases to the end of the plan, from the newest intact checkpoint in `--out` if there
is one; layout.py lists what it writes. Interrupted anywhere and started again, it gives the losses and weights of an
uninterrupted run (bit for bit on CPU with the same number of ranks, up to the order of float sums with another one):
data, learning rate and phase are functions of the step alone.

Exit codes: 0 when the plan is done (at once if it was done before), 75 when a signal reached any rank or the
supervisor is gone (the step is finished and saved), 76 when the watchdog ended it, 2 when the user can fix it
(error.json).
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from torch import Tensor

from configs.recipe import dump_recipe, load_recipe
from configs.schema import Recipe
from pretrain import layout, rank_program
from pretrain.checkpoints import llama, past
from pretrain.checkpoints.checkpoint import Checkpoints
from pretrain.checkpoints.manifest import State
from pretrain.data import inputs
from pretrain.data.plan import Plan, token_counts
from pretrain.engine.deepspeed_adapter import start_ranks
from pretrain.engine.distributed import Ranks, place
from pretrain.engine.zero3 import Engine
from pretrain.goodput import Ledger
from pretrain.hooks.checkpointing import Checkpointer
from pretrain.hooks.events import StepEvents
from pretrain.hooks.hook import Hook, Progress, Run
from pretrain.hooks.housekeeping import GarbageCollection, Stragglers
from pretrain.hooks.incidents import Incidents
from pretrain.hooks.metrics import METRICS_FILE, Monitor, read_events
from pretrain.hooks.phase_end import PhaseWeights, Summary
from pretrain.hooks.skip_step import SpikeGuard
from pretrain.hooks.stop_signals import StopSignals
from pretrain.hooks.summary import made_with, summarize
from pretrain.hooks.validating import Validate
from pretrain.hooks.watchdog import Watch, unreported_stalls
from pretrain.model.decoder import initial_weights
from pretrain.trainer import Trainer
from twofold import lease
from twofold.errors import UserError, user_error
from twofold.exit_codes import EXIT_CODE_STOPPED, EXIT_CODE_USER_ERROR
from twofold.files import write_json


def main(arguments: Sequence[str] | None = None, stop: StopSignals | None = None) -> int:
    """Train; return the exit code. `stop`: the handlers of signals, if they are installed already."""
    options = _parse(arguments)
    out: Path = options.out
    rank, size = place()
    stop = stop or StopSignals()

    def program() -> int:
        recipe = load_recipe(options.recipe)
        ledger = Ledger(out) if rank == 0 else None
        with Watch(recipe.watch, out, rank, size, ledger) as watch:
            if rank == 0:
                stop.watch(out, lambda: watch.note("stopped"))
            ranks = start_ranks(options.device)
            if ranks.is_first:
                (out / layout.ERROR_FILE).unlink(missing_ok=True)
            code = _train(recipe, options, ranks, stop, watch)
            watch.outcome = {0: "done", EXIT_CODE_STOPPED: "stopped"}.get(code, "failed")
            return code

    try:
        with _first_ranks_lease(out, rank):
            return rank_program.exit_code_of(program, out)
    except UserError as refused:  # not for error.json: the folder belongs to the trainer that holds it
        print(refused, file=sys.stderr)
        return EXIT_CODE_USER_ERROR


def _first_ranks_lease(out: Path, rank: int) -> AbstractContextManager[None]:
    """Keep a second trainer out of the folder, whoever started it."""
    if rank != 0:
        return nullcontext()
    return lease.hold(out / layout.TRAINER_LEASE, "training", out, lambda text: print(text, file=sys.stderr))


def _train(recipe: Recipe, options: argparse.Namespace, ranks: Ranks, stop: StopSignals, watch: Watch) -> int:
    out: Path = options.out
    data = inputs.open_inputs(recipe, options.shards, options.tokenizer, ranks)
    plan = Plan(recipe)
    warnings: list[str] = []
    identity = past.identity(recipe, data.index, options.start_from)
    folder = out / layout.CHECKPOINTS_DIR
    checkpoints = Checkpoints(folder, recipe.checkpoints.keep, identity, ranks, dump_recipe(recipe), made_with())
    found = checkpoints.newest(warnings.append)
    if found is None:
        _refuse_lost_checkpoints(out, ranks)
    elif found[0].step == plan.total_steps:
        _summarize_again(recipe, out, data, plan, found[0], ranks)
        return 0
    resumed_step = found[0].step if found else 0
    lineage = found[0].lineage if found else ()
    monitor = Monitor(recipe, out, resumed_step, ranks.is_first, lineage)
    for stall in unreported_stalls(out) if ranks.is_first else ():
        monitor.event("stall", resumed_step, message=stall)
    monitor.attach(options.attach)
    for warning in warnings:
        monitor.event("warning", resumed_step, message=warning)
    watch.at(0, "model")
    engine = Engine(recipe, ranks)
    watch.at(0, "weights")
    run = Run(recipe, out, data, plan, engine, monitor, watch, Progress(plan.start_step))
    trainer = _trainer(run, checkpoints, options.tokenizer, stop)
    if found:
        trainer.resume(*found)
    else:
        engine.set_weights(_start_weights(recipe))
        watch.resumed(plan.start_step)
    code = 1
    try:
        _write_start(run)
        stop.begin()
        ended = trainer.train(options.stop_after_step)
        monitor.event("end" if ended == 0 else "stop", run.progress.done)
        if ended != 0:
            stop.heard()
        code = ended  # W&B records success only once the last event is written
    finally:
        monitor.close(code)
    # Launchers end all ranks when the first one leaves with a code: nobody leaves before W&B is done.
    ranks.barrier()
    return code


def _refuse_lost_checkpoints(out: Path, ranks: Ranks) -> None:
    """Refuse to start from step 0 where the metrics tell of checkpoints that are not there."""
    events = read_events(out / METRICS_FILE) if ranks.is_first else []
    saved = ranks.from_first([event["path"] for event in events if event["event"] == "checkpoint"])
    if saved:
        problem = f"is not there, and metrics.jsonl tells of {len(saved)} checkpoints"
        hint = "mount or restore the folder, or train from step 0 with `twofold run RECIPE --fresh`"
        raise user_error(str(out / saved[-1]), None, problem, hint)


def _summarize_again(recipe: Recipe, out: Path, data: inputs.Inputs, plan: Plan, state: State, ranks: Ranks) -> None:
    """Write the summary that a training has which was adopted when it was done."""
    if ranks.is_first and not (out / layout.SUMMARY_FILE).exists():
        taken = token_counts(data.order, plan, state.step, state.skipped_steps)
        write_json(out / layout.SUMMARY_FILE, summarize(recipe, out, taken, state.seconds, ranks, state.lineage))


def _write_start(run: Run) -> None:
    run.monitor.event(
        "start",
        run.progress.done,
        total_steps=run.plan.total_steps,
        total_tokens=run.plan.total_tokens,
        world_size=run.ranks.size,
        device=run.ranks.device.type,
        pid=os.getpid(),
        host=socket.gethostname(),
    )


def _trainer(run: Run, checkpoints: Checkpoints, tokenizer: Path, stop: StopSignals) -> Trainer:
    speaker = None
    if run.recipe.validation.prompts:
        from pretrain.model.generate import Speaker  # imports a tokenizer, which few ranks need

        speaker = Speaker(run.recipe, tokenizer)
    guard = SpikeGuard(run.recipe.stability)
    checkpointer = Checkpointer(run, checkpoints, guard)
    hooks: list[Hook] = [
        Stragglers(run),
        Incidents(run),
        Validate(run, speaker),
        PhaseWeights(run),
        Summary(run),
        checkpointer,
        StepEvents(run),
        GarbageCollection(run),
    ]
    return Trainer(run, guard, checkpointer, hooks, stop)


def _start_weights(recipe: Recipe) -> Iterable[tuple[str, Tensor]]:
    if recipe.model.start_from is None:
        return initial_weights(recipe.model, recipe.tokenizer.vocab_size, recipe.seed)
    return llama.read(Path(recipe.model.start_from), recipe.model, recipe.tokenizer.vocab_size)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = rank_program.parser(
        "pretrain.start",
        "Train a resolved recipe on token shards.",
        shards="folder with index.json",
        tokenizer="folder with token_bytes.npy",
        out="folder for metrics, checkpoints and weights",
    )
    parser.add_argument("--stop-after-step", type=int, help="save and stop after this step, as on a signal")
    parser.add_argument("--start-from", metavar="SHA256", help="hash of the weights that model.start_from names")
    parser.add_argument("--attach", type=Path, action="append", default=[], help="a file to send to W&B, once")
    return parser.parse_args(arguments)
