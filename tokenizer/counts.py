"""Words of the kept training documents, counted.

Contract: two rounds of tasks, one task a file of documents, then one merge; they meet in files in `work`.

    measure    sizes/<rank>.npy          bytes of text by place in the sampling order
    count      runs/<rank>-<part>.tsv    words and counts of the file's sampled documents, sorted
    merge      words.tsv                 each word once, sorted

A line is `word<TAB>count`, the word's bytes as code points (patterns.py), so that it holds no white space.
The result depends on the set of documents alone: not on their order, files, tasks or workers.

The sample: where a source holds more text than `tokenizer.sample_bytes_per_source`, the documents whose
ids hash lowest are taken, as many as fit. It is spread evenly over the source, however its files are sorted.
Words longer than 256 bytes are counted in pieces of at most that, cut between characters: no merge reaches
that far, and one line of noise must not become a table of its own.

Memory: 2 million distinct words a task (about 0.3 GB); one line a run in the merge, 256 runs at a time.
Time: the text is read twice; the second time, cutting into words takes nearly all of it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import regex
import xxhash

from configs.files import atomic_path
from configs.tasks import TaskRunner
from tokenizer.patterns import PATTERNS, map_bytes

WORD_BYTES = 256
SAMPLE_PLACES = 58 * 64 + 64
"""Places in the sampling order; see `sample_place`."""
_RUN_WORDS = 2_000_000
"""Distinct words that a task holds before it spills them."""
_MERGE_RUNS = 256
"""Runs open at once, well below the usual limit of open files."""
_ROWS = 512
Word = tuple[str, int]


@dataclass(frozen=True)
class Counted:
    """The merged table, and what it was counted from."""

    path: Path
    distinct_words: int
    words: int
    mapped_bytes: int
    """Bytes of all words, repeats included."""
    sampled_bytes: dict[str, int]
    """Text counted, by source."""


def training_files(documents: Path) -> list[tuple[str, Path]]:
    """(source, file) of the kept training documents; `documents` is the folder of decide's artifact."""
    return [(path.parent.name, path) for path in sorted((documents / "documents" / "train").glob("*/*.parquet"))]


def count_words(documents: Path, pattern: str, bytes_per_source: int, work: Path, runner: TaskRunner) -> Counted:
    """Count the words of the sample of every source, cut by `pattern`."""
    files = training_files(documents)
    sources, paths = [source for source, _ in files], tuple(path for _, path in files)
    runner.run("measure text", _Measure(paths, work / "sizes"), len(files), work / "measure-log")
    sizes = {source: np.zeros(SAMPLE_PLACES, np.int64) for source in sources}
    for rank, source in enumerate(sources):
        sizes[source] += np.load(_size_file(work / "sizes", rank))
    places = {source: places_that_fit(by_place, bytes_per_source) for source, by_place in sizes.items()}
    task = _Count(paths, tuple(places[source] for source in sources), pattern, work / "runs")
    runner.run("count words", task, len(files), work / "count-log")
    table = _merge(sorted((work / "runs").glob("*.tsv")), work / "merge")
    totals = [(1, count, count * len(word)) for word, count in read_words(table)]
    distinct, words, mapped = (sum(column) for column in zip(*totals, strict=True)) if totals else (0, 0, 0)
    sampled = {source: int(by_place[: places[source]].sum()) for source, by_place in sizes.items()}
    return Counted(table, distinct, words, mapped, sampled)


def read_words(path: Path) -> Iterator[Word]:
    """(mapped word, count) of a table or a run, in order of words."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            word, count = line.split("\t")
            yield word, int(count)
