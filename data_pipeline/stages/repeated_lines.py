"""Lines and paragraphs that occur in many documents of a source, counted over all of its tasks.

Contract: `find(...)` counts in how many different documents of its source each part occurs (a line or
paragraph, see `parts_of`); `Repeated.of_task` then gives the parts that reach the `Limits`, and the rows that
hold one. Documents with the same words, ignoring case, count once, so a page crawled a hundred times does not
lose its own content; a part that occurs twice in a document counts once. One copy of each part stays: that of
the document whose content has the lowest hash, so the choice depends on no order. The result does not depend on
how documents are divided into tasks, nor on how many partitions count them. Cost: one pass over the text at
40 MB/s per core; 40 bytes of disk per part, each written twice and read twice. A hashing task needs about 60 bytes
of memory per part of its file, a sharing or counting task 1 GB at most, an editing task 16 bytes per repeated part
of its source.
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
import pyarrow as pa
import xxhash

from data_pipeline import shuffle, tables
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
    """Hash every part, bring equal hashes together, count, join; `work` keeps the results."""
    files = tuple(tables.task_files(documents))
    hashing = _HashParts(files, work / "parts", fewest_bytes)
    runner.run("hash lines", hashing, len(files), work / "hash-lines")
    sources = tuple(
        _measured(work / "parts", name, [n for _, n, _ in group]) for name, group in groupby(files, _source)
    )
    sharing = _SharePairs(work / "parts", work / "shared", sources)
    runner.run("share lines", sharing, sum(len(source.groups) for source in sources), work / "share-lines")
    counting = _CountParts(sharing, work / "counted", limits)
    runner.run("count lines", counting, sum(source.partitions for source in sources), work / "count-lines")
    for source in sources:
        # Partitions are consecutive ranges of hashes, so their sorted parts follow each other.
        counted = [_load(counting.file(source, partition)) for partition in range(source.partitions)]
        tables.save_array(work / "repeated" / f"{source.name}.npy", np.concatenate(counted))
    return Repeated(hashing.folder, work / "repeated")


def _source(file: tuple[str, int, Path]) -> str:
    return file[0]


class _Source(NamedTuple):
    """How the pairs of a source are brought together."""

    name: str
    documents: int
    bits: int
    """The first bits of a part's hash are its partition's number."""
    groups: tuple[tuple[int, ...], ...]
    """Task files whose pairs are in memory together, about `PAIRS_IN_A_PARTITION`."""

    @property
    def partitions(self) -> int:
        return 1 << self.bits


def _measured(parts: Path, name: str, numbers: Sequence[int]) -> _Source:
    """Divide a source, given the files that `_HashParts` wrote; enough partitions to keep each within bounds."""
    pairs, documents = (
        [len(np.load(parts / name / f"{number:05d}.{kind}.npy", mmap_mode="r")) for number in numbers]
        for kind in ("pairs", "counts")
    )
    groups: list[list[int]] = []
    held = 0
    for number, size in zip(numbers, pairs, strict=True):
        if not groups or held + size > PAIRS_IN_A_PARTITION:
            groups.append([])
            held = 0
        groups[-1].append(number)
        held += size
    bits = (sum(pairs) // PAIRS_IN_A_PARTITION).bit_length()
    return _Source(name, sum(documents), bits, tuple(tuple(group) for group in groups))


@dataclass(frozen=True)
class _HashParts:
    """Task `rank` hashes the parts of the `rank`-th file.

    It writes their hashes in order, how many each row has, and the distinct pairs of a part and the content
    of a document with that part, sorted: shape (n, 2).
    """

    files: tuple[tuple[str, int, Path], ...]
    folder: Path
    fewest_bytes: int

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, path = self.files[rank]
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


_PAIRS = pa.schema([("part", pa.uint64()), ("content", pa.uint64())])


@dataclass(frozen=True)
class _SharePairs:
    """Task `rank` sends the pairs of the `rank`-th group of files to their partitions, each pair once."""

    pairs: Path
    folder: Path
    sources: tuple[_Source, ...]

    def __call__(self, rank: int, world_size: int) -> None:
        source, group = [(source, group) for source in self.sources for group in range(len(source.groups))][rank]
        files = [self.pairs / source.name / f"{number:05d}.pairs.npy" for number in source.groups[group]]
        pairs = _distinct(np.concatenate([_load(path) for path in files]))
        partition = (pairs[:, 0] >> np.uint64(1) >> np.uint64(63 - source.bits)).astype(np.int64)
        with shuffle.writing(self._file(source, group), _PAIRS, source.partitions) as write:
            write(pa.table(list(pairs.T), schema=_PAIRS), partition)

    def _file(self, source: _Source, group: int) -> Path:
        return self.folder / source.name / f"{group:05d}"

    def read(self, source: _Source, partition: int) -> Hashes:
        """The pairs of a partition, shape (n, 2)."""
        files = [self._file(source, group) for group in range(len(source.groups))]
        found = shuffle.read(files, _PAIRS, partition, source.partitions)
        return np.column_stack([column.to_numpy() for column in found.columns])


@dataclass(frozen=True)
class _CountParts:
    """Task `rank` counts the documents of each part whose hash is in the `rank`-th partition."""

    shared: _SharePairs
    folder: Path
    limits: Limits

    def __call__(self, rank: int, world_size: int) -> None:
        partitions = [(source, number) for source in self.shared.sources for number in range(source.partitions)]
        source, number = partitions[rank]
        pairs = _distinct(self.shared.read(source, number))
        _, firsts, counts = np.unique(pairs[:, 0], return_index=True, return_counts=True)
        fewest = self.limits.fewest(source.documents)
        tables.save_array(self.file(source, number), pairs[firsts[counts >= fewest]])

    def file(self, source: _Source, number: int) -> Path:
        return self.folder / source.name / f"{number:05d}.npy"


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
