"""Words of the kept training documents, counted.

Contract: two rounds of tasks, one task a file of documents, then one merge; they meet in files in `work`.

    measure    sizes/<rank>.npy          bytes of text by place in the sampling order
    count      runs/<rank>-<part>.tsv    words and counts of the file's sampled documents, sorted
    merge      words.tsv                 each word once, sorted

A line is `word<TAB>count`, the word's bytes as code points (patterns.py), so that it holds no white space.
The result depends on the set of documents alone: not on their order, files, tasks or workers.

The sample: where a source holds more text than `tokenizer.sample_bytes_per_source`, the documents whose
ids hash lowest are taken, as many as fit. So it is spread evenly over the source, however that is sorted.
Words longer than 256 bytes are counted in pieces of at most that, cut between characters: no merge
reaches that far, and one line of noise must not become a table of its own.

Memory: 2 million distinct words a task (0.6 GB as they are spilled); one line a run in the merge.
Time: the text is read twice; the second time, cutting it into words takes nearly all of it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
import regex
import xxhash

from configs.files import atomic_path
from configs.tasks import TaskRunner
from tokenizer.patterns import PATTERNS, map_bytes

WORD_BYTES = 256
RUN_WORDS = 2_000_000
"""Distinct words that a task holds before it spills them."""
MERGED_RUNS = 256
"""Runs open at once, well below the usual limit of open files."""
_PLACES = 59 * 64
"""Places in the sampling order: the range of `sample_place`."""
_ROWS = 512
Word = tuple[str, int]


@dataclass(frozen=True)
class Counted:
    """The merged table, and what it was counted from."""

    path: Path
    sampled_bytes: dict[str, int]
    """Text counted, by source."""


def training_files(documents: Path) -> list[tuple[str, Path]]:
    """(source, file) of the kept training documents; `documents` is the folder of decide's artifact."""
    return [(path.parent.name, path) for path in sorted((documents / "documents" / "train").glob("*/*.parquet"))]


def count_words(documents: Path, pattern: str, bytes_per_source: int, work: Path, runner: TaskRunner) -> Counted:
    """Count the words of every source's sample, cut by `pattern`."""
    files = training_files(documents)
    sources, paths = [source for source, _ in files], tuple(path for _, path in files)
    runner.run("measure text", _Measure(paths, work / "sizes"), len(files), work / "measure-log")
    sizes = {source: np.zeros(_PLACES, np.int64) for source in sources}
    for rank, source in enumerate(sources):
        sizes[source] += np.load(_size_path(work / "sizes", rank))
    taken = {source: _places_that_fit(by_place, bytes_per_source) for source, by_place in sizes.items()}
    task = _Count(paths, tuple(taken[source] for source in sources), pattern, work / "runs")
    runner.run("count words", task, len(files), work / "count-log")
    table = merge_runs(sorted((work / "runs").glob("*.tsv")), work / "words.tsv")
    return Counted(table, {source: int(by_place[: taken[source]].sum()) for source, by_place in sizes.items()})


def read_words(path: Path) -> Iterator[Word]:
    """(mapped word, count) of a table or a run, in order of words."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            word, count = line.split("\t")
            yield word, int(count)


def merge_runs(runs: Sequence[Path], target: Path) -> Path:
    """One table of the sums of all `runs`, over intermediate tables where there are too many to open."""
    level = 0
    while len(runs) > MERGED_RUNS:
        level += 1
        runs = [
            merge_runs(runs[first : first + MERGED_RUNS], target.with_name(f"merge-{level}-{first:08d}.tsv"))
            for first in range(0, len(runs), MERGED_RUNS)
        ]
    same_words = groupby(heapq.merge(*map(read_words, runs), key=itemgetter(0)), key=itemgetter(0))
    _write_words(target, ((word, sum(count for _, count in group)) for word, group in same_words))
    return target


def sample_place(document_id: str) -> int:
    """A document's place in the sampling order, 0.._PLACES-1: its hash as a float of 6-bit mantissa.

    Places get finer towards 0, so a sample can be cut to within 1/64 of its size, whatever share of
    the source it is.
    """
    hashed = xxhash.xxh3_64_intdigest(f"tokenizer sample {document_id}".encode())
    exponent = max(0, hashed.bit_length() - 7)
    return 64 * exponent + (hashed >> exponent)


@dataclass(frozen=True)
class _Measure:
    """Task: bytes of text of a file by place in the sampling order, int64 [_PLACES]."""

    files: tuple[Path, ...]
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        sizes = np.zeros(_PLACES, np.int64)
        for batch in pq.ParquetFile(self.files[rank]).iter_batches(_ROWS, columns=["id", "text"]):
            places = [sample_place(name) for name in batch["id"].to_pylist()]
            np.add.at(sizes, places, pc.binary_length(batch["text"]).to_numpy())
        with atomic_path(_size_path(self.out, rank)) as path, path.open("wb") as stream:
            np.save(stream, sizes)


@dataclass(frozen=True)
class _Count:
    """Task: words of a file's documents in the first `places[rank]` places, as sorted runs."""

    files: tuple[Path, ...]
    places: tuple[int, ...]
    pattern: str
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        cut = regex.compile(PATTERNS[self.pattern]).findall
        counts: Counter[str] = Counter()
        part = 0
        for text in self._texts(rank):
            counts.update(cut(text))
            if len(counts) >= RUN_WORDS:
                self._spill(counts, rank, part)
                counts.clear()
                part += 1
        self._spill(counts, rank, part)

    def _texts(self, rank: int) -> Iterator[str]:
        places = self.places[rank]
        for batch in pq.ParquetFile(self.files[rank]).iter_batches(_ROWS, columns=["id", "text"]):
            for name, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
                if places == _PLACES or sample_place(name) < places:
                    yield text

    def _spill(self, counts: Counter[str], rank: int, part: int) -> None:
        # A character is at most 4 bytes, so shorter words cannot be too long.
        for word in [word for word in counts if len(word) > WORD_BYTES // 4]:
            count = counts.pop(word)
            for piece in pieces_of(word):
                counts[piece] += count
        mapped = sorted((map_bytes(word), count) for word, count in counts.items())
        _write_words(self.out / f"{rank:05d}-{part:03d}.tsv", mapped)


def pieces_of(word: str) -> Iterator[str]:
    """`word` in pieces of at most WORD_BYTES bytes, cut between characters."""
    encoded = word.encode("utf-8")
    start = 0
    while start < len(encoded):
        piece = encoded[start : start + WORD_BYTES].decode("utf-8", "ignore")
        yield piece
        start += len(piece.encode("utf-8"))


def _places_that_fit(sizes: npt.NDArray[np.int64], limit: int) -> int:
    """How many places, from the first, hold at most `limit` bytes together."""
    return int(np.searchsorted(np.cumsum(sizes), limit, side="right"))


def _write_words(path: Path, words: Iterator[Word] | Sequence[Word]) -> None:
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.writelines(f"{word}\t{count}\n" for word, count in words)


def _size_path(folder: Path, rank: int) -> Path:
    return folder / f"{rank:05d}.npy"
