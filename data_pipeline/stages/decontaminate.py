"""Documents and benchmark items -> which documents quote which items, and how much of them.

Contract: writes, row-aligned with the documents,

    contamination/<source>/<task:05d>.parquet   `CONTAMINATION`
    benchmarks.json                             benchmark -> its items, those too short to be looked for, and
                                                the items and documents that share text, in all and by source

`sampled` is EXAONE 3.5's method (technical report, section 2.1.2): letters and digits only, S = `characters`,
N = `samples` random substrings of each document, looked up in all substrings of all items. Which ones is a
pure function of (seed, document id, number of the sample), independent of each other; a document shorter
than S has none. A document of which a share p is quoted is found with probability 1 - (1 - p)^N: one that
quotes an item within a long text mostly is not. `full` looks up every substring, and so finds every
document that has S characters of an item in a row, and whole items shorter than S. Fifty Hangul syllables
say about as much as a hundred Latin letters: for Korean benchmarks of short items set `characters` lower.
Whether such documents are dropped is for filter to say.

Nothing depends on how documents are cut into tasks. Cost: 60 MB/s a core or more, reading included; memory
a worker: the items (measuring/overlap.py) and one row group.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from configs.data_schema import Decontamination
from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.features import overlap
from data_pipeline.stages import benchmark_items
from twofold.artifacts import Artifact
from twofold.files import write_json
from twofold.stage import From, Stage
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
"""Benchmarks that share text, by name; different substrings that are shared (`sampled`: samples); share of
the letters and digits that lie in them (`sampled`: of the samples, its estimate); `NAME#NUMBER` of the item
that is quoted first, or null."""


def config(recipe: Recipe) -> dict[str, Any]:
    """How overlaps are found; the benchmarks themselves are `fingerprints`, the policy is filter's."""
    settings = _settings(recipe)
    random = {"samples": settings.samples, "seed": recipe.seed} if settings.method == "sampled" else {}
    return {"method": settings.method, "characters": settings.characters, **random}


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Benchmark -> hash of its files' content."""
    return benchmark_items.fingerprints(_settings(recipe))


def build(
    recipe: Recipe, documents: Annotated[Artifact, From("lines", "extract")], out: Path, work: Path, runner: TaskRunner
) -> Mapping[str, Any]:
    """Look every document up; returns what `benchmarks.json` says of each benchmark in all."""
    settings = _settings(recipe)
    items, sizes = benchmark_items.read(settings)
    task = _FindOverlaps(settings, recipe.seed, documents.path / "documents", out / "contamination", work)
    benchmark_items.save(items, task.items_file)
    files = tables.task_files(task.documents)
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
    """Where the samples of a document are taken, as shares of 2^32 of its substrings."""
    return [xxhash.xxh3_64_intdigest(f"{seed}:{identity}:{number}".encode()) >> 32 for number in range(samples)]


@dataclass(frozen=True)
class _FindOverlaps:
    """Task `rank` looks up the documents of the `rank`-th file."""

    settings: Decontamination
    seed: int
    documents: Path
    out: Path
    work: Path

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, path = tables.task_files(self.documents)[rank]
        items = benchmark_items.load(self.items_file)
        index = overlap.index_of(items.codes, items.bounds, self.settings.characters, self.settings.method == "full")
        names = sorted(self.settings.benchmarks)
        tally = _Tally(items, names)
        tables.write_rows(tables.task_path(self.out, source, number), CONTAMINATION, self._rows(path, index, tally))
        write_json(self._counts_path(source, number), tally.as_json())

    @property
    def items_file(self) -> Path:
        return self.work / "items.npz"

    def counts(self, source: str, number: int) -> dict[str, Any]:
        """What a task that is done has counted."""
        counted: dict[str, Any] = json.loads(self._counts_path(source, number).read_text(encoding="utf-8"))
        return counted

    def _counts_path(self, source: str, number: int) -> Path:
        return self.work / "counts" / source / f"{number:05d}.json"

    def _rows(self, path: Path, index: overlap.Index, tally: _Tally) -> Iterator[tables.Row]:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["id", "text"])
                yield from tally.rows(self._overlaps(table, index))

    def _overlaps(self, table: pa.Table, index: overlap.Index) -> overlap.Overlaps:
        texts = table["text"].to_pylist()
        if self.settings.method == "full":
            return overlap.every(texts, index)
        places = [draws(self.seed, identity, self.settings.samples) for identity in table["id"].to_pylist()]
        shares: npt.NDArray[np.uint32] = np.array(places, np.uint32).reshape(len(texts), self.settings.samples)
        return overlap.sampled(texts, shares, index)


class _Tally:
    """One task's overlaps as rows, counted by benchmark on the way."""

    def __init__(self, items: benchmark_items.Items, names: Sequence[str]) -> None:
        self._items, self._names = items, names
        self._contaminated = 0
        self._documents = dict.fromkeys(names, 0)
        self._found = np.zeros(len(items.numbers), dtype=bool)

    def rows(self, found: overlap.Overlaps) -> Iterator[tables.Row]:
        """A row for each document."""
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
        """Documents that share text with any benchmark, and of each the documents and its items' numbers."""
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
    assert settings is not None, "the stage is in the chain only where the recipe has data.decontamination"
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
