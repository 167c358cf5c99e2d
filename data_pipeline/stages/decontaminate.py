"""Documents and benchmark items -> which documents share text with which items, and how much.

Contract: writes, row-aligned with the documents,

    contamination/<source>/<task:05d>.parquet   `CONTAMINATION`
    benchmarks.json                             benchmark -> the number of its items, of items too short to look
                                                for, and of items and documents that share text (also by source)

`sampled` is EXAONE 3.5's method (technical report, section 2.1.2). It uses letters and digits only, and looks up
N = `samples` random substrings of S = `characters` of each document in all substrings of all items. The samples
are a pure function of (seed, document id, sample number); a document shorter than S has none. A document whose
share p is quoted is found with probability 1 - (1 - p)^N, so an item quoted in a long text is mostly missed.
`full` looks up every substring: it finds every document with S consecutive characters of an item, and whole items
shorter than S. Fifty Hangul syllables say about as much as a hundred Latin letters, so set `characters` lower for
Korean benchmarks of short items. `filter` decides whether such documents are dropped.

The result does not depend on how documents are divided into tasks. Cost: 60 MB/s per core or more, with reading;
memory per worker: the items (data_pipeline/features/overlap.py) and one row group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from configs.data_schema import Decontamination
from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.features import overlap
from data_pipeline.stages import benchmark_items
from data_pipeline.stages import score as score_stage
from twofold.artifacts import Artifact
from twofold.files import write_json
from twofold.stage import Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 1
BENCHMARKS_FILE = "benchmarks.json"
CONTAMINATION = pa.schema(
    [
        ("benchmarks", pa.list_(pa.string())),
        ("contamination_matches", pa.int64()),
        ("contamination_share", pa.float64()),
        ("benchmark_item", pa.string()),
    ]
)
"""Benchmarks that share text, by name; the number of different shared substrings (`sampled`: samples); the share of
letters and digits in them (`sampled`: estimated by the samples); `NAME#NUMBER` of the first quoted item, or null."""


def config(recipe: Recipe) -> dict[str, Any]:
    """How overlaps are found; `fingerprints` covers the benchmarks, and the policy belongs to filter."""
    settings = _settings(recipe)
    random = {"samples": settings.samples, "seed": recipe.seed} if settings.method == "sampled" else {}
    return {"method": settings.method, "characters": settings.characters, **random}


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Benchmark -> hash of its files' content."""
    return benchmark_items.fingerprints(_settings(recipe))


def build(
    recipe: Recipe, extract: Artifact, score: Artifact, out: Path, work: Path, runner: TaskRunner
) -> Mapping[str, Any]:
    """Look up every document; returns the totals of each benchmark."""
    settings = _settings(recipe)
    documents = score_stage.documents(extract, score).path / "documents"
    items, sizes = benchmark_items.read(settings)
    files = tuple(tables.task_files(documents))
    task = _FindOverlaps(settings, recipe.seed, files, out / "contamination", work)
    benchmark_items.save(items, task.items_file)
    runner.run("find benchmark overlaps", task, len(files), work / "decontaminate")
    found = _gathered(task, files, sizes)
    write_json(out / BENCHMARKS_FILE, found)
    contaminated = sum(task.counts(source, number)["contaminated"] for source, number, _ in files)
    totals = {
        name: {key: value for key, value in counted.items() if key != "sources"} for name, counted in found.items()
    }
    return {"contaminated": contaminated, "benchmarks": totals}


STAGE = Stage(
    name="decontaminate",
    makes="benchmark overlaps",
    code_version=CODE_VERSION,
    config=config,
    build=build,
    fingerprints=fingerprints,
    in_recipe=lambda recipe: recipe.data.decontamination is not None,
)


def draws(seed: int, identity: str, samples: int) -> list[int]:
    """The positions of a document's samples, as shares of 2^32 of its substrings."""
    return [xxhash.xxh3_64_intdigest(f"{seed}:{identity}:{number}".encode()) >> 32 for number in range(samples)]


