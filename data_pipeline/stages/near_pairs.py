"""Documents with a common bucket key or address -> the pairs to compare, and those that are similar.

Contract: `to_compare` chooses pairs within one bucket: of exact copies only one is compared, the longest, or the first
of these. `Compare` compares sketches in three rounds of tasks, one task a run of documents (data_pipeline/shuffle.py):

    ask    the run's pairs, each once, and which sketches they need of which runs
    fetch  the sketches of the run's documents for each run that needs them
    answer the similarity of the run's pairs

A pair belongs to the run of its first document. Every sketch is read once from the attributes and travels once to each
run that needs it, so the work is linear in pairs. The results are pure functions of the documents in their order.
Memory of a task: 24 bytes a pair of the run, and 0.5 GB of sketches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_pipeline import shuffle, tables
from data_pipeline.features import minhash
from twofold.files import write_json
from twofold.tasks import TaskRunner

Numbers = npt.NDArray[np.int64]
Pairs = npt.NDArray[np.int64]
"""Shape (n, 2)."""

ALL_PAIRS = 64
"""Of so many documents with one key, every pair is compared."""
_LONGEST, _NEXT = 32, 8
_BLOCK = 16_384
"""Pairs compared at a time: 32 MB of sketches."""
_SKETCHED_PAIRS = 250_000
"""Pairs whose sketches are in memory."""

NEAR = -1
TO_COMPARE = pa.schema([("first", pa.int64()), ("second", pa.int64()), ("place", pa.int64())])
"""`place`: NEAR, or of a pair of one address its place among them, which names the part and the order there."""
SIMILAR = pa.schema([("first", pa.int64()), ("second", pa.int64()), ("similarity", pa.float64())])
_WANTED = pa.schema([("document", pa.int64())])
_SKETCHES = pa.schema([("document", pa.int64()), ("sketch", pa.binary(minhash.BINS))])


def to_compare(keys: npt.NDArray[np.uint64], copies: npt.NDArray[np.uint64], sizes: Numbers) -> Pairs:
    """Positions of documents with an equal key; `copies`: exact hashes, two words each; `sizes`: bytes."""
    order = shared(keys)
    order = order[np.lexsort((-sizes[order], keys[order]))]
    same = np.lexsort((copies[order, 1], copies[order, 0], keys[order]))
    first = first_of_run(np.column_stack([keys[order], copies[order]])[same])
    order = order[np.sort(same[first])]
    return order[_within_groups(keys[order])]


def shared(keys: npt.NDArray[np.uint64]) -> Numbers:
    """Positions of the keys that occur more than once, equal ones together."""
    order = np.argsort(keys, kind="stable")
    first = first_of_run(keys[order, None])
    repeated = ~first
    repeated[:-1] |= ~first[1:]
    return order[repeated]


def first_of_run(rows: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which rows differ from the one before."""
    first = np.ones(len(rows), bool)
    first[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return first


def _within_groups(keys: npt.NDArray[np.uint64]) -> Pairs:
    """Positions in runs of equal keys: all pairs of short runs, of long ones those with the first and the next."""
    starts = np.flatnonzero(first_of_run(keys[:, None]))
    lengths = np.diff(np.append(starts, len(keys)))
    start, length = np.repeat(starts, lengths), np.repeat(lengths, lengths)
    place, long = np.arange(len(keys)), np.flatnonzero(length > ALL_PAIRS)
    found = [np.zeros((0, 2), np.int64)]
    for step in range(1, ALL_PAIRS):
        place = place[(place - start[place] >= step) & ((length[place] <= ALL_PAIRS) | (step <= _NEXT))]
        found.append(np.stack([place - step, place], axis=1))
    for step in range(_LONGEST):
        chosen = long[long - start[long] > step + _NEXT]
        found.append(np.stack([start[chosen] + step, chosen], axis=1))
    return np.concatenate(found)


def unique(rows: Numbers) -> Numbers:
    """Each row once, in order; `rows` has the shape (n, k)."""
    rows = rows[np.lexsort(rows.T[::-1])]
    return rows[first_of_run(rows)]


def same_pages(pairs: Pairs) -> Pairs:
    """Of pairs of a longer and a shorter document that agree, those of a document with the one that stands for it.

    A document stands for itself unless it agrees with a longer one that does, so no document is joined through others.
    """
    members, places = np.unique(pairs, return_inverse=True)
    longer, shorter = places.reshape(-1, 2).T
    stands, follows = np.zeros((2, len(members)), bool)
    while not (stands | follows).all():
        waits = np.zeros(len(members), bool)
        waits[shorter[~follows[longer]]] = True
        stands |= ~waits & ~follows
        follows[shorter[stands[longer]]] = True
    chosen = np.flatnonzero(stands[longer])
    _, first = np.unique(shorter[chosen], return_index=True)
    return pairs[chosen[first]]


@dataclass(frozen=True)
class Compare:
    """The three rounds; reads files of `TO_COMPARE`, shuffled by run."""

    runs: shuffle.Runs
    attributes: Path
    pairs: tuple[Path, ...]
    threshold: float
    same_url_threshold: float
    parts: int
    """Of the addresses."""
    out: Path
    """Gets a file of `SIMILAR` for each task file: the near duplicates of its documents with later ones."""
    work: Path

    def run(self, runner: TaskRunner) -> None:
        """Compare all pairs."""
        for label, task in (
            ("list pairs", _Ask(self)),
            ("fetch sketches", _Fetch(self)),
            ("compare pairs", _Answer(self)),
        ):
            runner.run(label, task, len(self.runs), self.work / label.replace(" ", "-"))

    def path(self, kind: str, run: int) -> Path:
        return self.work / kind / f"{run:05d}"

    def paths(self, kind: str) -> list[Path]:
        """The files of all runs."""
        return [self.path(kind, run) for run in range(len(self.runs))]

    @property
    def agreeing(self) -> tuple[Path, ...]:
        """Files of `TO_COMPARE` with the pairs of one address that agree, by part."""
        return tuple(self.paths("agreeing"))


@dataclass(frozen=True)
class _Ask:
    compare: Compare

    def __call__(self, rank: int, world_size: int) -> None:
        compare, runs = self.compare, self.compare.runs
        found = shuffle.read(compare.pairs, TO_COMPARE, rank, len(runs))
        pairs = unique(np.column_stack([column.to_numpy() for column in found.columns]))
        tables.save_array(compare.path("pairs", rank), pairs)
        wanted = np.unique(pairs[:, :2])
        with shuffle.writing(compare.path("wanted", rank), _WANTED, len(runs)) as write:
            write(pa.table([wanted], schema=_WANTED), runs.holding(wanted))


@dataclass(frozen=True)
class _Fetch:
    compare: Compare

    def __call__(self, rank: int, world_size: int) -> None:
        compare, runs = self.compare, self.compare.runs
        wanted = [
            next(shuffle.batches([path], rank, len(runs)))["document"].to_numpy() for path in compare.paths("wanted")
        ]
        with shuffle.writing(compare.path("sketches", rank), _SKETCHES, len(runs)) as write:
            for file in runs.of_run(rank):
                here = [numbers[slice(*np.searchsorted(numbers, [file.start, file.stop]))] for numbers in wanted]
                documents = np.concatenate(here)
                if len(documents):
                    column = tables.read_table(file.below(compare.attributes), ["sketch"])["sketch"].combine_chunks()
                    sketches = column.take(pa.array(documents - file.start))
                    asking = np.repeat(np.arange(len(runs)), [len(numbers) for numbers in here])
                    write(pa.table([documents, sketches], schema=_SKETCHES), asking)


@dataclass(frozen=True)
class _Answer:
    compare: Compare

    def __call__(self, rank: int, world_size: int) -> None:
        compare, runs = self.compare, self.compare.runs
        pairs = np.load(compare.path("pairs", rank))
        similarity = self._similarity(pairs, rank)
        near = pairs[:, 2] == NEAR
        with shuffle.writing(compare.path("agreeing", rank), TO_COMPARE, compare.parts) as write:
            agreeing = pairs[~near & (similarity > 0)]
            write(pa.table(list(agreeing.T), schema=TO_COMPARE), agreeing[:, 2] % compare.parts)
        near &= similarity > 0
        first, second = pairs[near, :2].T
        for file in runs.of_run(rank):
            here = slice(*np.searchsorted(first, [file.start, file.stop]))
            columns = [first[here], second[here], similarity[near][here]]
            tables.write_table(file.below(compare.out), pa.table(columns, schema=SIMILAR))
        counts = {"compared_pairs": int(np.count_nonzero(pairs[:, 2] == NEAR)), "near_pairs": len(first)}
        write_json(compare.work / "counts" / f"pairs-{rank:05d}.json", counts)

    def _similarity(self, pairs: Numbers, rank: int) -> npt.NDArray[np.float64]:
        """Of each pair; 0 below its threshold even if the estimate is one standard error too high."""
        batches = list(shuffle.batches(self.compare.paths("sketches"), rank, len(self.compare.runs)))
        thresholds = np.where(pairs[:, 2] == NEAR, self.compare.threshold, self.compare.same_url_threshold)
        similarity = np.zeros(len(pairs))
        for begin in range(0, len(pairs), _SKETCHED_PAIRS):
            members, places = np.unique(pairs[begin : begin + _SKETCHED_PAIRS, :2], return_inverse=True)
            sketches, places = _sketches(batches, members), places.reshape(-1, 2)
            for start in range(0, len(places), _BLOCK):
                left, right = places[start : start + _BLOCK].T
                estimate, error = minhash.similarity(sketches[left], sketches[right])
                block = slice(begin + start, begin + start + len(left))
                similarity[block] = np.where(estimate - error >= thresholds[block], estimate, 0)
        return similarity


def _sketches(batches: Sequence[pa.RecordBatch], members: Numbers) -> minhash.Sketches:
    """Those of the sorted document numbers; the batches are in their order."""
    sketches = np.empty((len(members), minhash.BINS), np.uint8)
    for batch in batches:
        documents = batch["document"].to_numpy()
        if not len(documents):
            continue
        here = slice(*np.searchsorted(members, [documents[0], documents[-1] + 1]))
        column = batch["sketch"]
        rows = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, minhash.BINS)[column.offset :]
        sketches[here] = rows[np.searchsorted(documents, members[here])]
    return sketches
