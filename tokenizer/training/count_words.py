"""Words of the kept training documents, and stretches of words for superwords, counted.

Contract: rounds of tasks that exchange files in `work`, then one pass over their result.

    measure    sizes/<rank>.npy                       bytes of text by place in the sampling order; one task per file
    count      <pattern>/runs/<rank>-<part>.arrow     words and counts of the file's sampled documents
    merge      <pattern>/merged/<partition>.arrow     each word of the partition once; one task per partition of hashes
               <pattern>/words.arrow                  all of them, less the rarest beyond `tokenizer.max_words`

The text is read once to measure it and once to count, whatever the number of patterns: the sample of stretches depends
on sizes alone, and not on the words. The result depends on the set of documents alone, not on their order, files, tasks
or workers.

The sample: where a source holds more text than `tokenizer.sample_bytes_per_source`, the documents whose ids hash lowest
are taken, as many as fit, so the sample is spread evenly over the source, however it is sorted. Stretches are counted
in less text: see `stretch_limit`. The mixture: with `tokenizer.weights`, counts of each source are multiplied by a
whole number, so that the sources' samples weigh as the recipe says (within 1 in 2**20 of the one that is multiplied
most); sources without a weight are left out. The budget: the rarest words go first, and of equally rare ones those that
hash highest.

Words of more than `WORD_BYTES` are counted in parts, cut between characters: no merge reaches that far, and one line of
noise must not fill a table of its own.

Memory: a task's table (150 MB per pattern, spilled when full), or the distinct words of one partition (256 MB of
sampled text each, 1,024 partitions at most). Cost: 25 MB/s per core and pattern, from documents to table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from configs.schema import Tokenizer
from tokenizer.engine import WORD_BYTES, Words, WordTable, pretokenize
from tokenizer.engine import count_words as add_words
from tokenizer.patterns import PATTERNS, SUPERWORDS
from tokenizer.texts import by_bytes, utf8_of
from tokenizer.training.word_files import BATCH_WORDS, ENDING, read_batch, record_batch, write_batches, write_words
from twofold.errors import user_error
from twofold.files import atomic_path
from twofold.tasks import TaskRunner

RUN_WORDS = 1_500_000
"""Distinct words that a task holds before it spills them."""
RUN_BYTES = 24 * RUN_WORDS
_PARTITION_BYTES = 2**28
_MOST_BITS = 10
_STRETCH_BYTES = 64
"""Bytes of text for each stretch that tokenizer.max_words allows. Most stretches occur once in a text (one new distinct
one in 66 to 77 bytes of Korean, English and code), so where the budget prunes them only boilerplate is left."""
_UNIT = 2**20
"""What counts of the source that weighs most for its size are multiplied by."""
_PLACES = 59 * 64
"""Places in the sampling order: the range of `sample_place`."""
_ROWS = 512
_TEXT_BYTES = 8_000_000
"""Bytes of text that are cut into words at once; the engine holds some 20 times as much."""


@dataclass(frozen=True)
class Counted:
    """The merged table, and what it was counted from."""

    path: Path
    sampled_bytes: dict[str, int]
    """Text counted, by source."""
    distinct_words: int
    """Before the rarest were pruned."""
    words: int
    """The sum of their counts, as weighted."""
    pruned_words: int
    pruned_count: int
    """The sum of the pruned words' counts."""


def training_files(documents: Path) -> list[tuple[str, Path]]:
    """(source, file) of the kept training documents; `documents` is the folder of write's artifact."""
    return [(path.parent.name, path) for path in sorted((documents / "documents" / "train").glob("*/*.parquet"))]


def count_words(
    documents: Path, wish: Tokenizer, patterns: Sequence[str], work: Path, runner: TaskRunner
) -> dict[str, Counted]:
    """For each of `patterns`, names in PATTERNS, count what it cuts every source's sample into."""
    files = [(source, path) for source, path in training_files(documents) if not wish.weights or source in wish.weights]
    sources, paths = [source for source, _ in files], tuple(path for _, path in files)
    runner.run("measure text", _Measure(paths, work / "sizes"), len(files), work / "measure-log")
    sizes = {source: np.zeros(_PLACES, np.int64) for source in sources}
    for rank, source in enumerate(sources):
        sizes[source] += np.load(_size_path(work / "sizes", rank))
    samples = {pattern: _sample(wish, pattern, sizes) for pattern in patterns}
    cuts = tuple(
        _Cut(pattern, tuple(sample.shares[source] for source in sources), sample.bits, work / pattern / "runs")
        for pattern, sample in samples.items()
    )
    runner.run("count words", _Count(paths, cuts), len(files), work / "count-log")
    found = {}
    for pattern, sample in samples.items():
        parts = merge_runs(work / pattern, sample.bits, runner, "stretches" if pattern == SUPERWORDS else "words")
        found[pattern] = prune(parts, wish.max_words, sample.sampled_bytes, work / pattern / f"words{ENDING}")
    return found