@dataclass(frozen=True)
class _FindOverlaps:
    """Task `rank` looks up the documents of the `rank`-th file."""

    settings: Decontamination
    seed: int
    files: tuple[tuple[str, int, Path], ...]
    out: Path
    work: Path

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, path = self.files[rank]
        items = benchmark_items.load(self.items_file)
        index = overlap.index_of(items.codes, items.bounds, self.settings.characters, self.settings.method == "full")
        names = sorted(self.settings.benchmarks)
        tally = _Tally(items, names)
        tables.write_rows(tables.task_path(self.out, source, number), CONTAMINATION, self._rows(path, index, tally))
        write_json(tables.task_path(self.work / "counts", source, number, "json"), tally.as_json())

    @property
    def items_file(self) -> Path:
        return self.work / "items.npz"

    def counts(self, source: str, number: int) -> dict[str, Any]:
        """The counts of a finished task."""
        return tables.read_json(tables.task_path(self.work / "counts", source, number, "json"))

    def _rows(self, path: Path, index: overlap.Index, tally: _Tally) -> Iterator[tables.Row]:
        for table in tables.row_groups(path, ["id", "text"]):
            yield from tally.rows(self._overlaps(table, index))

    def _overlaps(self, table: pa.Table, index: overlap.Index) -> overlap.Overlaps:
        texts = table["text"].to_pylist()
        if self.settings.method == "full":
            return overlap.every(texts, index)
        places = [draws(self.seed, identity, self.settings.samples) for identity in table["id"].to_pylist()]
        shares: npt.NDArray[np.uint32] = np.array(places, np.uint32).reshape(len(texts), self.settings.samples)
        return overlap.sampled(texts, shares, index)


class _Tally:
    """Turns the overlaps of one task into rows, and counts them by benchmark."""

    def __init__(self, items: benchmark_items.Items, names: Sequence[str]) -> None:
        self._items, self._names = items, names
        self._contaminated = 0
        self._documents = dict.fromkeys(names, 0)
        self._found = np.zeros(len(items.numbers), dtype=bool)

    def rows(self, found: overlap.Overlaps) -> Iterator[tables.Row]:
        """One row per document."""
        self._found[found.pairs[:, 1]] = True
        quoted: defaultdict[int, set[int]] = defaultdict(set)
        for document, benchmark in zip(
            found.pairs[:, 0].tolist(), self._items.benchmarks[found.pairs[:, 1]].tolist(), strict=True
        ):
            quoted[document].add(benchmark)
        self._contaminated += len(quoted)
        for document, matches in enumerate(found.matches.tolist()):
            benchmarks = [self._names[position] for position in sorted(quoted.get(document, ()))]
            for name in benchmarks:
                self._documents[name] += 1
            yield {
                "benchmarks": benchmarks,
                "contamination_matches": matches,
                "contamination_share": float(found.share[document]),
                "benchmark_item": self._label(int(found.first_item[document])),
            }

    def as_json(self) -> dict[str, Any]:
        """Documents that share text with any benchmark, and each benchmark's documents and item numbers."""
        return {
            "contaminated": self._contaminated,
            "benchmarks": {
                name: {
                    "documents": self._documents[name],
                    "items": self._items.numbers[self._found & (self._items.benchmarks == position)].tolist(),
                }
                for position, name in enumerate(self._names)
            },
        }

    def _label(self, item: int) -> str | None:
        return None if item < 0 else f"{self._names[self._items.benchmarks[item]]}#{self._items.numbers[item]}"


def _settings(recipe: Recipe) -> Decontamination:
    settings = recipe.data.decontamination
    assert settings is not None, "only recipes with data.decontamination have this stage"
    return settings


def _gathered(
    task: _FindOverlaps, files: Sequence[tuple[str, int, Path]], sizes: Mapping[str, benchmark_items.Size]
) -> dict[str, Any]:
    """The content of `benchmarks.json`."""
    items: dict[str, dict[str, set[int]]] = {name: defaultdict(set) for name in sizes}
    documents: dict[str, dict[str, int]] = {name: defaultdict(int) for name in sizes}
    for source, number, _ in files:
        for name, counted in task.counts(source, number)["benchmarks"].items():
            if counted["documents"]:
                items[name][source].update(counted["items"])
                documents[name][source] += counted["documents"]
    return {
        name: {
            "items": size.items,
            "too_short": size.too_short,
            "items_found": len(set().union(*items[name].values())),
            "documents": sum(documents[name].values()),
            "sources": {
                source: {"items_found": len(numbers), "documents": documents[name][source]}
                for source, numbers in sorted(items[name].items())
            },
        }
        for name, size in sizes.items()
    }
