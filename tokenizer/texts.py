"""Columns of strings as bytes in numpy arrays, the form that the engine takes.

Contract: `utf8_of` copies nothing; `string_column` is its inverse.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenizer.engine import Bytes, Integers


def utf8_of(column: pa.Array) -> tuple[Bytes, Integers]:
    """The bytes of an array of strings, one after the other, and bounds: string i is data[bounds[i]:bounds[i + 1]]."""
    column = column.cast(pa.large_binary())
    if not len(column):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(data or b"", np.uint8)[bounds[0] : bounds[-1]], bounds - bounds[0]


def by_bytes(batch: pa.RecordBatch, limit: int) -> Iterator[pa.RecordBatch]:
    """The rows of a batch, cut where another `limit` bytes of its column `text` are full; nothing is copied."""
    group = np.cumsum(pc.binary_length(batch["text"]).to_numpy()) // limit
    borders = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(batch)]
    for begin, end in pairwise(borders):
        yield batch.slice(begin, end - begin)


def string_column(data: Bytes, bounds: Integers) -> pa.Array:
    """The strings data[bounds[i]:bounds[i + 1]] as large_binary; nothing is copied."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(bounds)), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(bounds) - 1, buffers)
