"""Raw files -> documents and rejects, whatever is in them.

Contract: `account` yields a `Document`, a `Reject` or a `Passed` for every record, in file order, with the raw bytes
that it takes; these add up to the file's size, or the reader has a fault and `account` raises. Nothing else raises
because of a file's content: what is before and behind a damaged part is read. `read` yields the documents and rejects
alone. `index` counts from 0: the line of JSON Lines, the element of a JSON array, the row of a Parquet file, the
response of a WARC file; it is 0 for files that are one document. Memory is bounded by a few times `max_bytes`,
whatever the file expands to.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Generator, Iterator

from data_pipeline.readers import json_values, parquet, streams, warc
from data_pipeline.readers.records import (
    DAMAGE,
    REASONS,
    Document,
    Passed,
    PassedOver,
    Raw,
    Record,
    Reject,
    Rejected,
    Settings,
    decoded,
    finish,
    from_fields,
    from_page,
    rejecting,
)
from data_pipeline.readers.storage import Location, open_binary
from twofold.files import is_passing

__all__ = ["DAMAGE", "FORMATS", "REASONS", "Document", "Passed", "Reject", "Settings", "account", "read"]

Reader = Generator[Record, None, int]


def read(location: Location, form: str, settings: Settings) -> Iterator[Document | Reject]:
    """The documents and rejects of one file; `form` is a key of `FORMATS`."""
    for found, _ in account(location, form, settings):
        if isinstance(found, Document | Reject):
            yield found


def account(
    location: Location, form: str, settings: Settings
) -> Iterator[tuple[Document | Reject | Passed | None, int]]:
    """Everything in one file with the raw bytes that it takes; None stands for a file without any record."""
    reached = index = 0
    begun: tuple[Document | Reject | Passed | None, int] = (None, 0)  # held back, as it may take the file's padding
    size = _size(location)
    try:
        reader = FORMATS[form](location, settings)
        while True:
            try:
                record = next(reader)
            except StopIteration as stopped:
                behind = stopped.value - reached
                break
            index = record.index + 1
            if begun[0]:
                yield begun
            begun = _finished(record, settings), max(0, record.end - reached)
            reached = max(reached, record.end)
        if reached + behind < min(size, _size(location)):  # a file may grow or shrink while it is read
            raise AssertionError(f"{location}: the reader of {form} stopped at byte {reached + behind} of {size}")
        yield begun[0], begun[1] + behind
    except OSError as error:
        if is_passing(error):
            raise  # what a file server's bad minute hides must not be missing from the corpus
        if begun[0]:
            yield begun
        yield Reject(index, "unreadable_file", error.strerror or str(error)), max(0, size - reached)


def _finished(record: Record, settings: Settings) -> Document | Reject | Passed:
    try:
        return finish(record.index, record.make(), settings)
    except Rejected as rejected:
        return Reject(record.index, rejected.reason, rejected.detail)
    except PassedOver as passed:
        return Passed(record.index, passed.kind)


def _size(location: Location) -> int:
    """0 if the file is lost."""
    try:
        with open_binary(location) as raw:
            return raw.seek(0, io.SEEK_END)
    except OSError:
        return 0


def _html_file(location: Location, settings: Settings) -> Reader:
    return (yield from _one(location, settings, lambda data: from_page(data, None, settings)))


def _text_file(location: Location, settings: Settings) -> Reader:
    return (yield from _one(location, settings, lambda data: Raw(*decoded(data, None))))


def _one(location: Location, settings: Settings, make: Callable[[bytes], Raw]) -> Reader:
    """A file that is one document."""
    with open_binary(location) as raw:
        size = raw.seek(0, io.SEEK_END)
        raw.seek(0)
        try:
            data = streams.read_all(raw, settings.max_bytes)
        except streams.BrokenStream as error:
            yield Record(0, rejecting("broken_compression", str(error)), size)
            return size
    if data is None:
        yield Record(0, rejecting("too_long", f"file above {settings.max_bytes} bytes"), size)
    else:
        yield Record(0, functools.partial(make, data), size)
    return size


def _json_values(location: Location, settings: Settings) -> Reader:
    with open_binary(location) as raw:
        found = json_values.values(raw, settings.max_bytes)
        while True:
            try:
                index, value, end = next(found)
            except StopIteration as stopped:
                return int(stopped.value)
            yield Record(index, functools.partial(_json_record, value, settings), end)


def _json_record(line: bytes | streams.LineTooLong | streams.Damage, settings: Settings) -> Raw:
    if isinstance(line, streams.Damage):
        raise Rejected("broken_compression", str(line))
    if isinstance(line, streams.LineTooLong):
        raise Rejected("too_long", f"line above {settings.max_bytes} bytes")
    text, encoding = decoded(line, None)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Rejected("not_json", str(error)[:200]) from None
    if not isinstance(record, dict):
        raise Rejected("not_an_object", type(record).__name__)
    return from_fields(record, encoding, settings)


FORMATS: dict[str, Callable[[Location, Settings], Reader]] = {
    "html": _html_file,
    "text": _text_file,
    "jsonl": _json_values,
    "warc": warc.records,
    "parquet": parquet.rows,
}
"""Format of a source -> its reader."""
