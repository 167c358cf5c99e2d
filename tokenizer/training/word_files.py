"""Words with counts in files, by hash: what the tasks of counting exchange.

Contract: an Arrow file (`.arrow`) of columns `word` (its bytes) and `count`, words in the order of tally.py.
A file has 2**bits record batches, one a partition: the words whose hashes begin with that number, so that
a task that merges one partition reads nothing else. Arrow writes the list of batches last: a file that was
cut off is no file, and `UserError`. Reading maps the file: no memory but what is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tokenizer.engine.patterns import map_piece
from tokenizer.engine.word_counts import Bytes, Integers, Words, gather
from twofold.errors import user_error
from twofold.files import atomic_path

ENDING = ".arrow"
BATCH_WORDS = 2**17
"""Words in a batch of a file that is one partition."""
_SCHEMA = pa.schema([("word", pa.large_binary()), ("count", pa.int64())])


class Batch(NamedTuple):
    """Words of a file: word i is data[bounds[i]:bounds[i + 1]]."""

    data: Bytes
    bounds: Integers
    counts: Integers


def write_words(path: Path, words: Words, bits: int = 0) -> None:
    """Write `words` in 2**bits partitions."""
    starts = np.arange(1, 2**bits, dtype=np.uint64) << np.uint64(64 - bits if bits else 0)
    borders = [0, *np.searchsorted(words.hashes, starts).tolist(), len(words.counts)]
    whole = record_batch(Batch(words.data, words.bounds, words.counts))
    write_batches(path, (whole.slice(first, end - first) for first, end in pairwise(borders)))


def write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a file of the batches that `selected` or `write_words` make."""
    with atomic_path(path) as partial, pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(batch)


def selected(batch: Batch, chosen: npt.NDArray[np.intp]) -> pa.RecordBatch:
    """The chosen words of a batch."""
    bounds = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(np.diff(batch.bounds)[chosen], out=bounds[1:])
    data = np.empty(int(bounds[-1]), np.uint8)
    gather(batch.data, batch.bounds[:-1][chosen], bounds, data)
    return record_batch(Batch(data, bounds, batch.counts[chosen]))


def batches_of(path: Path) -> int:
    """How many batches a file has."""
    return int(_open(path).num_record_batches)


def read_batch(path: Path, number: int) -> Batch:
    """One batch of a file."""
    batch = _open(path).get_batch(number)
    words, counts = batch["word"], batch["count"]
    _, offsets, data = words.buffers()
    bounds = np.frombuffer(offsets, np.int64)[words.offset : words.offset + len(words) + 1] if len(words) else [0]
    return Batch(np.frombuffer(data or b"", np.uint8), np.asarray(bounds, np.int64), counts.to_numpy())


def read_words(path: Path) -> Iterator[tuple[str, int]]:
    """(word, its bytes as code points (patterns.py); count) of each word."""
    for number in range(batches_of(path)):
        batch = read_batch(path, number)
        data, bounds = batch.data.tobytes(), batch.bounds.tolist()
        for (first, end), count in zip(pairwise(bounds), batch.counts.tolist(), strict=True):
            yield map_piece(data[first:end]), count


def batch_of(words: Iterable[tuple[bytes, int]]) -> Batch:
    """Words as a batch, in the given order."""
    column, counts = zip(*words, strict=True) if (words := list(words)) else ((), ())
    bounds = np.zeros(len(column) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, column), np.int64, len(column)), out=bounds[1:])
    return Batch(np.frombuffer(b"".join(column), np.uint8), bounds, np.array(counts, np.int64))


def record_batch(batch: Batch) -> pa.RecordBatch:
    buffers = [None, pa.py_buffer(np.ascontiguousarray(batch.bounds)), pa.py_buffer(batch.data)]
    words = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(batch.counts), buffers)
    return pa.record_batch([words, pa.array(batch.counts, pa.int64())], schema=_SCHEMA)


def _open(path: Path) -> pa.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except (OSError, pa.ArrowException) as error:
        raise user_error(
            str(path), None, f"holds no counts of words ({str(error).splitlines()[0]})",
            "remove the stage's .partial folder that it lies in, and run again",
        ) from None  # fmt: skip
