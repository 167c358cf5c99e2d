"""Words of the kept training documents, counted.

Contract: three steps through files in `work`. Tasks measure the text of each file; tasks count the
words of their file's share of the sample and spill them sorted; one merge streams the sorted runs into
a table in which each word stands once. The result depends on the documents alone, not on the number of
tasks or workers. Memory: one file's distinct words in a task, one line a run in the merge.

The sample: a source whose text exceeds `tokenizer.sample_bytes_per_source` gives the first documents of
each of its files, each file in proportion to its size. Words longer than 256 bytes are cut there, so
that one line of noise cannot become a table of its own (no merge reaches that far).
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import regex

from configs.files import atomic_path, write_json
from configs.tasks import TaskRunner
from tokenizer.patterns import PATTERNS

WORD_BYTES = 256
_ROWS = 512
Word = tuple[str, int]


@dataclass(frozen=True)
class Counted:
    """A sorted table of `word<TAB>count` lines, words as JSON strings, and what it was counted from."""

    path: Path
    sampled_bytes: dict[str, int]
    """Text counted, by source."""


def training_files(documents: Path) -> list[tuple[str, Path]]:
    """(source, file) of the kept training documents, in order."""
    return [(path.parent.name, path) for path in sorted((documents / "documents" / "train").glob("*/*.parquet"))]


def count_words(documents: Path, pattern: str, bytes_per_source: int, work: Path, runner: TaskRunner) -> Counted:
    """Count the words of the sample; `documents` is the folder of decide's artifact."""
    files = training_files(documents)
    paths = tuple(path for _, path in files)
    runner.run("measure text", _Measure(paths, work / "bytes"), len(files), work / "measure-log")
    sizes = [int(json.loads(_numbered(work / "bytes", rank, "json").read_text())) for rank in range(len(files))]
    shares = tuple(_shares([source for source, _ in files], sizes, bytes_per_source))
    runner.run("count words", _Count(paths, shares, pattern, work / "runs"), len(files), work / "count-log")
    runs = [_numbered(work / "runs", rank, "tsv") for rank in range(len(files))]
    table = work / "words.tsv"
    with atomic_path(table) as path, path.open("w", encoding="utf-8") as stream:
        stream.writelines(_line(word, count) for word, count in _merged(runs))
    sampled: dict[str, int] = {}
    for (source, _), size, share in zip(files, sizes, shares, strict=True):
        sampled[source] = sampled.get(source, 0) + min(size, share)
    return Counted(table, sampled)


def read_words(path: Path) -> Iterator[Word]:
    """(word, count) of a table or a run, in its order."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            word, count = line.rsplit("\t", 1)
            yield json.loads(word), int(count)


@dataclass(frozen=True)
class _Measure:
    """Task: bytes of text in a file."""

    files: tuple[Path, ...]
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        batches = pq.ParquetFile(self.files[rank]).iter_batches(_ROWS, columns=["text"])
        size = sum(pc.sum(pc.binary_length(batch.column(0))).as_py() or 0 for batch in batches)
        write_json(_numbered(self.out, rank, "json"), size)


@dataclass(frozen=True)
class _Count:
    """Task: words of a file's first `shares[rank]` bytes (whole documents), sorted by code points."""

    files: tuple[Path, ...]
    shares: tuple[int, ...]
    pattern: str
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        counts: Counter[str] = Counter()
        find = regex.compile(PATTERNS[self.pattern]).findall
        for text in _first_texts(self.files[rank], self.shares[rank]):
            counts.update(find(text))
        for word in [word for word in counts if len(word) * 4 > WORD_BYTES]:
            count = counts.pop(word)
            counts.update(dict.fromkeys(pieces := _cut(word), 0))
            for piece in pieces:
                counts[piece] += count
        with atomic_path(_numbered(self.out, rank, "tsv")) as path, path.open("w", encoding="utf-8") as stream:
            stream.writelines(_line(word, counts[word]) for word in sorted(counts))


def _shares(sources: list[str], sizes: list[int], bytes_per_source: int) -> Iterator[int]:
    """Bytes of each file that belong to the sample."""
    totals: Counter[str] = Counter()
    for source, size in zip(sources, sizes, strict=True):
        totals[source] += size
    for source, size in zip(sources, sizes, strict=True):
        whole = totals[source] <= bytes_per_source
        yield size if whole else -(-size * bytes_per_source // totals[source])


def _first_texts(path: Path, size: int) -> Iterator[str]:
    for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=["text"]):
        for text in batch.column(0).to_pylist():
            if size <= 0:
                return
            size -= len(text.encode("utf-8"))
            yield text


def _cut(word: str) -> list[str]:
    """`word` in pieces of at most WORD_BYTES bytes, cut between code points."""
    pieces, piece, size = [], [], 0
    for character in word:
        width = len(character.encode("utf-8"))
        if size + width > WORD_BYTES:
            pieces.append("".join(piece))
            piece, size = [], 0
        piece.append(character)
        size += width
    return [*pieces, "".join(piece)]


def _merged(runs: list[Path]) -> Iterator[Word]:
    """Each word once, with its sum over all runs."""
    for word, same in groupby(heapq.merge(*map(read_words, runs), key=itemgetter(0)), key=itemgetter(0)):
        yield word, sum(count for _, count in same)


def _line(word: str, count: int) -> str:
    return f"{json.dumps(word, ensure_ascii=False)}\t{count}\n"


def _numbered(folder: Path, rank: int, ending: str) -> Path:
    return folder / f"{rank:05d}.{ending}"
