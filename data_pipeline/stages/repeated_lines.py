"""Lines and paragraphs that stand in many documents of a source: counted over all of its tasks.

Contract: `find(...)` counts in how many different documents of its source each part (line or paragraph,
`parts_of`) stands; `Repeated` then tells which reach `fewest`, and the rows that hold one. Documents with
the same words, case apart, count once, so a page that was crawled a hundred times does not take its own
content along; a part that stands twice in a document counts once. The result depends neither on how
documents are cut into tasks nor on how many partitions count them. Cost: one reading of the text at
40 MB/s a core; 24 bytes of disk a part; a hashing task holds some 60 bytes a part of its file, a counting
task about 1 GB at most, an editing one 8 bytes a repeated part of its source.
"""

from __future__ import annotations

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
from twofold.files import atomic_path
from twofold.tasks import TaskRunner

PAIRS_IN_A_PARTITION = 2**24
Hashes = npt.NDArray[np.uint64]


class Part(NamedTuple):
    """A line, or a paragraph of several lines, that is long enough to be told apart."""

    hash: int
    """xxh3-64 of its words with single spaces between."""
    first: int
    stop: int
    """First line, and the line after the last."""


def parts_of(text: str, fewest_bytes: int) -> tuple[list[Part], int]:
    """Parts of at least so many bytes of UTF-8, none of which holds code or mathematics; and the content's hash.

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
            if number in code or ((whole or len(words) >= fewest_bytes) and line_rules.code_like(lines[number])):
                whole = False
            elif len(words) >= fewest_bytes:
                parts.append(Part(xxhash.xxh3_64_intdigest(words), number, number + 1))
        if whole:
            words = " ".join(worded[start:stop]).encode()
            if len(words) >= fewest_bytes:
                parts.append(Part(xxhash.xxh3_64_intdigest(words), start, stop))
    content = " ".join(filter(None, worded)).lower()
    return parts, xxhash.xxh3_64_intdigest(content.encode())


def repeated_lines(text: str, fewest_bytes: int, known: Hashes) -> list[int]:
    """Numbers of the lines that stand in a part whose hash is among the sorted `known`."""
    parts, _ = parts_of(text, fewest_bytes)
    found = _among(np.array([part.hash for part in parts], dtype=np.uint64), known)
    covered = (range(part.first, part.stop) for part, is_known in zip(parts, found, strict=True) if is_known)
    return sorted({number for numbers in covered for number in numbers})


@dataclass(frozen=True)
class Repeated:
    """What `find` wrote, for the tasks that edit."""

    parts: Path
    merged: Path

    def known(self, source: str) -> Hashes:
        """Sorted hashes of the source's repeated parts."""
        return _load(self.merged / f"{source}.npy")

    def rows(self, source: str, number: int, known: Hashes) -> frozenset[int]:
        """Rows of a task's file that hold a repeated part."""
        folder = self.parts / source
        hashes = _load(folder / f"{number:05d}.hashes.npy")
        counts = _load(folder / f"{number:05d}.counts.npy")
        rows = np.repeat(np.arange(len(counts)), counts)
        return frozenset(rows[_among(hashes, known)].tolist())


def find(documents: Path, work: Path, fewest: int, fewest_bytes: int, runner: TaskRunner) -> Repeated:
    """Hash every part, count them by partition, merge; `work` keeps the results."""
    hashing = _HashParts(documents, work / "parts", fewest_bytes)
    files = tables.task_files(documents)
    runner.run("hash lines", hashing, len(files), work / "hash-lines")
    counting = _CountParts(hashing.folder, work / "counted", fewest, _partitions(hashing.folder))
    runner.run("count lines", counting, len(counting.partitions), work / "count-lines")
    for source, group in groupby(counting.partitions, key=lambda partition: partition[0]):
        # Partitions are ranges of hashes in order, so their sorted parts follow each other.
        _save(work / "repeated" / f"{source}.npy", np.concatenate([_load(counting.file(*part)) for part in group]))
    return Repeated(hashing.folder, work / "repeated")


@dataclass(frozen=True)
class _HashParts:
    """Task `rank` hashes the parts of the `rank`-th file.

    It writes their hashes in order, how many each row has, and the distinct pairs of a part and the
    content of a document that it stands in, sorted: shape (n, 2).
    """

    documents: Path
    folder: Path
    fewest_bytes: int

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, path = tables.task_files(self.documents)[rank]
        hashes = array("Q")
        counts = array("Q")
        contents = array("Q")
        for row in tables.read_rows(path, ["kind", "text"]):
            parts, content = ([], 0) if row["kind"] == "code" else parts_of(row["text"], self.fewest_bytes)
            hashes.extend([part.hash for part in parts])
            counts.append(len(parts))
            contents.append(content)
        parts_of_rows, contents_of_rows = np.array(hashes, np.uint64), np.array(contents, np.uint64)
        pairs = np.stack([parts_of_rows, np.repeat(contents_of_rows, np.array(counts, np.int64))], axis=1)
        _save(self.folder / source / f"{number:05d}.hashes.npy", parts_of_rows)
        _save(self.folder / source / f"{number:05d}.counts.npy", np.array(counts, np.int64))
        _save(self.folder / source / f"{number:05d}.pairs.npy", _distinct(pairs))


Partition = tuple[str, int, int]
"""Source, number, how many the source has."""


@dataclass(frozen=True)
class _CountParts:
    """Task `rank` counts the documents of each part whose hash lies in partition `rank`."""

    pairs: Path
    folder: Path
    fewest: int
    partitions: tuple[Partition, ...]

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, of = self.partitions[rank]
        first, last = (bound * 2**64 // of for bound in (number, number + 1))
        slices = [_between(np.load(path, mmap_mode="r"), first, last) for path in _pair_files(self.pairs / source)]
        parts, counts = np.unique(_distinct(np.concatenate(slices))[:, 0], return_counts=True)
        _save(self.file(source, number, of), parts[counts >= self.fewest])

    def file(self, source: str, number: int, of: int) -> Path:
        return self.folder / source / f"{number:05d}.npy"


def _partitions(folder: Path) -> tuple[Partition, ...]:
    """As many a source as keep each within `PAIRS_IN_A_PARTITION` on average."""
    found: list[Partition] = []
    for source in sorted(folder.iterdir()):
        pairs = sum(len(np.load(path, mmap_mode="r")) for path in _pair_files(source))
        of = 1 + pairs // PAIRS_IN_A_PARTITION
        found += [(source.name, number, of) for number in range(of)]
    return tuple(found)


def _pair_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pairs.npy"))


def _between(pairs: Hashes, first: int, last: int) -> Hashes:
    """Rows of sorted pairs whose part lies in first..last - 1."""
    start = np.searchsorted(pairs[:, 0], np.uint64(first))
    end = len(pairs) if last == 2**64 else np.searchsorted(pairs[:, 0], np.uint64(last))
    return np.array(pairs[start:end])


def _distinct(pairs: Hashes) -> Hashes:
    """Different rows, sorted."""
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


def _paragraphs(worded: Sequence[str]) -> Iterator[tuple[int, int]]:
    """First line and the line after the last of each run of non-empty lines."""
    start = None
    for number, words in enumerate(worded):
        if words and start is None:
            start = number
        elif not words and start is not None:
            yield start, number
            start = None
    if start is not None:
        yield start, len(worded)


def _load(path: Path) -> npt.NDArray[Any]:
    return np.asarray(np.load(path))


def _save(path: Path, values: npt.NDArray[Any]) -> None:
    with atomic_path(path) as partial, partial.open("wb") as stream:
        np.save(stream, values)