def merge_runs(work: Path, bits: int, runner: TaskRunner, unit: str = "words") -> list[Path]:
    """Merge the files in work/runs into one file per partition, each word once."""
    runs = tuple(sorted((work / "runs").glob(f"*{ENDING}")))
    runner.run(f"merge {unit}", _Merge(runs, work / "merged"), 2**bits, work / "merge-log")
    return [_part_path(work / "merged", part) for part in range(2**bits)]


def stretch_limit(wish: Tokenizer, sampled_bytes: Mapping[str, int]) -> int:
    """Bytes of each source in which stretches are counted: the most at which hardly any has to be pruned."""
    left = _STRETCH_BYTES * wish.max_words
    for place, size in enumerate(sorted(sampled_bytes.values())):
        share = left // (len(sampled_bytes) - place)
        if size > share:
            return max(1, share)
        left -= size
    return wish.sample_bytes_per_source


def multipliers(weights: Mapping[str, float], sampled_bytes: Mapping[str, int]) -> dict[str, int]:
    """What each source's counts are multiplied by; 1 where there are no weights."""
    if not weights:
        return dict.fromkeys(sampled_bytes, 1)
    for source in weights:
        if not sampled_bytes.get(source):
            problem = "weighs a source without kept training text"
            hint = "remove it, or raise tokenizer.sample_bytes_per_source"
            raise user_error(f"tokenizer.weights.{source}", weights[source], problem, hint)
    by_byte = {source: Fraction(repr(weight)) / sampled_bytes[source] for source, weight in weights.items()}
    most = max(by_byte.values())
    return {source: max(1, round(_UNIT * share / most)) for source, share in by_byte.items()}


def prune(parts: Sequence[Path], max_words: int, sampled_bytes: dict[str, int], target: Path) -> Counted:
    """Write the `max_words` most frequent words of all parts as one file."""
    how_many: Counter[int] = Counter()
    for path in parts:
        values, occurrences = np.unique(read_batch(path, 0).counts, return_counts=True)
        how_many.update(dict(zip(values.tolist(), occurrences.tolist(), strict=True)))
    rarest, ties, left = 0, 0, max_words
    for count in sorted(how_many, reverse=True):
        rarest, ties = count, min(left, how_many[count])
        left -= ties
        if ties < how_many[count] or not left:
            break
    write_batches(target, _most_frequent(parts, rarest, ties))
    distinct, words = how_many.total(), sum(count * number for count, number in how_many.items())
    kept = sum(count * number for count, number in how_many.items() if count > rarest) + rarest * ties
    return Counted(target, sampled_bytes, distinct, words, max(0, distinct - max_words), words - kept)


def _most_frequent(parts: Sequence[Path], rarest: int, ties: int) -> Iterator[pa.RecordBatch]:
    """The words that occur more than `rarest` times; and over all parts, the first `ties` that occur as often."""
    for path in parts:
        words = read_batch(path, 0)
        chosen = words.counts > rarest
        equal = np.flatnonzero(words.counts == rarest)[:ties]
        ties -= len(equal)
        chosen[equal] = True
        frequent = record_batch(words).filter(pa.array(chosen))
        for first in range(0, len(frequent), BATCH_WORDS):
            yield frequent.slice(first, BATCH_WORDS)


def sample_place(document_id: str) -> int:
    """A document's place in the sampling order, 0.._PLACES-1: its hash as a float of 6-bit mantissa.

    Places get finer towards 0, so a sample can be cut to within 1/64 of its size, whatever share of the source it is.
    """
    hashed = xxhash.xxh3_64_intdigest(f"tokenizer sample {document_id}".encode())
    exponent = max(0, hashed.bit_length() - 7)
    return 64 * exponent + (hashed >> exponent)


@dataclass(frozen=True)
class _Sample:
    """What is counted of each source for one pattern."""

    sampled_bytes: dict[str, int]
    shares: dict[str, tuple[int, int]]
    """How many places of the sampling order, and what counts are multiplied by."""
    bits: int


