"""Rows that tasks hand to other tasks through files: each writer sorts its rows by the part that reads them.

Contract: `Runs` divides the documents of all task files into consecutive runs and numbers them from 0 in the order of
their files, so a number says in which file and row a document is. `writing` writes one file, in which each call adds
a batch for every part; `read` returns a part's rows in the order in which they were written. A file is opened once by
each part, so W writers and P parts cost W x P opened files, and every row is written once and read once. Runs grow
with the number of documents, which keeps W near 64 below 64 million documents and a run's memory bounded above.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_pipeline import tables
from twofold.files import atomic_path

Numbers = npt.NDArray[np.int64]

RUNS = 64
FEWEST_IN_A_RUN, MOST_IN_A_RUN = 20_000, 1_000_000
"""Documents; a run has at least one file, however large."""


class TaskFile(NamedTuple):
    """A task's documents: where they are, the number of the first, and the number after the last."""

    source: str
    number: int
    start: int
    stop: int

    def below(self, folder: Path) -> Path:
        return tables.task_path(folder, self.source, self.number)


@dataclass(frozen=True)
class Runs:
    """All documents in consecutive runs of whole files."""

    files: tuple[TaskFile, ...]
    firsts: tuple[int, ...]
    """The first file of each run."""

    @staticmethod
    def of(folder: Path) -> Runs:
        """The runs of the task files below `folder`."""
        found = tables.task_files(folder)
        starts = [0, *itertools.accumulate(tables.count_rows(path) for _, _, path in found)]
        files = tuple(
            TaskFile(source, number, start, stop)
            for (source, number, _), (start, stop) in zip(found, itertools.pairwise(starts), strict=True)
        )
        wanted = min(max(starts[-1] // RUNS, FEWEST_IN_A_RUN), MOST_IN_A_RUN)
        firsts: list[int] = []
        begun = 0
        for place, file in enumerate(files):
            if not firsts or file.stop - begun > wanted:
                firsts.append(place)
                begun = file.start
        return Runs(files, tuple(firsts))

    def __len__(self) -> int:
        return len(self.firsts)

    @property
    def documents(self) -> int:
        return self.files[-1].stop if self.files else 0

    def of_run(self, run: int) -> tuple[TaskFile, ...]:
        """The files of a run."""
        return self.files[self.firsts[run] : self.firsts[run + 1] if run + 1 < len(self.firsts) else None]

    def holding(self, documents: Numbers) -> Numbers:
        """The run of each document number."""
        starts = np.array([self.files[first].start for first in self.firsts])
        return np.searchsorted(starts, documents, side="right") - 1


Write = Callable[[pa.Table, Numbers], None]


@contextmanager
def writing(path: Path, schema: pa.Schema, parts: int) -> Iterator[Write]:
    """Yield `write(table, part)`, where `part` is that of each row; the file appears at the end."""
    with atomic_path(path) as partial, pa.ipc.new_file(str(partial), schema) as stream:

        def write(table: pa.Table, part: Numbers) -> None:
            order = np.argsort(part.astype(np.uint16 if parts < 2**16 else np.int64), kind="stable")
            borders = np.searchsorted(part[order], np.arange(parts + 1))
            ordered = table.take(order).combine_chunks()
            for start, stop in itertools.pairwise(borders.tolist()):
                batches = ordered.slice(start, stop - start).to_batches()
                stream.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema=schema))

        yield write


def batches(paths: Sequence[Path], part: int, parts: int) -> Iterator[pa.RecordBatch]:
    """A part's batches, mapped rather than read; most are empty where there are many parts."""
    for path in paths:
        stream = pa.ipc.open_file(pa.memory_map(str(path)))
        for batch in range(part, stream.num_record_batches, parts):
            yield stream.get_batch(batch)


def read(paths: Sequence[Path], schema: pa.Schema, part: int, parts: int) -> pa.Table:
    """A part's rows in the order in which they were written."""
    return pa.Table.from_batches(batches(paths, part, parts), schema)
