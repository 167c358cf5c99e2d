"""What it costs to begin, and to be anywhere, in an 8 T-token run: data order beside its peers.

    python -m benchmarks.data_order [--json OUT]

Ours: the order of the 7.8 B recipe's two phases (8 T tokens, 1.95 billion sequences of 4,096), over sources
of simulated size; the tokens come from one real shard of datatrove's format, mapped again and again, since
8 T tokens do not fit here. Measured in fresh processes: seconds from nothing to the first batch, seconds to
the first batch after resuming at a random step, sequences a second at random steps, memory.

Peers, each at the largest of the sizes below that it holds in memory and time here, and what it would need
at 1.95 billion sequences by its own growth:
    datatrove    DatatroveFolderDataset: draws a file for every sequence at start
    permutation  numpy's permutation of all sequences, what Megatron's index holds (and Hugging Face
                 `datasets`' shuffle, which needs the Arrow table, too)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import parser, report
from configs.recipe import load_recipe
from pretrain.data.batches import TokenStream
from pretrain.data.order import Order
from pretrain.data.plan import Plan, Step
from tokenizer.shards import ShardWriter

RECIPE = Path(__file__).parent.parent / "configs" / "exaone3_7p8b.yaml"
PEER_SIZES = (1_000_000, 10_000_000, 100_000_000)
"""Sequences; a peer that takes longer than SECONDS at one size is not tried at the next."""
SECONDS = 60.0
RANKS = 512
STEPS = 200
SHARD_TOKENS = 20_000_000


class RepeatedStream(TokenStream):
    """A source of any size whose tokens are those of one shard, over and over."""

    def __init__(self, shard: Path) -> None:
        self._tokens = np.memmap(shard, "<u4", mode="r")

    def read(self, first: int, count: int) -> np.ndarray:
        start = first % (len(self._tokens) - count)
        return self._tokens[start : start + count].astype(np.int64)


def main() -> None:
    options = parser("data_order", __doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as name:
        shard = _shard(Path(name))
        runs = [_apart("ours", shard) for _ in range(options.repetitions)]
        ours = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
        peers = {kind: _growing(kind, shard) for kind in ("datatrove", "permutation")}
    ratio = {
        f"{kind}.{figure}": found["at_8T"][figure] / ours[figure]
        for kind, found in peers.items()
        for figure in ("start_seconds", "memory_mb")
    }
    sequences = sum(phase.samples for phase in load_recipe(RECIPE).phases)
    report("data_order", {"sequences": sequences, "ours": ours, "peers": peers, "ratio": ratio}, options.json)


def ours(shard: Path) -> dict[str, float]:
    """Start, resume and random access of one rank of RANKS."""
    before, began = _memory_mb(), time.perf_counter()
    recipe = load_recipe(RECIPE)
    supply = {name: 10**12 for phase in recipe.phases for name in phase.mixture}
    plan, order = Plan(recipe), Order(recipe.seed, recipe.phases, supply)
    stream = RepeatedStream(shard)

    def rows(step: Step, rank: int) -> np.ndarray:
        count = step.sequences // RANKS
        samples = order.samples(step.phase, step.first_sample + rank * count, count)
        length = step.sequence_length
        return np.stack([stream.read(sequence * length, length + 1) for sequence in samples.sequence.tolist()])

    rows(plan.at(0), 0)
    start = time.perf_counter() - began
    draw = np.random.default_rng(0)
    steps = draw.integers(0, plan.total_steps, STEPS).tolist()
    began = time.perf_counter()
    rows(plan.at(steps[0]), 3)
    resume = time.perf_counter() - began
    began = time.perf_counter()
    read = sum(len(rows(plan.at(step), int(draw.integers(RANKS)))) for step in steps)
    seconds = time.perf_counter() - began
    return {
        "start_seconds": start,
        "resume_seconds": resume,
        "sequences_per_s": read / seconds,
        "memory_mb": _memory_mb() - before,
    }


def datatrove(shard: Path, sequences: int) -> dict[str, float]:
    """Its dataset of as many sequences: the folder holds one shard under as many names as are needed."""
    from datatrove.utils.dataset import DatatroveFolderDataset

    length = 4096
    in_shard = SHARD_TOKENS // (length + 1)
    with tempfile.TemporaryDirectory(dir=shard.parent) as name:
        for number in range(max(1, sequences // in_shard)):
            (Path(name) / f"{number:06d}.ds").symlink_to(shard)
        before, began = _memory_mb(), time.perf_counter()
        dataset = DatatroveFolderDataset(str(name), length, token_size=4, shuffle=True, seed=1)
        dataset[0]
        start = time.perf_counter() - began
        return {"start_seconds": start, "memory_mb": _memory_mb() - before, "sequences": len(dataset)}


def permutation(_: Path, sequences: int) -> dict[str, float]:
    """All sequences' numbers, shuffled."""
    before, began = _memory_mb(), time.perf_counter()
    order = np.random.default_rng(1).permutation(sequences)
    assert order[0] >= 0
    return {
        "start_seconds": time.perf_counter() - began, "memory_mb": _memory_mb() - before, "sequences": sequences,
    }  # fmt: skip


def _growing(kind: str, shard: Path) -> dict[str, Any]:
    """A peer at growing sizes, and at 8 T tokens in proportion to the largest."""
    measured = {}
    for size in PEER_SIZES:
        found = _apart(kind, shard, size)
        measured[str(size)] = found
        if found["start_seconds"] > SECONDS / 10:
            break
    whole = sum(phase.samples for phase in load_recipe(RECIPE).phases)
    factor = whole / found["sequences"]
    return {
        "measured": measured,
        "at_8T": {key: found[key] * factor for key in ("start_seconds", "memory_mb")},
        "at_8T_is": "in proportion to the largest size measured",
    }


_CONTESTANTS: dict[str, Callable[..., dict[str, float]]] = {
    "ours": ours, "datatrove": datatrove, "permutation": permutation,
}  # fmt: skip


def _apart(kind: str, shard: Path, *size: int) -> dict[str, float]:
    """A contestant in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data_order", "--contestant", kind, str(shard), *map(str, size)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def _shard(folder: Path) -> Path:
    with ShardWriter(folder, "train/one/00000.ds") as writer:
        tokens = np.random.default_rng(0).integers(5, 100_000, SHARD_TOKENS, dtype=np.uint32)
        writer.add(
            tokens,
            np.array([SHARD_TOKENS]),
            {"id": ["0"], "source": ["one"], "language": ["en"], "bytes": [SHARD_TOKENS]},
        )
    return folder / "train/one/00000.ds"


def _memory_mb() -> float:
    """Memory of the process itself; pages of mapped shards are the system's to drop."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contestant"]:
        _, _, name, path, *number = sys.argv
        print(json.dumps(_CONTESTANTS[name](Path(path), *map(int, number))))
    else:
        main()
