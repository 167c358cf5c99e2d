"""How time, bytes and memory of deduplication and decisions grow with the number of documents.

    python -m benchmarks.scale --documents 250k 1M 4M --json OUT

Contract: writes attributes of made-up documents (a pure function of their number: 60 % in families of near duplicates
with power-law sizes, one in six of these an exact copy; 15 % share an address), then runs `dedup` and `filter` over
them. Each task is a process of its own, `--workers` at a time. By size:

    seconds        wall time of both stages; other work on the machine counts
    cpu_seconds    processor time of all tasks and of the driver, by stage, and the driver's share
    *_peak_gb      largest resident memory of the driver, and of the largest task; mapped files count
    read_gb        through system calls, and rows that tasks received (which are mapped)
    written_gb     through system calls
    opens          files opened for reading or writing
    documents_per_s_core   documents a second of processor time

`growth_exponent` is the slope of log(cpu seconds) over log(documents), the sizes weighted alike. The peer is this
project at commit 59e4efc: the driver alone, as measured then on 2 cores with columns of the same make, less sketches.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import common
from configs.recipe import parse_recipe
from configs.schema import Recipe
from configs.units import parse_tokens
from data_pipeline import shuffle, tables
from data_pipeline.decisions import duplicates
from data_pipeline.features import minhash
from data_pipeline.stages import connected_components, dedup, score
from data_pipeline.stages import filter as filter_stage
from twofold.tasks import Task

_IN_A_FILE = 50_000
_PEER_DRIVER_S = {1_000_000: 11.5, 4_000_000: 77.0, 16_000_000: 508.0}
_PEER_DRIVER_GB = {1_000_000: 0.7, 4_000_000: 2.7, 16_000_000: 10.5}
_RECIPE = {
    "name": "scale",
    "seed": 7,
    "run_dir": "unused",
    "sources": {"s": {"path": "unused", "format": "jsonl", "license": "CC0-1.0"}},
    "data": {"rules": {"ko": {}, "en": {}, "code": {}}},
    "tokenizer": {"vocab_size": 1024},
    "model": {"d_model": 16, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "d_ff": 32},
    "phases": [
        {
            "name": "general",
            "tokens": 4096,
            "sequence_length": 32,
            "global_batch_size": 1024,
            "lr_scheduler": {"lr": 1e-3},
            "mixture": {"s": 1.0},
        }
    ],
    "engine": {"micro_batch_size": 1},
    "checkpoints": {"every": 4096},
    "validation": {"every": 4096},
}
Rows = np.ndarray[Any, np.dtype[np.uint64]]


def main() -> None:
    parser = common.parser("scale", __doc__.split("\n")[0])
    parser.add_argument("--documents", nargs="+", default=["250k", "1M"], help="sizes, for example 1M 4M")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to write; needs about 5 kB a document")
    options = parser.parse_args()
    _compile()
    sizes = sorted(parse_tokens(size) for size in options.documents)
    found: dict[int, dict[str, Any]] = {}
    for size in sizes:
        found[size] = measured(size, options)
        common.report("scale", _result(found), options.json)  # what is measured stays if a larger size is stopped


def _result(found: dict[int, dict[str, Any]]) -> dict[str, Any]:
    seconds = {size: sum(figures["cpu_seconds"].values()) for size, figures in found.items()}
    names = list(next(iter(found.values())))
    by_size = {name: {str(size): figures[name] for size, figures in found.items()} for name in names}
    largest = max((size for size in found if size in _PEER_DRIVER_GB), default=None)
    ratio = _PEER_DRIVER_GB[largest] / found[largest]["driver_peak_gb"] if largest else None
    return {
        "ours": {**by_size, "growth_exponent": growth_exponent(seconds) if len(found) > 1 else None},
        "peers": {"twofold-59e4efc": {"driver_cpu_seconds": _PEER_DRIVER_S, "driver_peak_gb": _PEER_DRIVER_GB}},
        "ratio": ratio,
    }


def _compile() -> None:
    """Load what is compiled, so that no task does."""
    sets = connected_components.Sets(2)
    sets.join(np.array([[0, 1]]))
    sets.of(0, 2)
    minhash.similarity(*np.ones((2, 1, minhash.BINS), np.uint8))
    duplicates.settle(duplicates.CANDIDATES.empty_table(), dedup.PAIRS.empty_table())


def growth_exponent(seconds: dict[int, float]) -> float:
    """The slope of the line through the logarithms."""
    sizes, taken = (np.log(np.array(list(values), float)) for values in (seconds.keys(), seconds.values()))
    return float(np.polyfit(sizes, taken, 1)[0])


def measured(documents: int, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one size."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        recipe = parse_recipe(_RECIPE)
        runner = Processes(options.workers)
        runner.run("make documents", _Make(recipe, folder, documents), math.ceil(documents / _IN_A_FILE), folder)
        runner = Processes(options.workers)
        started = time.monotonic()
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe(duplex=False)
        driver = context.Process(target=_drive, args=(recipe, folder, runner, there))
        driver.start()
        figures: dict[str, Any] = here.recv()
        driver.join()
        common.CONSOLE.print(f"{documents:,}: {time.monotonic() - started:.1f} s")
        return {"seconds": time.monotonic() - started, **figures, **_rates(documents, figures)}


def _rates(documents: int, figures: dict[str, Any]) -> dict[str, Any]:
    return {
        "documents_per_s_core": {
            **{name: documents / seconds for name, seconds in figures["cpu_seconds"].items()},
            "link": documents / figures["step_cpu_seconds"]["link duplicates"],
        }
    }


def _drive(recipe: Recipe, folder: Path, runner: Processes, there: Any) -> None:
    """In the driver's process: both stages, and what they cost."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    artifact = _artifact(folder)
    cpu, counted = {}, {}
    for name, build in (
        ("dedup", lambda: dedup.build(recipe, artifact, folder / "dedup", folder / "work-dedup", runner)),
        (
            "filter",
            lambda: filter_stage.build(
                recipe, artifact, artifact, _artifact(folder / "dedup"), None, folder / "filter", folder / "wf", runner
            ),
        ),
    ):
        ours, theirs = time.process_time(), sum(runner.cpu_seconds.values())
        counted[name] = build()
        cpu[name] = time.process_time() - ours + sum(runner.cpu_seconds.values()) - theirs
        shutil.rmtree(folder / "work-dedup", ignore_errors=True)
    there.send(
        {
            "cpu_seconds": cpu,
            "driver_cpu_seconds": time.process_time(),
            "step_cpu_seconds": dict(runner.cpu_seconds),
            "driver_peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
            "started_with_gb": before / 1e6,
            "task_peak_gb": max(runner.peak_gb.values()),
            "step_peak_gb": dict(runner.peak_gb),
            **dict(sorted(runner.moved.items())),
            "duplicates": counted["dedup"]["duplicates"],
            "compared_pairs": counted["dedup"]["compared_pairs"],
            "kept": counted["filter"]["kept"],
        }
    )


