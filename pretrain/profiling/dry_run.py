"""A dry run on all ranks before a long allocation is spent: the links, then one step at full shape.

    deepspeed … --module pretrain.profiling.dry_run --recipe R --shards DIR --tokenizer DIR --out DIR --device D

Contract: opens the run's inputs on every rank, measures each pair of hosts and all ranks together, makes one
optimizer step of the largest batch's micro-batch on real tokens at rate 0, and leaves `dry_run.json` in
`--out`; keeps no other state. What a user can fix ends with code 2 and error.json as in the trainer; a link
that delivers nothing is ended by the watchdog.

Pairs are measured in rounds of a tournament, half of the hosts with the other half at once, so that n hosts
take n - 1 rounds; each pair sends both ways at the same time.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from configs.recipe import load_recipe
from configs.schema import Recipe
from pretrain import layout
from pretrain.data import inputs
from pretrain.data.plan import Plan
from pretrain.engine.distributed import Ranks, place
from pretrain.engine.engine import Engine, start_ranks
from pretrain.hooks.watchdog import Watch
from pretrain.model.decoder import initial_weights
from twofold.errors import UserError
from twofold.exit_codes import EXIT_CODE_USER_ERROR
from twofold.files import write_json

_BYTES = {"cuda": 256 << 20, "cpu": 8 << 20}
_TRIALS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the dry run; return the exit code."""
    options = _parse(arguments)
    rank, size = place()
    try:
        recipe = load_recipe(options.recipe)
        with Watch(recipe.watch, options.out, rank, size) as watch:
            ranks = start_ranks(options.device)
            found = _dry_run(recipe, options, ranks, watch)
            if ranks.is_first:
                write_json(options.out / layout.DRY_RUN_FILE, found)
            ranks.barrier()
            watch.done = True
        return 0
    except UserError as error:
        layout.write_error(options.out, error)
        return EXIT_CODE_USER_ERROR


def _dry_run(recipe: Recipe, options: argparse.Namespace, ranks: Ranks, watch: Watch) -> dict[str, Any]:
    data = inputs.open_inputs(recipe, options.shards, options.tokenizer, ranks)
    nodes = _nodes(ranks)
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


def _nodes(ranks: Ranks) -> list[tuple[str, int]]:
    """(host, local rank) of each rank; the nodes are counted by their local rank 0, as names may repeat."""
    own = os.environ.get("SLURMD_NODENAME") or socket.gethostname(), int(os.environ.get("LOCAL_RANK", "0"))
    everyone: list[Any] = [own]
    if ranks.size > 1:
        everyone = [None] * ranks.size
        dist.all_gather_object(everyone, own)
    return everyone


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
    """Bytes a second, each way while both send, of every pair of leading ranks."""
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
                for work in dist.batch_isend_irecv(
                    [dist.P2POp(dist.isend, ours, other), dist.P2POp(dist.irecv, theirs, other)]
                ):
                    work.wait()
                _finish(ranks)
                if trial:  # the first one connects
                    speeds[game] = max(speeds.get(game, 0.0), size / (time.perf_counter() - begin))
    said: list[Any] = [None] * ranks.size
    dist.all_gather_object(said, speeds)
    return {game: min(own[game] for own in said if game in own) for games in rounds(leaders) for game in games}


def _all_reduce(ranks: Ranks) -> float | None:
    """Bytes a second of one large all-reduce, in the convention of nccl-tests (bus bandwidth)."""
    if ranks.size == 1:
        return None
    values = torch.ones(_BYTES[ranks.device.type] // 4, device=ranks.device)
    best = 0.0
    for _ in range(_TRIALS):
        dist.barrier()
        begin = time.perf_counter()
        dist.all_reduce(values)
        _finish(ranks)
        best = max(best, 2 * (ranks.size - 1) / ranks.size * values.numel() * 4 / (time.perf_counter() - begin))
    return ranks.sum([best])[0] / ranks.size


def _step(recipe: Recipe, data: inputs.Inputs, ranks: Ranks, watch: Watch) -> dict[str, Any]:
    """Seconds and memory of one micro-batch and one update, full model and sequence."""
    watch.at(0, "model")
    engine = Engine(recipe, ranks)
    engine.set_weights(initial_weights(recipe.model, recipe.tokenizer.vocab_size, recipe.seed))
    plan = Plan(recipe)
    longest = max(range(len(recipe.phases)), key=lambda number: recipe.phases[number].sequence_length)
    step = plan.at(plan.first_step(longest))
    rows = data.batches.read(step, ranks.rank, ranks.size)[: recipe.engine.micro_batch_size]
    seconds = []
    for _ in range(2):  # the first one allocates and compiles
        watch.at(0, "step")
        begin = time.perf_counter()
        loss, _ = engine.accumulate(rows, step.z_loss, step.intra_document_masking)
        engine.apply(0.0, lambda _norm: True)
        _finish(ranks)
        seconds.append(time.perf_counter() - begin)
    memory = torch.cuda.max_memory_allocated() if ranks.device.type == "cuda" else _resident_peak()
    everyone: list[Any] = [(seconds[-1], memory, loss)]
    if ranks.size > 1:
        everyone = [None] * ranks.size
        dist.all_gather_object(everyone, (seconds[-1], memory, loss))
    return {
        "micro_batch_seconds": max(own[0] for own in everyone),
        "first_seconds": seconds[0],
        "memory_bytes": max(own[1] for own in everyone),
        "loss": sum(own[2] for own in everyone) / len(everyone),
        "sequence_length": step.sequence_length,
        "sequences": recipe.engine.micro_batch_size,
    }


def _resident_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _finish(ranks: Ranks) -> None:
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pretrain.profiling.dry_run", description="Links and one step, on all ranks.")
    for name in ("--recipe", "--shards", "--tokenizer", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--local_rank", type=int, help="appended by the launcher")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
