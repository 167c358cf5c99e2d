"""The trainer: `deepspeed --module pretrain.train --recipe R --shards DIR --tokenizer DIR --out DIR`.

Contract: trains the recipe's phases to the end of the plan, from the newest intact checkpoint in
`--out` if there is one; what it writes is listed in stage.py. Interrupted anywhere and started again
it gives the same losses and weights as a run that was never interrupted (bit for bit on CPU with the
same number of ranks, up to the order of float sums with another one): data, learning rate and phase are
functions of the step alone.

Ends with 0 when the plan is done (at once when it was done before), with 75 when SIGTERM, SIGINT or
SIGUSR1 reached any rank (the step is finished and saved), with 76 when it no longer moved (watch.py), with 2
when the user can fix it (error.json).

A `train` line of metrics.jsonl:
    step, tokens            behind it, over all phases; `seconds` of training behind it, restarts included
    loss, z_loss            cross-entropy (nats a token) and log²(Z), means over the global batch
    lr, grad_norm           learning rate; norm of the gradient, global, before clipping; null where it was not finite
    skipped, verdict        whether the update was dropped, and what the spike guard said (guard.py)
    tps                     tokens a second
    mfu, mfu_causal         share of the devices' peak, all pairs of attention counted or the causal ones (sizes.py)
    data_loading_pct        % of the step's time, on rank 0
    memory_bytes            rank 0's peak: device memory on CUDA, resident memory on CPU
    tokens_by_source        of each source that changed the weights so far, exact
    batch_hash              fingerprint of the global batch, equal on any number of ranks
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from configs.recipe import dump_recipe, load_recipe
from configs.schema import Recipe
from pretrain import layout
from pretrain.checkpoints import llama
from pretrain.checkpoints.checkpoint import Checkpoints, OtherRankFailed
from pretrain.data import inputs
from pretrain.data.plan import Plan
from pretrain.engine.distributed import Ranks, place
from pretrain.engine.engine import Engine, start_ranks
from pretrain.hooks.metrics import Monitor
from pretrain.hooks.watchdog import Watch, unreported_stalls
from pretrain.model.decoder import initial_weights
from pretrain.model.generate import Speaker
from pretrain.trainer import StopSignals, Trainer
from twofold import VERSION
from twofold.errors import UserError
from twofold.exit_codes import EXIT_CODE_USER_ERROR


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; return the exit code."""
    options = _parse(arguments)
    out: Path = options.out
    rank, size = place()
    stop = StopSignals(out / layout.STOP_FILE if rank == 0 else None)
    try:
        recipe = load_recipe(options.recipe)
        with Watch(recipe.watch, out, rank, size) as watch:
            ranks = start_ranks(options.device)
            if ranks.is_first:
                (out / layout.ERROR_FILE).unlink(missing_ok=True)
            code = _run(recipe, options, ranks, stop, watch)
            watch.done = code == 0
            return code
    except UserError as error:
        layout.write_error(out, error)
        return EXIT_CODE_USER_ERROR
    except OtherRankFailed:
        return EXIT_CODE_USER_ERROR  # that rank has told why


def _run(recipe: Recipe, options: argparse.Namespace, ranks: Ranks, stop: StopSignals, watch: Watch) -> int:
    data = inputs.open_inputs(recipe, options.shards, options.tokenizer, ranks)
    warnings: list[str] = []
    checkpoints = Checkpoints(
        options.out / layout.CHECKPOINTS_DIR, recipe.checkpoints.keep, inputs.identity(recipe, data.index), ranks,
        dump_recipe(recipe), {"twofold": VERSION, **{name: version(name) for name in ("torch", "deepspeed")}},
    )  # fmt: skip
    found = checkpoints.newest(warnings.append)
    if found is not None and found[0].step == Plan(recipe).total_steps:
        return 0
    monitor = Monitor(recipe, options.out, found[0].step if found else 0, enabled=ranks.is_first)
    if ranks.is_first:
        for stall in unreported_stalls(options.out):
            monitor.event("stall", found[0].step if found else 0, message=stall)
    monitor.attach(options.attach)
    for warning in warnings:
        monitor.event("warning", found[0].step if found else 0, message=warning)
    watch.at(0, "model")
    engine = Engine(recipe, ranks)
    watch.at(0, "weights")
    speaker = Speaker(recipe, options.tokenizer) if recipe.validation.prompts else None
    trainer = Trainer(recipe, data, engine, checkpoints, monitor, speaker, watch, options.out)
    if found:
        trainer.resume(*found)
    else:
        engine.set_weights(_start_weights(recipe))
    code = 1
    try:
        code = trainer.run(stop, options.stop_after_step)
    finally:
        monitor.close(code)
    # Launchers end all ranks when the first one leaves with a code: nobody leaves before W&B is done.
    ranks.barrier()
    return code


def _start_weights(recipe: Recipe) -> Iterable[tuple[str, Tensor]]:
    if recipe.model.start_from is None:
        return initial_weights(recipe.model, recipe.tokenizer.vocab_size, recipe.seed)
    return llama.read(Path(recipe.model.start_from), recipe.model, recipe.tokenizer.vocab_size)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pretrain.train", description="Train a resolved recipe on token shards.")
    parser.add_argument("--recipe", type=Path, required=True, help="resolved recipe (YAML)")
    parser.add_argument("--shards", type=Path, required=True, help="folder with index.json")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with token_bytes.npy")
    parser.add_argument("--out", type=Path, required=True, help="metrics, checkpoints and weights go here")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--stop-after-step", type=int, help="save and stop after this step, as on a signal")
    parser.add_argument("--attach", type=Path, action="append", default=[], help="a file for W&B, told once")
    parser.add_argument("--local_rank", type=int, help="appended by the launcher; LOCAL_RANK is what counts")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter's teardown waits for the process group's threads, or aborts on them, where a peer is gone.
    os._exit(exit_code)
