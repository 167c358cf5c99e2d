"""A dry run on all ranks before a long allocation is spent: the links, then one step at full shape.

    deepspeed … --module pretrain.profiling.dry_run --recipe R --shards DIR --tokenizer DIR --out DIR --device D

Contract: opens the run's inputs on every rank, measures each pair of hosts and all ranks together, makes one
optimizer step of the largest batch's micro-batch on real tokens at rate 0, and leaves `dry_run.json` in `--out`.
It keeps no other state. What a user can fix ends with code 2 and error.json, as in training; the watchdog ends the
wait for a link that delivers nothing.

Pairs are measured in rounds of a tournament, one half of the hosts with the other half at once, so n hosts take n - 1
rounds; both hosts of a pair send at the same time.
"""

from __future__ import annotations

import argparse
import math
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from configs.recipe import load_recipe
from configs.schema import Recipe
from pretrain import layout, rank_program
from pretrain.data import inputs
from pretrain.data.plan import Plan
from pretrain.engine.deepspeed_adapter import start_ranks
from pretrain.engine.distributed import Ranks, place
from pretrain.engine.zero3 import Engine
from pretrain.hooks.watchdog import Watch
from pretrain.profiling.timing import peak_memory, seconds_of, synchronize
from twofold.files import write_json

_BYTES = {"cuda": 256 << 20, "cpu": 8 << 20}
_TRIALS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the dry run; return the exit code."""
    parser = rank_program.parser(
        "pretrain.profiling.dry_run",
        "Measure links and one step, on all ranks.",
        shards="folder with index.json",
        tokenizer="folder with token_bytes.npy",
        out="folder for dry_run.json",
    )
    options = parser.parse_args(arguments)
    rank, size = place()

    def program() -> int:
        recipe = load_recipe(options.recipe)
        with Watch(recipe.watch, options.out, rank, size) as watch:
            ranks = start_ranks(options.device)
            found = _dry_run(recipe, options, ranks, watch)
            if ranks.is_first:
                write_json(options.out / layout.DRY_RUN_FILE, found)
            ranks.barrier()
            watch.outcome = "done"
        return 0

    return rank_program.exit_code_of(program, options.out)


def _dry_run(recipe: Recipe, options: argparse.Namespace, ranks: Ranks, watch: Watch) -> dict[str, Any]:
    data = inputs.open_inputs(recipe, options.shards, options.tokenizer, ranks)
    # Nodes are counted by their local rank 0, since names may repeat.
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    nodes: list[tuple[str, int]] = ranks.gather((host, int(os.environ.get("LOCAL_RANK", "0"))))
    watch.at(0, "links")
    leaders = [rank for rank, (_, local) in enumerate(nodes) if local == 0]
    pairs = _pairs(ranks, leaders)
    return {
        "hosts": [nodes[rank][0] for rank in leaders],
        "ranks": ranks.size,
        "links": [
            {"nodes": [leaders.index(a), leaders.index(b)], "bytes_per_s": pairs[a, b]} for a, b in sorted(pairs)
        ],
        "all_reduce_bytes_per_s": _all_reduce(ranks),
        "step": _step(recipe, data, ranks, watch),
    }


def rounds(players: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Everyone meets everyone once; in a round nobody plays twice (the circle method)."""
    circle: list[int | None] = [*players] + ([None] if len(players) % 2 else [])
    found = []
    for _ in range(len(circle) - 1):
        halves = zip(circle[: len(circle) // 2], reversed(circle[len(circle) // 2 :]), strict=True)
        found.append([(min(a, b), max(a, b)) for a, b in halves if a is not None and b is not None])
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return found if len(players) > 1 else []


def _pairs(ranks: Ranks, leaders: Sequence[int]) -> dict[tuple[int, int], float]:
    """Bytes per second of every pair of leading ranks, each way while both send."""
    if ranks.size == 1:
        return {}
    size = _BYTES[ranks.device.type]
    ours = torch.zeros(size, dtype=torch.uint8, device=ranks.device)
    theirs = torch.empty_like(ours)
    speeds: dict[tuple[int, int], float] = {}
    for games in rounds(leaders):
        for trial in range(_TRIALS):
            dist.barrier()
            game = next((game for game in games if ranks.rank in game), None)
            if game is not None:
                other = game[0] + game[1] - ranks.rank
                begin = time.perf_counter()
                exchange = [dist.P2POp(dist.isend, ours, other), dist.P2POp(dist.irecv, theirs, other)]
                for work in dist.batch_isend_irecv(exchange):
                    work.wait()
                synchronize(ranks.device)
                if trial:  # the first one connects
                    speeds[game] = max(speeds.get(game, 0.0), size / (time.perf_counter() - begin))
    measured = ranks.gather(speeds)
    return {game: min(own[game] for own in measured if game in own) for games in rounds(leaders) for game in games}


def _all_reduce(ranks: Ranks) -> float | None:
    """Bytes per second of one large all-reduce, in the convention of nccl-tests (bus bandwidth)."""
    if ranks.size == 1:
        return None
    values = torch.ones(_BYTES[ranks.device.type] // 4, device=ranks.device)
    best = 0.0
    for _ in range(_TRIALS):
        dist.barrier()
        took = seconds_of(lambda: dist.all_reduce(values), ranks.device)
        best = max(best, 2 * (ranks.size - 1) / ranks.size * values.numel() * 4 / took)
    return ranks.sum([best])[0] / ranks.size


def _step(recipe: Recipe, data: inputs.Inputs, ranks: Ranks, watch: Watch) -> dict[str, Any]:
    """Seconds and memory of one micro-batch and one update, full model and sequence."""
    watch.at(0, "model")
    engine = Engine(recipe, ranks)
    engine.set_initial_weights()
    plan = Plan(recipe)
    longest = max(range(len(recipe.phases)), key=lambda number: recipe.phases[number].sequence_length)
    step = plan.at(plan.first_step(longest))
    rows = data.batches.read(step, ranks.rank, ranks.size)[: recipe.engine.micro_batch_size]
    losses = []

    def make_step() -> None:
        watch.at(0, "step")
        losses.append(engine.accumulate(rows, step.z_loss, step.intra_document_masking)[0])
        engine.step(0.0) if math.isfinite(engine.grad_norm()) else engine.skip_step()

    first_seconds = seconds_of(make_step, ranks.device)  # it allocates and compiles
    seconds = seconds_of(make_step, ranks.device)
    everyone = ranks.gather((seconds, peak_memory(ranks.device), losses[-1]))
    return {
        "micro_batch_seconds": max(own[0] for own in everyone),
        "first_seconds": first_seconds,
        "memory_bytes": max(own[1] for own in everyone),
        "loss": sum(own[2] for own in everyone) / len(everyone),
        "sequence_length": step.sequence_length,
        "sequences": recipe.engine.micro_batch_size,
    }


if __name__ == "__main__":
    sys.exit(main())