def _sample(wish: Tokenizer, pattern: str, sizes: Mapping[str, npt.NDArray[np.int64]]) -> _Sample:
    """The sample of a pattern; `sizes` holds bytes of text by place in the sampling order."""
    limit = wish.sample_bytes_per_source
    if pattern == SUPERWORDS:
        limit = stretch_limit(wish, _taken(sizes, limit)[1])
    places, sampled = _taken(sizes, limit)
    assert sum(sampled.values()) < 2**63 // _UNIT, "counts are 64-bit"
    factors = multipliers(wish.weights, sampled)
    bits = min(_MOST_BITS, (sum(sampled.values()) // _PARTITION_BYTES).bit_length())
    return _Sample(sampled, {source: (places[source], factors[source]) for source in sizes}, bits)


def _taken(sizes: Mapping[str, npt.NDArray[np.int64]], limit: int) -> tuple[dict[str, int], dict[str, int]]:
    """By source: how many places, from the first, hold at most `limit` bytes together; and how many they hold."""
    places = {source: int(np.searchsorted(np.cumsum(own), limit, side="right")) for source, own in sizes.items()}
    return places, {source: int(own[: places[source]].sum()) for source, own in sizes.items()}


# --- tasks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measure:
    """Task: bytes of text of a file by place in the sampling order, int64 [_PLACES]."""

    files: tuple[Path, ...]
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        sizes = np.zeros(_PLACES, np.int64)
        for places, texts in _texts(self.files[rank]):
            np.add.at(sizes, places, pc.binary_length(texts).to_numpy())
        with atomic_path(_size_path(self.out, rank)) as path, path.open("wb") as stream:
            np.save(stream, sizes)


@dataclass(frozen=True)
class _Cut:
    """What to count of each file with one pattern, and where to write it."""

    pattern: str
    shares: tuple[tuple[int, int], ...]
    """By file: how many places of the sampling order, and what counts are multiplied by."""
    bits: int
    out: Path


@dataclass(frozen=True)
class _Count:
    """Task: words of a file's documents in the first places of the sampling order, as runs, for each pattern."""

    files: tuple[Path, ...]
    cuts: tuple[_Cut, ...]

    def __call__(self, rank: int, world_size: int) -> None:
        runs = [_Runs(cut, rank) for cut in self.cuts]
        for places, texts in _texts(self.files[rank]):
            for run in runs:
                run.add(places, texts)
        for run in runs:
            run.spill(run.table)


class _Runs:
    """The words of one file by one pattern, in a table that is spilled when it is full."""

    def __init__(self, cut: _Cut, rank: int) -> None:
        self.table = WordTable.with_room(RUN_WORDS, RUN_BYTES)
        self._cut, self._rank, self._part = cut, rank, 0
        self._places, self._factor = cut.shares[rank]

    def add(self, places: npt.NDArray[np.int64], texts: pa.Array) -> None:
        data, bounds = utf8_of(texts.filter(pa.array(places < self._places)))
        word_bounds = pretokenize(data, bounds[1:], PATTERNS[self._cut.pattern], WORD_BYTES)
        add_words(Words(data, word_bounds, np.ones(len(word_bounds) - 1, np.int64)), self.table, self.spill)

    def spill(self, table: WordTable) -> None:
        words, hashes = table.sorted()
        weighted = words._replace(counts=words.counts * self._factor)
        write_words(run_path(self._cut.out, self._rank, self._part), weighted, hashes, self._cut.bits)
        self._part += 1


@dataclass(frozen=True)
class _Merge:
    """Task: one partition of all runs, each word once."""

    runs: tuple[Path, ...]
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        table = WordTable.with_room(RUN_WORDS, RUN_BYTES)
        for run in self.runs:
            table = add_words(read_batch(run, rank), table)
        write_words(_part_path(self.out, rank), *table.sorted())


def _texts(path: Path) -> Iterator[tuple[npt.NDArray[np.int64], pa.Array]]:
    """Places in the sampling order, and texts, of a few documents at a time: about _TEXT_BYTES, or one document."""
    for rows in pq.ParquetFile(path).iter_batches(_ROWS, columns=["id", "text"]):
        for batch in by_bytes(rows, _TEXT_BYTES):
            yield np.array([sample_place(name) for name in batch["id"].to_pylist()], np.int64), batch["text"]


def _size_path(folder: Path, rank: int) -> Path:
    return folder / f"{rank:05d}.npy"


def run_path(folder: Path, rank: int, part: int) -> Path:
    """A run that `merge_runs` finds in its work/runs."""
    return folder / f"{rank:05d}-{part:03d}{ENDING}"


def _part_path(folder: Path, part: int) -> Path:
    return folder / f"{part:05d}{ENDING}"
