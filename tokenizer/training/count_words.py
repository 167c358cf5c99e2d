"""Words of the kept training documents, counted.

Contract: three rounds of tasks that meet in files in `work`, then one pass over their result.

    measure    sizes/<rank>.npy              bytes of text by place in the sampling order; a task a file
    count      runs/<rank>-<part>.arrow      words and counts of the file's sampled documents, by hash
    merge      merged/<partition>.arrow      each word of the partition once; a task a partition of the hashes
    words.arrow                              all of them, less the rarest beyond `tokenizer.max_words`

The result depends on the set of documents alone: not on their order, files, tasks or workers.

The sample: where a source holds more text than `tokenizer.sample_bytes_per_source`, the documents whose
ids hash lowest are taken, as many as fit. So it is spread evenly over the source, however that is sorted.
The mixture: with `tokenizer.weights`, counts of each source are multiplied by a whole number, so that the
sources' samples weigh as the recipe says (within 1 in 2**20 of the one that is multiplied most); sources
without a weight are left out. The budget: rarest words go first, of equally rare ones those that hash highest.

Memory: a task's table (150 MB, spilled when full), or the distinct words of one partition (partitions are cut
for 256 MB of sampled text each, 1,024 at most). Cost: text is read twice; 25 MB/s a core, from documents to table.
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
from tokenizer.engine.patterns import PATTERNS
from tokenizer.engine.pretokenizer import cutter_of
from tokenizer.engine.word_counts import (
    Bytes,
    Integers,
    Tally,
    add_words,
    clear,
    count_texts,
    new_resume,
    new_tally,
    sorted_words,
)
from tokenizer.training.word_files import BATCH_WORDS, ENDING, Batch, read_batch, selected, write_batches, write_words
from twofold.errors import user_error
from twofold.files import atomic_path
from twofold.tasks import TaskRunner

RUN_WORDS = 1_500_000
"""Distinct words that a task holds before it spills them."""
RUN_BYTES = 24 * RUN_WORDS
_PARTITION_BYTES = 2**28
_MOST_BITS = 10
_UNIT = 2**20
"""What counts of the source that weighs most for its size are multiplied by."""
_PLACES = 59 * 64
"""Places in the sampling order: the range of `sample_place`."""
_ROWS = 512


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
    documents: Path, wish: Tokenizer, pattern: str, work: Path, runner: TaskRunner, unit: str = "words"
) -> Counted:
    """Count the words of every source's sample, cut by PATTERNS[pattern]; `unit` is what progress calls them."""
    files = [(source, path) for source, path in training_files(documents) if not wish.weights or source in wish.weights]
    sources, paths = [source for source, _ in files], tuple(path for _, path in files)
    runner.run(f"measure {unit}", _Measure(paths, work / "sizes"), len(files), work / "measure-log")
    sizes = {source: np.zeros(_PLACES, np.int64) for source in sources}
    for rank, source in enumerate(sources):
        sizes[source] += np.load(_size_path(work / "sizes", rank))
    places = {source: _places_that_fit(by_place, wish.sample_bytes_per_source) for source, by_place in sizes.items()}
    sampled = {source: int(by_place[: places[source]].sum()) for source, by_place in sizes.items()}
    assert sum(sampled.values()) < 2**63 // _UNIT, "counts are 64-bit"
    factors = multipliers(wish.weights, sampled)
    bits = _partition_bits(sum(sampled.values()))
    shares = tuple((places[source], factors[source]) for source in sources)
    runner.run(f"count {unit}", _Count(paths, shares, pattern, bits, work / "runs"), len(files), work / "count-log")
    return prune(merge_runs(work, bits, runner, unit), wish.max_words, sampled, work / f"words{ENDING}")


def merge_runs(work: Path, bits: int, runner: TaskRunner, unit: str = "words") -> list[Path]:
    """The files of work/runs merged: one file a partition, each word once."""
    runs = tuple(sorted((work / "runs").glob(f"*{ENDING}")))
    runner.run(f"merge {unit}", _Merge(runs, work / "merged"), 2**bits, work / "merge-log")
    return [_part_path(work / "merged", part) for part in range(2**bits)]


