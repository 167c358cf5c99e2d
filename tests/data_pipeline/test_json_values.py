"""JSON Lines, pretty-printed documents and arrays -> values, one after another."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.readers import json_values, members
from data_pipeline.readers.streams import Damage, LineTooLong

LIMIT = 1_000
RECORDS = [{"text": 'a "b" \\ {[,]} 가', "n": [1, {"x": "y,"}]}, {"text": "둘", "m": {}}, {"text": ""}]


def _values(data: bytes, limit: int = LIMIT) -> list[object]:
    found = list(json_values.values(io.BytesIO(data), limit))
    assert [index for index, _, _ in found] == sorted(index for index, _, _ in found)
    return [json.loads(value) if isinstance(value, bytes) else type(value) for _, value, _ in found]


@pytest.mark.parametrize(
    "data",
    [
        "\n".join(json.dumps(record) for record in RECORDS),
        "\n\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS) + "\n",
        "\r\n".join(json.dumps(record, indent=2) for record in RECORDS),
        "\n".join(json.dumps(record, indent="\t") for record in RECORDS),
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=4, ensure_ascii=False),
        "  \n[\n" + ",\n".join(json.dumps(record) for record in RECORDS) + "\n]\n",
        json.dumps(RECORDS[:1]) + "\n" + json.dumps(RECORDS[1:]),
        json.dumps(RECORDS[:2]) + "\n" + json.dumps(RECORDS[2]),
    ],
)
@pytest.mark.parametrize(
    "encode", [str.encode, lambda text: gzip.compress(text.encode()), lambda t: t.encode("utf-16")]
)
def test_every_layout_gives_the_records(data, encode):
    assert _values(encode(data)) == RECORDS


def test_a_broken_document_does_not_swallow_the_next():
    data = b'{\n  "text": "cut\n{"text": "x"}\n{\n  "text": "y"\n}\n{"text": "cut\nnull\n'
    found = [value for _, value, _ in json_values.values(io.BytesIO(data), LIMIT)]
    assert found == [b'{\n  "text": "cut', b'{"text": "x"}', b'{\n  "text": "y"\n}', b'{"text": "cut', b"null"]


def test_elements_that_are_too_long_stand_between_others():
    long = '"' + 'x\\\\\\"' * LIMIT + '"'
    assert _values(f'[1, {long}, {{"a": {long}}}, 2]'.encode()) == [1, LineTooLong, LineTooLong, 2]
    pretty = f'{{\n  "a": {long}\n}}\n{{"b": 1}}\n'.encode()
    assert _values(pretty) == [LineTooLong, {"b": 1}]


def test_an_array_goes_on_behind_a_damage():
    elements = [json.dumps({"text": f"{n} {'x' * 50}"}) for n in range(40)]
    data = (
        gzip.compress(f"[{','.join(elements[:20])},".encode())
        + b"rubbish"
        + gzip.compress(f"{','.join(elements[20:])}]".encode())
    )
    found = [value for _, value, _ in json_values.values(io.BytesIO(data), LIMIT)]
    assert [value.decode() for value in found if isinstance(value, bytes)] == elements
    assert sum(isinstance(value, Damage) for value in found) == 1


json_records = st.lists(
    st.dictionaries(st.text(max_size=5), st.recursive(st.text() | st.integers(), st.lists, max_leaves=4), max_size=3),
    min_size=1,
    max_size=4,
)


@given(json_records, st.sampled_from([None, 1, "\t"]), st.booleans(), st.booleans(), st.integers(1, 50))
def test_any_records_come_back(records, indent, array, readable, chunk):
    write = lambda value: json.dumps(value, indent=indent, ensure_ascii=not readable)  # noqa: E731
    text = write(records) if array else "\n".join(map(write, records))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(members, "CHUNK_BYTES", chunk)
        assert _values(text.encode("utf-8", "surrogatepass"), 10**6) == records


@pytest.mark.parametrize("data", [b"", b"\n\n", b'{"a": 1}\n\n', b"[1]\n ", gzip.compress(b"", mtime=0) + bytes(9)])
def test_the_end_of_the_file_is_returned(data):
    def end() -> Iterator[int]:
        yield (yield from json_values.values(io.BytesIO(data), LIMIT))

    assert list(end())[-1] == len(data)
