"""Lines and paragraphs that occur in many documents of a source, counted over all of its tasks.

Contract: `find(...)` counts in how many different documents of its source each part occurs (a line or
paragraph, see `parts_of`); `Repeated.of_task` then gives the parts that reach the `Limits`, and the rows that
hold one. Documents with the same words, ignoring case, count once, so a page crawled a hundred times does not
lose its own content; a part that occurs twice in a document counts once. One copy of each part stays: that of
the document whose content has the lowest hash, so the choice depends on no order. The result does not depend on
how documents are divided into tasks, nor on how many partitions count them. Cost: one pass over the text at
40 MB/s per core; 24 bytes of disk per part. A hashing task needs about 60 bytes of memory per part of its file,
a counting task 1 GB at most, an editing task 16 bytes per repeated part of its source.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from data_pipeline import tables
from data_pipeline.features import line_rules
from twofold.tasks import TaskRunner

PAIRS_IN_A_PARTITION = 2**24
Hashes = npt.NDArray[np.uint64]


class Part(NamedTuple):
    """A line, or a paragraph of several lines, that is long enough to be told apart."""

    hash: int
    """xxh3-64 of its words, separated by single spaces."""
    first: int
    stop: int
    """The first line, and the line after the last."""


def parts_of(text: str, fewest_bytes: int) -> tuple[list[Part], int]:
    """The parts of at least `fewest_bytes` of UTF-8 without code, mathematics or numbered lines; the content's hash.

    The content is all words in lower case: equal for documents that say the same.
    """
    lines = text.split("\n")
    worded = [" ".join(line.split()) if "  " in line or "\t" in line else line.strip() for line in lines]
    code = line_rules.fenced(lines) if "```" in text or "~~~" in text else frozenset()
    parts: list[Part] = []
    for start, stop in _paragraphs(worded):
        whole = stop - start > 1
        for number in range(start, stop):
            words = worded[number].encode()
            if number in code or ((whole or len(words) >= fewest_bytes) and _belongs(lines[number])):
                whole = False
            elif len(words) >= fewest_bytes:
                parts.append(Part(xxhash.xxh3_64_intdigest(words), number, number + 1))
        if whole:
            words = " ".join(worded[start:stop]).encode()
            if len(words) >= fewest_bytes:
                parts.append(Part(xxhash.xxh3_64_intdigest(words), start, stop))
    content = " ".join(filter(None, worded)).lower()
    return parts, xxhash.xxh3_64_intdigest(content.encode())


def _belongs(line: str) -> bool:
    """Whether a line is of a kind that texts repeat: code, mathematics, or an item of an enumeration."""
    return line_rules.code_like(line) or line_rules.enumerated(line)


def _paragraphs(worded: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The first line, and the line after the last, of each run of non-empty lines."""
    start = 0
    for empty, run in groupby(worded, lambda words: not words):
        stop = start + sum(1 for _ in run)
        if not empty:
            yield start, stop
        start = stop


class Limits(NamedTuple):
    """From when a part counts as repeated."""

    documents: int
    share: float
    """Of the source's documents, copies included."""

    def fewest(self, source_documents: int) -> int:
        return max(self.documents, math.ceil(self.share * source_documents))


class Lines(NamedTuple):
    """Numbers of lines in a text, ascending."""

    repeated: list[int]
    dropped: list[int]
    """Those of `repeated` that are not the copy that stays."""


@dataclass(frozen=True)
class TaskRepeats:
    """What is repeated in one task's file."""

    known: Hashes
    """The source's repeated parts, sorted, each with the content of the document that keeps it: shape (n, 2)."""
    rows: frozenset[int]
    """Rows with a repeated part."""

    def lines_of(self, row: int, text: str, fewest_bytes: int) -> Lines:
        """The lines of repeated parts in the text of a row."""
        if row not in self.rows:
            return Lines([], [])
        parts, content = parts_of(text, fewest_bytes)
        hashes = np.array([part.hash for part in parts], dtype=np.uint64)
        repeated = _among(hashes, self.known[:, 0])
        places = np.minimum(np.searchsorted(self.known[:, 0], hashes), len(self.known) - 1)
        kept = repeated & (self.known[places, 1] == np.uint64(content))
        every, staying = _covered(parts, repeated), _covered(parts, kept)
        return Lines(sorted(every), sorted(every - staying))


NO_REPEATS = TaskRepeats(np.zeros((0, 2), dtype=np.uint64), frozenset())


def _covered(parts: Sequence[Part], chosen: npt.NDArray[np.bool_]) -> set[int]:
    spans = (range(part.first, part.stop) for part, taken in zip(parts, chosen, strict=True) if taken)
    return {number for span in spans for number in span}


