"""Raw files -> documents and rejects, whatever is in them.

Contract: `read` yields a `Document` or a `Reject` for every record, in file order, and never raises because of a
file's content. It reads everything before a damaged part, and in WARC and Parquet also everything after it.
`index` counts from 0: the line of JSON Lines, the row of a Parquet file, the response of a WARC file; it is 0
for files that are one document. Memory is bounded by a few times `max_bytes`, whatever the file expands to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from data_pipeline.readers import parquet, streams, warc
from data_pipeline.readers.records import (
    DAMAGE,
    REASONS,
    Document,
    Raw,
    Record,
    Reject,
    Rejected,
    Settings,
    decoded,
    finish,
    from_fields,
    from_page,
)
from data_pipeline.readers.storage import Location
from twofold.files import is_passing

__all__ = ["DAMAGE", "FORMATS", "REASONS", "Document", "Reject", "Settings", "read"]


def read(location: Location, form: str, settings: Settings) -> Iterator[Document | Reject]:
    """Read one file; `form` is a key of `FORMATS`."""
    reached = 0
    try:
        for index, make in FORMATS[form](location, settings):
            reached = index
            try:
                yield finish(index, make(), settings)
            except Rejected as rejected:
                yield Reject(index, rejected.reason, rejected.detail)
            reached = index + 1
        return
    except streams.BrokenStream as error:
        reason, detail = "broken_compression", str(error)
    except OSError as error:
        if is_passing(error):
            raise  # what a file server's bad minute hides must not be missing from the corpus
        reason, detail = "unreadable_file", error.strerror or str(error)
    yield Reject(reached, reason, detail)


def _html_file(location: Location, settings: Settings) -> Iterator[Record]:
    yield 0, lambda: from_page(_whole(location, settings), None, settings)


def _text_file(location: Location, settings: Settings) -> Iterator[Record]:
    yield 0, lambda: Raw(*decoded(_whole(location, settings), None))


def _json_lines(location: Location, settings: Settings) -> Iterator[Record]:
    for index, line in enumerate(streams.lines(location, settings.max_bytes)):
        if isinstance(line, streams.LineTooLong) or line.strip():
            yield index, lambda line=line: _json_record(line, settings)  # type: ignore[misc]


def _json_record(line: bytes | streams.LineTooLong, settings: Settings) -> Raw:
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


def _whole(location: Location, settings: Settings) -> bytes:
    data = streams.read_all(location, settings.max_bytes)
    if data is None:
        raise Rejected("too_long", f"file above {settings.max_bytes} bytes")
    return data


FORMATS: dict[str, Callable[[Location, Settings], Iterator[Record]]] = {
    "html": _html_file,
    "text": _text_file,
    "jsonl": _json_lines,
    "warc": warc.responses,
    "parquet": parquet.rows,
}
"""Format of a source -> its reader."""
