"""Files of words and their counts: what the tasks of counting exchange.

Contract: an Arrow file (`.arrow`) with the columns `word` (its bytes) and `count`; words in the order of their hash. A
file of counted documents has 2**bits record batches, one per partition: the words whose hashes begin with that number,
so that a task that merges one partition reads nothing else. Arrow writes the list of batches last, so a truncated file
is recognised, and is a `UserError`. Reading maps the file, and takes no memory but for what is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tokenizer.engine import Words
from tokenizer.texts import string_column, utf8_of
from twofold.errors import user_error
from twofold.files import atomic_path

ENDING = ".arrow"
BATCH_WORDS = 2**17
"""Words in a batch of a file that has no partitions."""
_SCHEMA = pa.schema([("word", pa.large_binary()), ("count", pa.int64())])


def write_words(path: Path, words: Words, hashes: npt.NDArray[np.uint64], bits: int = 0) -> None:
    """Write words, sorted by their hashes, in 2**bits partitions."""
    starts = np.arange(1, 2**bits, dtype=np.uint64) << np.uint64(64 - bits if bits else 0)
    borders = [0, *np.searchsorted(hashes, starts).tolist(), len(hashes)]
    whole = record_batch(words)
    write_batches(path, (whole.slice(first, end - first) for first, end in pairwise(borders)))


def write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a file of record batches."""
    with atomic_path(path) as partial, pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(batch)


def number_of_batches(path: Path) -> int:
    """How many batches a file has."""
    return int(_open(path).num_record_batches)


def read_batch(path: Path, number: int) -> Words:
    """One batch of a file."""
    batch = _open(path).get_batch(number)
    return _words(batch["word"], batch["count"])


def read_words(path: Path) -> Words:
    """All words of a file, copied."""
    rows = _open(path).read_all()
    return _words(rows["word"].combine_chunks(), rows["count"].combine_chunks())


def words_of(counted: Iterable[tuple[bytes, int]]) -> Words:
    """(word, count) pairs as words, in the given order."""
    pairs = list(counted)
    data, bounds = utf8_of(pa.array([word for word, _ in pairs], pa.large_binary()))
    return Words(data, bounds, np.array([count for _, count in pairs], np.int64))


def record_batch(words: Words) -> pa.RecordBatch:
    """Words as a record batch of a file."""
    return pa.record_batch(
        [string_column(words.data, words.bounds), pa.array(words.counts, pa.int64())], schema=_SCHEMA
    )


def _words(words: pa.Array, counts: pa.Array) -> Words:
    return Words(*utf8_of(words), counts.to_numpy())


def _open(path: Path) -> pa.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except (OSError, pa.ArrowException) as error:
        problem = f"is not a complete file of word counts ({str(error).splitlines()[0]})"
        hint = "remove the stage's .partial folder that it lies in, and run again"
        raise user_error(str(path), None, problem, hint) from None
