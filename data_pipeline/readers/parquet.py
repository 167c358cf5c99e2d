"""Rows of a Parquet file as records, in small batches.

Contract: reads only the columns of the text, HTML, id and license and those that may hold the address; `a.b` names
a field of a struct. A file that is not Parquet gives one
`broken_parquet`; so does a damaged row group, at its first unread row, and the row groups after it are still
read. A file without a text or HTML column gives one `no_text_field` that names its columns. Memory: a batch
fits in `_BATCH_BYTES` even if its rows are `_SKEW` times longer than the row group's average; a row group is
never in memory as a whole. Strings are read as bytes, so damaged UTF-8 is decoded as leniently as elsewhere.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.readers import addresses
from data_pipeline.readers.records import Record, Rejected, Settings, from_fields, rejecting
from data_pipeline.readers.storage import Location, Unreachable, open_binary
from twofold.files import is_passing

_BATCH_BYTES = 16_000_000
_BATCH_ROWS = 1_024
_SKEW = 64
_BUFFER_BYTES = 1 << 20
_BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, KeyError)
"""What Arrow raises for damaged files, among errors of the file system."""


def rows(location: Location, settings: Settings) -> Generator[Record, None, int]:
    """The rows in order; `index` is the row number in the file. Returns where the file ends."""
    with pa.OSFile(str(location)) if isinstance(location, Path) else open_binary(location) as raw:
        raw.seek(0, os.SEEK_END)
        size = raw.tell()
        try:
            file = pq.ParquetFile(raw, buffer_size=_BUFFER_BYTES, page_checksum_verification=True)
            columns = _columns(file.schema_arrow, settings)
            starts = _starts(file)
        except _BROKEN as error:
            _raise_if_not_damage(error)
            yield Record(0, rejecting("broken_parquet", _first_line(error)), size)
            return size
        if not any(_resolved(file.schema_arrow, path) for path in (settings.text_field, settings.html_field)):
            named = ", ".join(f"{field.name}: {field.type}" for field in file.schema_arrow)
            yield Record(0, rejecting("no_text_field", f"columns are {named}"[:200]), size)
            return size
        for group, start in enumerate(starts):
            yield from _group(file, group, start, columns, settings)
        return size


def _group(file: Any, group: int, start: int, columns: list[str], settings: Settings) -> Iterator[Record]:
    index, end = start, _end(file, group)
    try:
        for batch in file.iter_batches(_batch_rows(file, group), [group], columns, use_threads=False):
            values = {name: _as_bytes(batch.column(name)) for name in batch.schema.names}
            for row in range(batch.num_rows):
                yield Record(index, functools.partial(_record, values, row, settings), end)
                index += 1
    except _BROKEN as error:
        _raise_if_not_damage(error)
        yield Record(index, rejecting("broken_parquet", f"row group {group}: {_first_line(error)}"), end)


def _raise_if_not_damage(error: Exception) -> None:
    """Go on with an error of the file system or of the network, which says nothing about the file."""
    if isinstance(error, Unreachable) or (isinstance(error, OSError) and is_passing(error)):
        raise error


def _record(values: dict[str, Any], row: int, settings: Settings) -> Any:
    try:
        fields = {name: column[row].as_py() for name, column in values.items()}
    except UnicodeDecodeError as error:  # within a struct, whose strings Arrow decodes
        raise Rejected("unknown_encoding", str(error)[:200]) from None
    return from_fields(fields, "utf-8", settings)


def _columns(schema: pa.Schema, settings: Settings) -> list[str]:
    """The columns to read, those in structs as `a.b`."""
    paths = (settings.text_field, settings.html_field, settings.id_field, settings.url_field, "licence", "license")
    named = [_resolved(schema, path, integer=path == settings.id_field) for path in paths if path]
    return list(dict.fromkeys(filter(None, [*named, *_address_columns(schema)])))


def _resolved(schema: pa.Schema, path: str, integer: bool = False) -> str | None:
    """What to read for a field: a column of its name, a part of a struct, or a column that holds JSON."""
    if len(schema.get_all_field_indices(path)) == 1:
        kind = schema.field(path).type
        return path if _is_text(kind) or (integer and pa.types.is_integer(kind)) else None
    read, *rest = path.split(".")
    if not rest or len(schema.get_all_field_indices(read)) != 1:
        return None
    kind = schema.field(read).type
    while rest and pa.types.is_struct(kind):
        if kind.get_field_index(rest[0]) < 0:
            return None
        kind = kind.field(rest[0]).type
        read += f".{rest.pop(0)}"
    return read if not rest or _is_text(kind) or pa.types.is_map(kind) else None


def _address_columns(schema: pa.Schema) -> list[str]:
    """Columns that may hold the address: by name, and structs, maps and JSON that describe the record."""
    return [
        field.name
        for field in schema
        if len(schema.get_all_field_indices(field.name)) == 1
        and (
            (addresses.holds_address(field.name) and _is_text(field.type))
            or (addresses.holds_fields(field.name) and (pa.types.is_struct(field.type) or pa.types.is_map(field.type)))
            or (field.name.lower().startswith("meta") and _is_text(field.type))
        )
    ]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    tests = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary", "is_binary_view")
    return any(getattr(pa.types, test)(kind) for test in tests)


def _as_bytes(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not _is_text(column.type):
        return column
    large = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    return column.cast(pa.large_binary() if large else pa.binary())


def _starts(file: Any) -> list[int]:
    """The first row of each row group."""
    lengths = (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
    return list(itertools.accumulate(lengths, initial=0))[:-1]


def _end(file: Any, group: int) -> int:
    """The raw offset behind a row group."""
    meta = file.metadata.row_group(group)
    chunks = [meta.column(number) for number in range(meta.num_columns)]
    starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks]
    return max((start + chunk.total_compressed_size for start, chunk in zip(starts, chunks, strict=True)), default=0)


def _batch_rows(file: Any, group: int) -> int:
    meta = file.metadata.row_group(group)
    whole = max(1, meta.total_byte_size)
    longest = min(whole, max(1, _SKEW * whole // max(1, meta.num_rows)))
    return int(max(1, min(_BATCH_ROWS, _BATCH_BYTES // longest)))


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:200]