@dataclass(frozen=True)
class Repeated:
    """What `find` wrote, for the tasks that edit."""

    parts: Path
    merged: Path

    def of_task(self, source: str, number: int) -> TaskRepeats:
        known = _load(self.merged / f"{source}.npy")
        hashes = _load(self.parts / source / f"{number:05d}.hashes.npy")
        counts = _load(self.parts / source / f"{number:05d}.counts.npy")
        rows = np.repeat(np.arange(len(counts)), counts)
        return TaskRepeats(known, frozenset(rows[_among(hashes, known[:, 0])].tolist()))


def find(documents: Path, work: Path, limits: Limits, fewest_bytes: int, runner: TaskRunner) -> Repeated:
    """Hash every part, count them by partition, merge; `work` keeps the results."""
    hashing = _HashParts(documents, work / "parts", fewest_bytes)
    runner.run("hash lines", hashing, len(tables.task_files(documents)), work / "hash-lines")
    counting = _CountParts(hashing.folder, work / "counted", limits, _partitions(hashing.folder))
    runner.run("count lines", counting, len(counting.partitions), work / "count-lines")
    for source, group in groupby(counting.partitions, key=lambda partition: partition[0]):
        # Partitions are consecutive ranges of hashes, so their sorted parts follow each other.
        tables.save_array(
            work / "repeated" / f"{source}.npy", np.concatenate([_load(counting.file(*part)) for part in group])
        )
    return Repeated(hashing.folder, work / "repeated")


@dataclass(frozen=True)
class _HashParts:
    """Task `rank` hashes the parts of the `rank`-th file.

    It writes their hashes in order, how many each row has, and the distinct pairs of a part and the content
    of a document with that part, sorted: shape (n, 2).
    """

    documents: Path
    folder: Path
    fewest_bytes: int

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, path = tables.task_files(self.documents)[rank]
        hashes, counts, contents = array("Q"), array("Q"), array("Q")
        for row in tables.read_rows(path, ["kind", "text"]):
            parts, content = ([], 0) if row["kind"] == "code" else parts_of(row["text"], self.fewest_bytes)
            hashes.extend([part.hash for part in parts])
            counts.append(len(parts))
            contents.append(content)
        parts_of_rows, row_counts = np.array(hashes, np.uint64), np.array(counts, np.int64)
        pairs = np.stack([parts_of_rows, np.repeat(np.array(contents, np.uint64), row_counts)], axis=1)
        tables.save_array(self.folder / source / f"{number:05d}.hashes.npy", parts_of_rows)
        tables.save_array(self.folder / source / f"{number:05d}.counts.npy", row_counts)
        tables.save_array(self.folder / source / f"{number:05d}.pairs.npy", _distinct(pairs))


Partition = tuple[str, int, int]
"""Source, number, and how many partitions the source has."""


@dataclass(frozen=True)
class _CountParts:
    """Task `rank` counts the documents of each part whose hash is in partition `rank`."""

    pairs: Path
    folder: Path
    limits: Limits
    partitions: tuple[Partition, ...]

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, total = self.partitions[rank]
        first, stop = (bound * 2**64 // total for bound in (number, number + 1))
        slices = [_between(np.load(path, mmap_mode="r"), first, stop) for path in _pair_files(self.pairs / source)]
        pairs = _distinct(np.concatenate(slices))
        _, firsts, counts = np.unique(pairs[:, 0], return_index=True, return_counts=True)
        files = (self.pairs / source).glob("*.counts.npy")
        fewest = self.limits.fewest(sum(len(np.load(path, mmap_mode="r")) for path in files))
        tables.save_array(self.file(source, number, total), pairs[firsts[counts >= fewest]])

    def file(self, source: str, number: int, total: int) -> Path:
        return self.folder / source / f"{number:05d}.npy"


def _partitions(folder: Path) -> tuple[Partition, ...]:
    """Enough per source to keep each within `PAIRS_IN_A_PARTITION` on average."""
    found: list[Partition] = []
    for source in sorted(folder.iterdir()):
        pairs = sum(len(np.load(path, mmap_mode="r")) for path in _pair_files(source))
        total = 1 + pairs // PAIRS_IN_A_PARTITION
        found += [(source.name, number, total) for number in range(total)]
    return tuple(found)


def _pair_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pairs.npy"))


def _between(pairs: Hashes, first: int, stop: int) -> Hashes:
    """The rows of sorted pairs whose part is in first..stop - 1."""
    start = np.searchsorted(pairs[:, 0], np.uint64(first))
    end = len(pairs) if stop == 2**64 else np.searchsorted(pairs[:, 0], np.uint64(stop))
    return np.array(pairs[start:end])


def _distinct(pairs: Hashes) -> Hashes:
    """The distinct rows, sorted."""
    ordered = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    fresh = np.ones(len(ordered), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return ordered[fresh]


def _among(hashes: Hashes, known: Hashes) -> npt.NDArray[np.bool_]:
    """Which of `hashes` are in the sorted `known`."""
    if not len(known):
        return np.zeros(len(hashes), dtype=bool)
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return np.asarray(known[places] == hashes)


def _load(path: Path) -> npt.NDArray[Any]:
    return np.asarray(np.load(path))
