"""Documents with a common bucket key -> the pairs to compare, and those that are similar.

Contract: `to_compare` chooses pairs within one bucket, `unique` joins the buckets, and `similar` compares sketches in
tasks. Of exact copies only one is compared: the longest, or the first of these. Both are pure functions of the
documents in their order, so the tasks do not matter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_pipeline import tables
from data_pipeline.features import minhash
from twofold.tasks import TaskRunner

Numbers = npt.NDArray[np.int64]
Pairs = npt.NDArray[np.int64]
"""Shape (n, 2)."""
Files = Sequence[tuple[str, int, Path]]

ALL_PAIRS = 64
"""Of so many documents with one key, every pair is compared."""
_LONGEST, _NEXT = 32, 8
TASK_PAIRS = 500_000
_BLOCK = 16_384
"""Pairs compared at a time: 32 MB of sketches."""


class Near(NamedTuple):
    """Near duplicates, in the order of their numbers."""

    pairs: Pairs
    similarity: npt.NDArray[np.float64]


def to_compare(keys: npt.NDArray[np.uint64], copies: npt.NDArray[np.uint64], sizes: Numbers) -> Pairs:
    """Positions of documents with an equal key; `copies`: exact hashes, two words each; `sizes`: bytes."""
    order = np.argsort(keys, kind="stable")
    first = _first_of_run(keys[order, None])
    shared = ~first
    shared[:-1] |= ~first[1:]
    order = order[shared]
    order = order[np.lexsort((order, -sizes[order], copies[order, 1], copies[order, 0], keys[order]))]
    order = order[_first_of_run(np.column_stack([keys[order], copies[order]]))]
    order = order[np.lexsort((order, -sizes[order], keys[order]))]
    return order[_within_groups(keys[order])]


def _first_of_run(rows: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which rows differ from the one before."""
    first = np.ones(len(rows), bool)
    first[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return first


def _within_groups(keys: npt.NDArray[np.uint64]) -> Pairs:
    """Positions in runs of equal keys: all pairs of short runs, of long ones those with the first and the next."""
    starts = np.flatnonzero(_first_of_run(keys[:, None]))
    lengths = np.diff(np.append(starts, len(keys)))
    start, length = np.repeat(starts, lengths), np.repeat(lengths, lengths)
    place = np.arange(len(keys))
    found = [np.zeros((0, 2), np.int64)]
    for step in range(1, ALL_PAIRS):
        chosen = place[(place - start >= step) & ((length <= ALL_PAIRS) | (step <= _NEXT))]
        found.append(np.stack([chosen - step, chosen], axis=1))
    for step in range(_LONGEST):
        chosen = place[(place - start > step + _NEXT) & (length > ALL_PAIRS)]
        found.append(np.stack([start[chosen] + step, chosen], axis=1))
    return np.concatenate(found)


def unique(found: Sequence[Pairs]) -> Pairs:
    """Each pair once, its smaller number first, in order."""
    pairs = np.sort(np.concatenate([np.zeros((0, 2), np.int64), *found]), axis=1)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return pairs[_first_of_run(pairs)]


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


def similar(
    pairs: Pairs, files: Files, lengths: Sequence[int], threshold: float, work: Path, runner: TaskRunner
) -> Near:
    """The pairs that are similar enough even if the estimate is one standard error too high."""
    pairs_file = work / "to-compare.npy"
    tables.save_array(pairs_file, pairs)
    tasks = math.ceil(len(pairs) / TASK_PAIRS)
    task = _Compare(tuple(path for _, _, path in files), tuple(lengths), pairs_file, threshold, work / "similar")
    runner.run("compare near duplicates", task, tasks, work / "compare")
    similarity = np.concatenate([np.zeros(0), *(np.load(task.file(rank)) for rank in range(tasks))])
    near = similarity > 0
    return Near(pairs[near], similarity[near])


@dataclass(frozen=True)
class _Compare:
    """Task `rank` compares the `rank`-th block of pairs; writes a similarity each, 0 for those below the threshold."""

    files: tuple[Path, ...]
    lengths: tuple[int, ...]
    pairs: Path
    threshold: float
    folder: Path

    def __call__(self, rank: int, world_size: int) -> None:
        pairs = np.load(self.pairs, mmap_mode="r")[rank * TASK_PAIRS : (rank + 1) * TASK_PAIRS]
        members, places = np.unique(pairs, return_inverse=True)
        sketches, places = self._sketches(members), places.reshape(-1, 2)
        similarity = np.zeros(len(pairs))
        for start in range(0, len(pairs), _BLOCK):
            left, right = places[start : start + _BLOCK].T
            estimate, error = minhash.similarity(sketches[left], sketches[right])
            similarity[start : start + _BLOCK] = np.where(estimate - error >= self.threshold, estimate, 0)
        tables.save_array(self.file(rank), similarity)

    def file(self, rank: int) -> Path:
        return self.folder / f"{rank:05d}.npy"

    def _sketches(self, members: Numbers) -> minhash.Sketches:
        """Those of the sorted document numbers."""
        sketches = np.empty((len(members), minhash.BINS), np.uint8)
        borders = np.cumsum([0, *self.lengths])
        limits = np.searchsorted(members, borders)
        for path, first, (begin, end) in zip(self.files, borders, itertools.pairwise(limits), strict=False):
            if begin < end:
                column = tables.read_table(path, ["sketch"])["sketch"].combine_chunks()
                rows = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, minhash.BINS)[column.offset :]
                sketches[begin:end] = rows[members[begin:end] - first]
        return sketches