def multipliers(weights: Mapping[str, float], sampled_bytes: Mapping[str, int]) -> dict[str, int]:
    """What each source's counts are multiplied by; 1 where there are no weights."""
    if not weights:
        return dict.fromkeys(sampled_bytes, 1)
    for source in weights:
        if not sampled_bytes.get(source):
            raise user_error(
                f"tokenizer.weights.{source}", weights[source], "weighs a source without kept training text",
                "remove it, or raise tokenizer.sample_bytes_per_source",
            )  # fmt: skip
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
    """Of each part the words that occur more than `rarest` times; over all, the first `ties` that do as often."""
    for path in parts:
        batch = read_batch(path, 0)
        chosen = batch.counts > rarest
        equal = np.flatnonzero(batch.counts == rarest)[:ties]
        ties -= len(equal)
        chosen[equal] = True
        numbers = np.flatnonzero(chosen)
        for first in range(0, len(numbers), BATCH_WORDS):
            yield selected(batch, numbers[first : first + BATCH_WORDS])


def sample_place(document_id: str) -> int:
    """A document's place in the sampling order, 0.._PLACES-1: its hash as a float of 6-bit mantissa.

    Places get finer towards 0, so a sample can be cut to within 1/64 of its size, whatever share of
    the source it is.
    """
    hashed = xxhash.xxh3_64_intdigest(f"tokenizer sample {document_id}".encode())
    exponent = max(0, hashed.bit_length() - 7)
    return 64 * exponent + (hashed >> exponent)


# --- tasks -------------------------------------------------------------------------------------


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
    """Task: words of a file's documents in the first places of the sampling order, as runs."""

    files: tuple[Path, ...]
    shares: tuple[tuple[int, int], ...]
    """By file: how many places, and what counts are multiplied by."""
    pattern: str
    bits: int
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        cutter = cutter_of(PATTERNS[self.pattern])
        tally = new_tally(RUN_WORDS, RUN_BYTES)
        part = 0
        for data, bounds, wanted in self._texts(rank):
            resume = new_resume()
            while not count_texts(cutter, tally, data, bounds, wanted, resume):
                self._spill(tally, rank, part)
                clear(tally)
                part += 1
        self._spill(tally, rank, part)

    def _texts(self, rank: int) -> Iterator[tuple[Bytes, Integers, npt.NDArray[np.bool_]]]:
        """Bytes of a few documents, their bounds, and which of them are in the sample."""
        places, _ = self.shares[rank]
        for batch in pq.ParquetFile(self.files[rank]).iter_batches(_ROWS, columns=["id", "text"]):
            texts = batch["text"].cast(pa.large_binary())
            _, offsets, data = texts.buffers()
            bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
            wanted = [places == _PLACES or sample_place(name) < places for name in batch["id"].to_pylist()]
            # The cutter may look behind the text.
            padded = np.concatenate([np.frombuffer(data or b"", np.uint8), np.zeros(4, np.uint8)])
            yield padded, bounds, np.array(wanted, np.bool_)

    def _spill(self, tally: Tally, rank: int, part: int) -> None:
        words = sorted_words(tally)
        weighted = words._replace(counts=words.counts * self.shares[rank][1])
        write_words(run_path(self.out, rank, part), weighted, self.bits)


@dataclass(frozen=True)
class _Merge:
    """Task: one partition of all runs, each word once."""

    runs: tuple[Path, ...]
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        tally = new_tally(RUN_WORDS, RUN_BYTES)
        for run in self.runs:
            tally = added(tally, read_batch(run, rank))
        write_words(_part_path(self.out, rank), sorted_words(tally))


def added(tally: Tally, batch: Batch) -> Tally:
    """`tally`, or a larger one in its place, with the words of `batch` added."""
    done = 0
    while (done := add_words(tally, batch.data, batch.bounds, batch.counts, done)) < len(batch.counts):
        held = sorted_words(tally)
        tally = new_tally(2 * len(tally.entries), 2 * len(tally.data))
        assert add_words(tally, held.data, held.bounds, held.counts, 0) == len(held.counts)
    return tally


def _places_that_fit(sizes: npt.NDArray[np.int64], limit: int) -> int:
    """How many places, from the first, hold at most `limit` bytes together."""
    return int(np.searchsorted(np.cumsum(sizes), limit, side="right"))


def _partition_bits(sampled_bytes: int) -> int:
    return min(_MOST_BITS, (sampled_bytes // _PARTITION_BYTES).bit_length())


def _size_path(folder: Path, rank: int) -> Path:
    return folder / f"{rank:05d}.npy"


def run_path(folder: Path, rank: int, part: int) -> Path:
    """A run that `merge_runs` finds in its work/runs."""
    return folder / f"{rank:05d}-{part:03d}{ENDING}"


def _part_path(folder: Path, part: int) -> Path:
    return folder / f"{part:05d}{ENDING}"
