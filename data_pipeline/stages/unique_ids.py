"""Numbers the repeats of each id over all tasks, so that ids are unique.

Contract: `make` gives the second document with an id `~2`, the third `~3`, in reading order, and rewrites only files
with such a document. Ids are compared by 64-bit hash; a collision of two different ids only costs a needless `~2`. The
result does not depend on runs and parts (data_pipeline/shuffle.py). Cost: 16 bytes of disk a document; a task that
numbers has about 16 million documents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline import shuffle, tables
from twofold.tasks import TaskRunner

PART_DOCUMENTS = 16_000_000
_HASHED = pa.schema([("hash", pa.uint64()), ("document", pa.int64())])
_REPEATS = pa.schema([("document", pa.int64()), ("number", pa.int64())])
_UNIQUE = {"ids": "unique"}
"""Parquet metadata of a file whose repeated ids were renamed."""


def make(documents: Path, hashes: Path, work: Path, runner: TaskRunner) -> None:
    """Rename repeated ids in the task files of `documents`; `hashes` has an array of its ids' hashes for each file."""
    runs = shuffle.Runs.of(documents)
    task = _Ids(documents, hashes, runs, max(1, math.ceil(runs.documents / PART_DOCUMENTS)), work)
    runner.run("share ids", _Share(task), len(runs), work / "share-ids")
    runner.run("number ids", _Number(task), task.parts, work / "number-ids")
    if any(pa.ipc.open_file(pa.memory_map(str(path))).num_record_batches for path in task.paths("repeats", task.parts)):
        runner.run("rename ids", _Rename(task), len(runs), work / "rename-ids")


@dataclass(frozen=True)
class _Ids:
    documents: Path
    hashes: Path
    runs: shuffle.Runs
    parts: int
    work: Path

    def paths(self, kind: str, count: int) -> list[Path]:
        return [self.work / kind / f"{number:05d}" for number in range(count)]


@dataclass(frozen=True)
class _Share:
    """Task `rank` sends the hashes of a run to their parts."""

    ids: _Ids

    def __call__(self, rank: int, world_size: int) -> None:
        ids, files = self.ids, self.ids.runs.of_run(rank)
        paths = [tables.task_path(ids.hashes, file.source, file.number, "npy") for file in files]
        hashes = np.concatenate([np.load(path) for path in paths])
        with shuffle.writing(ids.paths("shared-ids", rank + 1)[rank], _HASHED, ids.parts) as write:
            documents = np.arange(files[0].start, files[-1].stop)
            write(pa.table([hashes, documents], schema=_HASHED), (hashes % np.uint64(ids.parts)).astype(np.int64))


@dataclass(frozen=True)
class _Number:
    """Task `rank` numbers the documents of each hash in a part; it sends those from the second on to their runs."""

    ids: _Ids

    def __call__(self, rank: int, world_size: int) -> None:
        ids = self.ids
        found = shuffle.read(ids.paths("shared-ids", len(ids.runs)), _HASHED, rank, ids.parts)
        hashes, documents = (column.to_numpy() for column in found.columns)
        order = np.argsort(hashes, kind="stable")
        fresh = np.ones(len(order), bool)
        fresh[1:] = hashes[order[1:]] != hashes[order[:-1]]
        place = np.arange(len(order))
        number = place - np.maximum.accumulate(np.where(fresh, place, 0)) + 1
        repeats = pa.table([documents[order[~fresh]], number[~fresh]], schema=_REPEATS)
        with shuffle.writing(ids.paths("repeats", rank + 1)[rank], _REPEATS, len(ids.runs)) as write:
            if repeats.num_rows:
                write(repeats, ids.runs.holding(repeats["document"].to_numpy()))


@dataclass(frozen=True)
class _Rename:
    """Task `rank` renames the repeats of a run."""

    ids: _Ids

    def __call__(self, rank: int, world_size: int) -> None:
        ids = self.ids
        repeats = shuffle.read(ids.paths("repeats", ids.parts), _REPEATS, rank, len(ids.runs)).sort_by("document")
        documents, numbers = (column.to_numpy() for column in repeats.columns)
        for file in ids.runs.of_run(rank):
            here = slice(*np.searchsorted(documents, [file.start, file.stop]))
            rows = (documents[here] - file.start).tolist()
            if rows:
                _rename(file.below(ids.documents), dict(zip(rows, numbers[here].tolist(), strict=True)))


def _rename(path: Path, numbers: Mapping[int, int]) -> None:
    """Append `~<number>` to the ids of the rows in `numbers`; calling it again changes nothing."""
    schema = pq.read_schema(path)
    if (schema.metadata or {}).get(b"ids") == b"unique":
        return
    rows = (
        {**row, "id": f"{row['id']}~{numbers[place]}"} if place in numbers else row
        for place, row in enumerate(tables.read_rows(path))
    )
    tables.write_rows(path, schema, rows, _UNIQUE)
