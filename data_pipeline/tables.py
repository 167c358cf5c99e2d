"""Parquet as every stage here writes and reads it: zstd, bounded row groups, one file a task.

Contract: a file written by `write_rows` is whole or absent; the same rows give the same bytes. A
row group holds at most 1,000 rows and about 8 MB of text, so readers stay within that. A source's
files are `<folder>/<source>/<task:05d>.parquet` in every stage, which is how stages stay row-aligned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from twofold.files import atomic_path

_ROWS = 1_000
_GROUP_BYTES = 8_000_000

Row = Mapping[str, Any]


def task_path(folder: Path, source: str, number: int) -> Path:
    """Where task `number` of `source` keeps its rows below `folder`."""
    return folder / source / f"{number:05d}.parquet"


def task_files(folder: Path) -> list[tuple[str, int, Path]]:
    """(source, task number, file) of every task file below `folder`, in that order."""
    return sorted((path.parent.name, int(path.stem), path) for path in folder.glob("*/*.parquet"))


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[Row], metadata: Mapping[str, str] | None = None) -> None:
    """Write `rows` (a mapping a row, keys as in `schema`) in bounded row groups, atomically."""
    with (
        atomic_path(path) as partial,
        pq.ParquetWriter(partial, schema.with_metadata(metadata), compression="zstd") as writer,
    ):
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema.with_metadata(metadata)))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a whole table of small columns, atomically."""
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd", row_group_size=_ROWS)


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a file, one row group in memory at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, columns=columns).to_pylist()


def read_table(
    path: Path, columns: Sequence[str] | None = None, where: Sequence[tuple[str, str, Any]] | None = None
) -> pa.Table:
    """Some columns of a whole file, for columns that are small; of the rows that fulfil all of `where`.

    Row groups that cannot hold such a row, by their statistics, are not read.
    """
    if where is not None:
        return pq.read_table(path, columns=columns, filters=where, partitioning=None)
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns)


def count_rows(path: Path) -> int:
    """Rows of a file, from its footer."""
    return int(pq.read_metadata(path).num_rows)


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    size = 0
    for row in rows:
        length = len(row.get("text", ""))
        if group and (len(group) == _ROWS or size + length > _GROUP_BYTES // 2):
            yield group
            group, size = [], 0
        group.append(row)
        size += length
    if group:
        yield group
