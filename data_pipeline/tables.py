"""How every stage here reads and writes files: Parquet with zstd, bounded row groups, one file per task.

Contract: a file is complete or absent, and the same rows give the same bytes. A row group has at most 10,000
rows and about 8 MB of text, or 65,536 rows of small columns, so a reader needs no more memory than that. The files
of a source are `<folder>/<source>/<task:05d>.parquet` in every stage, which keeps the stages row-aligned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from twofold.files import atomic_path

_ROWS = 10_000
_NARROW_ROWS = 65_536
_GROUP_CHARACTERS = 4_000_000

Row = Mapping[str, Any]


def task_path(folder: Path, source: str, number: int, ending: str = "parquet") -> Path:
    """The file of task `number` of `source` below `folder`."""
    return folder / source / f"{number:05d}.{ending}"


def task_files(folder: Path) -> list[tuple[str, int, Path]]:
    """(source, task number, file) of every task file below `folder`, in that order."""
    return sorted((path.parent.name, int(path.stem), path) for path in folder.glob("*/*.parquet"))


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Write tables one after another into a file that appears at the end."""
    with atomic_path(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        yield writer


@contextmanager
def row_writer(
    path: Path, schema: pa.Schema, metadata: Mapping[str, str] | None = None
) -> Iterator[Callable[[Row], None]]:
    """Yield a function that writes a row (keys as in `schema`); the file appears at the end."""
    schema = schema.with_metadata(metadata)
    group: list[Row] = []
    characters = 0
    with table_writer(path, schema) as writer:

        def write(row: Row) -> None:
            nonlocal group, characters
            length = len(row.get("text", ""))
            if group and (len(group) == _ROWS or characters + length > _GROUP_CHARACTERS):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                group, characters = [], 0
            group.append(row)
            characters += length

        yield write
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[Row], metadata: Mapping[str, str] | None = None) -> None:
    """Write all `rows` in bounded row groups."""
    with row_writer(path, schema, metadata) as write:
        for row in rows:
            write(row)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table of small columns."""
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd", row_group_size=_NARROW_ROWS)


def row_groups(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a file, one in memory at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=columns)


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a file, one row group in memory at a time."""
    for table in row_groups(path, columns):
        yield from table.to_pylist()


def read_table(
    path: Path, columns: Sequence[str] | None = None, where: Sequence[tuple[str, str, Any]] | None = None
) -> pa.Table:
    """Small columns of a whole file; with `where`, only the rows that satisfy all of its conditions.

    Row groups whose statistics rule out such rows are not read.
    """
    if where is not None:
        return pq.read_table(path, columns=columns, filters=where, partitioning=None)
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns)


def save_array(path: Path, values: npt.NDArray[Any]) -> None:
    """Write one array as `.npy`."""
    with atomic_path(path) as partial, partial.open("wb") as stream:
        np.save(stream, values)


def read_json(path: Path) -> dict[str, Any]:
    """A task's counts."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def count_rows(path: Path) -> int:
    """The number of rows of a file, from its footer."""
    return int(pq.read_metadata(path).num_rows)