def _artifact(path: Path) -> Any:
    return SimpleNamespace(path=path)


class Processes:
    """A TaskRunner: each task in a forked process, whose use of the machine is added up by step."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.cpu_seconds: Counter[str] = Counter()
        self.peak_gb: dict[str, float] = {}
        self.moved: Counter[str] = Counter()

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        """See `TaskRunner.run`."""
        context = multiprocessing.get_context("fork")
        with context.Pool(self._workers, maxtasksperchild=1) as pool:
            for used in pool.imap_unordered(_Measured(task, n_tasks), range(n_tasks), chunksize=1):
                self.cpu_seconds[label] += used.pop("cpu_seconds")
                self.peak_gb[label] = max(self.peak_gb.get(label, 0.0), used.pop("peak_gb"))
                self.moved.update(used)


@dataclass(frozen=True)
class _Measured:
    task: Task
    n_tasks: int

    def __call__(self, rank: int) -> dict[str, float]:
        moved: Counter[str] = Counter()
        for owner, name in ((pa, "memory_map"), (pq, "ParquetFile"), (pq, "read_metadata"), (pa.ipc, "new_file")):
            setattr(owner, name, _counting(getattr(owner, name), moved))
        sys.addaudithook(lambda event, _: moved.update(opens=1) if event == "open" else None)
        plain = shuffle.batches

        def batches(paths: Sequence[Path], part: int, parts: int) -> Iterator[pa.RecordBatch]:
            for batch in plain(paths, part, parts):
                moved["read_gb"] += batch.nbytes / 1e9
                yield batch

        shuffle.batches = batches
        before = _through_calls()
        started = time.process_time()
        self.task(rank, self.n_tasks)
        used = {"cpu_seconds": time.process_time() - started}
        for name, value in _through_calls().items():
            moved[name] += value - before[name]
        return {**used, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, **moved}


def _counting(function: Callable[..., Any], moved: Counter[str]) -> Callable[..., Any]:
    def counted(*args: Any, **options: Any) -> Any:
        moved["opens"] += 1
        return function(*args, **options)

    return counted


def _through_calls() -> dict[str, float]:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="utf-8").splitlines())
    return {"read_gb": int(fields["rchar"]) / 1e9, "written_gb": int(fields["wchar"]) / 1e9}


# --- documents ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Make:
    """Task `rank` makes the documents and attributes of one file."""

    recipe: Recipe
    folder: Path
    documents: int

    def __call__(self, rank: int, world_size: int) -> None:
        numbers = np.arange(rank * _IN_A_FILE, min(self.documents, (rank + 1) * _IN_A_FILE), dtype=np.uint64)
        source = next(iter(self.recipe.sources))
        made = attributes(self.recipe, numbers, self.documents)
        tables.write_table(tables.task_path(self.folder / "attributes", source, rank), made)
        texts = ("source", "domain", "kind", "url", "license", "file")
        values = [source, self.recipe.sources[source].domain, "prose", None, "CC0-1.0", "a.jsonl"]
        columns = {
            name: pa.array([value] * len(numbers), pa.string()) for name, value in zip(texts, values, strict=True)
        }
        columns["index"] = pa.array(numbers.astype(np.int64))
        tables.write_table(tables.task_path(self.folder / "documents", source, rank), pa.table(columns))


def attributes(recipe: Recipe, numbers: Rows, documents: int) -> pa.Table:
    """Attributes of the documents of these numbers."""
    draw = np.random.default_rng([7, int(numbers[0])])
    count = len(numbers)
    clustered, copied = draw.random(count) < 0.6, draw.random(count) < 1 / 6
    families = (0.2 * documents * draw.random(count) ** 2).astype(np.uint64)
    copied &= clustered
    own = numbers + np.uint64(2**40)
    texts = np.where(copied, families, own)
    addresses = (0.03 * documents * draw.random(count) ** 2).astype(np.uint64) + np.uint64(2**41)
    urls = np.where(draw.random(count) < 0.15, np.where(clustered, families, addresses), own)
    settings = recipe.data.near_duplicates
    keys = {}
    for bucket, name in enumerate(score.bucket_columns(settings)):
        shared = clustered & (copied | (draw.random(count) < 0.45))
        keys[name] = mixed(np.where(shared, families, own), bucket)
    known = {
        "id": pa.array([f"s/{number:012d}" for number in mixed(numbers, 90).tolist()]),
        "bytes": pa.array(draw.integers(500, 20_000, count)),
        "language": pa.array(["ko"] * count),
        "exact_hash": _sixteen(texts, 91),
        "url_hash": _sixteen(urls, 92),
        "sketch": _sketches(np.where(clustered, families, own), copied, draw),
        **{name: pa.array(values) for name, values in keys.items()},
    }
    schema = score.schema(settings)
    return pa.table(
        [known[field.name] if field.name in known else _filled(field.type, count) for field in schema], schema=schema
    )


def _filled(kind: pa.DataType, count: int) -> pa.Array:
    """What no stage looks at."""
    if pa.types.is_string(kind):
        return pa.nulls(count, kind)
    return pa.array(np.ones(count) if pa.types.is_floating(kind) else np.zeros(count, np.int32), kind)


def mixed(values: Rows, kind: int) -> Rows:
    """The finalizer of splitmix64."""
    with np.errstate(over="ignore"):
        found = values * np.uint64(128) + np.uint64(kind)
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return found ^ (found >> np.uint64(31))


def _sixteen(values: Rows, kind: int) -> pa.Array:
    words = np.stack([mixed(values, kind), mixed(values, kind + 10)], axis=1)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(values), [None, pa.py_buffer(words)])


def _sketches(families: Rows, copied: np.ndarray[Any, Any], draw: np.random.Generator) -> pa.Array:
    """A family's members keep 0.96 or 0.86 of the bins that they share, so some pairs are below the threshold."""
    pool = np.random.default_rng(8).integers(0, 256, (4096, minhash.BINS), np.uint8)
    codes = mixed(families, 99)
    sketches = pool[codes % np.uint64(4096)] ^ (codes >> np.uint64(56)).astype(np.uint8)[:, None]
    changed = np.flatnonzero(~copied)
    places = draw.integers(0, minhash.BINS, (len(changed), 160))
    places[draw.random(len(changed)) < 0.5, 40:] = 0
    sketches[changed[:, None], places] = draw.integers(0, 256, places.shape, np.uint8)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(minhash.BINS), len(families), [None, pa.py_buffer(sketches)])


if __name__ == "__main__":
    main()
