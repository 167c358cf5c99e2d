"""Parquet files -> documents and rejects, whatever is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.readers import formats, parquet
from data_pipeline.readers.formats import Document, Reject, Settings
from data_pipeline.readers.storage import Unreachable
from twofold.files import is_passing

KOREAN = "가을 하늘은 높고 푸르다. 아이들은 운동장에서 공을 차며 논다."
PAGE = f"<html><head><meta charset=euc-kr></head><body><p>{KOREAN}</p></body></html>"
MAX = 10_000


def _read(path: Path, max_bytes: int = MAX, **settings: Any) -> list[Document | Reject]:
    return list(formats.read(path, "parquet", Settings(max_bytes, **settings)))


def _write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_rows_keep_id_url_and_licence(tmp_path):
    columns = {"id": ["a", None], "url": ["https://x.org/", None], "license": ["MIT", None], "text": [KOREAN, "둘째"]}
    first, second = _read(_write(tmp_path / "f", columns))
    assert first == Document(0, KOREAN, "utf-8", "a", "https://x.org/", "MIT")
    assert second == Document(1, "둘째", "utf-8")


def test_the_recipe_names_the_columns(tmp_path):
    path = _write(tmp_path / "f", {"body": [KOREAN], "row": [12], "text": ["other"], "extra": [[1]]})
    (document,) = _read(path, text_field="body", id_field="row")
    assert (document.text, document.raw_id) == (KOREAN, "12")


def test_fields_in_structs_in_json_and_addresses_are_found(tmp_path):
    columns = {
        "data": [{"body": {"text": KOREAN}, "n": 7}],
        "meta": ['{"url": "https://x.org/1", "key": "k"}'],
        "pages": pa.array([[("html", PAGE)]], pa.map_(pa.string(), pa.string())),
    }
    path = _write(tmp_path / "f", columns)
    (document,) = _read(path, text_field="data.body.text", id_field="meta.key")
    assert (document.text, document.raw_id, document.url) == (KOREAN, "k", "https://x.org/1")
    (document,) = _read(path, html_field="pages.html", id_field="data.n")
    assert (document.text, document.raw_id) == (KOREAN, "7")
    (reject,) = _read(path, text_field="data.body.missing")
    assert "data: struct<body" in reject.detail


def test_the_address_is_found_in_a_struct_or_under_another_name(tmp_path):
    for number, columns in enumerate(
        ({"metadata": [{"WARC-Target-URI": "https://x.org/"}]}, {"source_url": ["https://x.org/"]})
    ):
        (document,) = _read(_write(tmp_path / str(number), {"text": [KOREAN], **columns}))
        assert document.url == "https://x.org/"


TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_text_of_any_string_type(tmp_path, kind):
    values = pa.array([KOREAN, None, KOREAN], pa.string())
    column = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
    found = _read(_write(tmp_path / "f", {"text": column}))
    assert [item.text if isinstance(item, Document) else item.reason for item in found] == [
        KOREAN,
        "no_text_field",
        KOREAN,
    ]


def test_html_column_is_extracted_from_text_and_from_bytes_in_any_encoding(tmp_path):
    text = _write(tmp_path / "text", {"html": [PAGE]})
    raw = _write(tmp_path / "raw", {"html": pa.array([PAGE.encode("euc-kr")], pa.binary())})
    assert [_read(path)[0].text for path in (text, raw)] == [KOREAN] * 2
    assert _read(raw)[0].encoding == "cp949"


def test_a_row_of_html_where_text_is_null(tmp_path):
    path = _write(tmp_path / "f", {"text": [None, "x"], "html": [PAGE, PAGE]})
    assert [document.text for document in _read(path)] == [KOREAN, "x"]


def test_damaged_utf8_is_decoded_leniently(tmp_path):
    damaged = KOREAN.encode() * 10 + b"\xff" + KOREAN.encode()
    strings = pa.Array.from_buffers(pa.string(), 1, pa.array([damaged], pa.binary()).buffers())
    (document,) = _read(_write(tmp_path / "f", {"text": strings}))
    assert document.text.count("�") == 1


def test_a_file_without_text_is_one_reject_that_names_its_columns(tmp_path):
    (reject,) = _read(_write(tmp_path / "f", {"body": ["x"] * 5, "text": [1] * 5}))
    assert (reject.reason, reject.detail) == ("no_text_field", "columns are body: string, text: int64")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"this is no Parquet" * 100, b"PAR1" + b"\x00" * 50 + b"PAR1"])
def test_a_foreign_file_is_one_reject(tmp_path, data):
    (tmp_path / "f").write_bytes(data)
    (reject,) = _read(tmp_path / "f")
    assert (reject.index, reject.reason) == (0, "broken_parquet")


def test_a_cut_file_is_one_reject(tmp_path):
    data = _write(tmp_path / "whole", {"text": [KOREAN] * 1000}).read_bytes()
    (tmp_path / "f").write_bytes(data[: len(data) * 2 // 3])
    assert [item.reason for item in _read(tmp_path / "f")] == ["broken_parquet"]


def test_a_damaged_row_group_costs_its_rows_only(tmp_path):
    texts = [f"{number} {KOREAN}" for number in range(30)]
    options = {"row_group_size": 10, "compression": "zstd", "use_dictionary": False, "write_page_checksum": True}
    path = _write(tmp_path / "f", {"text": texts}, **options)
    chunk = pq.read_metadata(path).row_group(1).column(0)
    end = chunk.data_page_offset + chunk.total_compressed_size
    data = bytearray(path.read_bytes())
    data[end - 30 : end - 10] = bytes(20)
    path.write_bytes(data)
    found = _read(path)
    assert [item.index for item in found] == [*range(10), 10, *range(20, 30)]
    assert [item.reason for item in found if isinstance(item, Reject)] == ["broken_parquet"]
    assert [item.text for item in found if isinstance(item, Document)] == texts[:10] + texts[20:]


def test_long_rows_are_rejected_between_good_ones(tmp_path):
    path = _write(tmp_path / "f", {"text": ["x", "y" * (MAX + 1), "z"], "html": [None, None, "<b>"]})
    assert [getattr(item, "reason", None) for item in _read(path)] == [None, "too_long", None]


def test_batches_are_small_where_rows_are_long(tmp_path):
    long = pq.ParquetFile(_write(tmp_path / "long", {"text": ["a" * 2_000_000] * 4}))
    short = pq.ParquetFile(_write(tmp_path / "short", {"text": ["a"] * 4}))
    assert parquet._batch_rows(long, 0) <= 8
    assert parquet._batch_rows(short, 0) == parquet._BATCH_ROWS


def test_a_remote_file_is_read_and_a_lost_connection_is_no_damage(tmp_path, monkeypatch):
    path = _write(tmp_path / "f", {"text": [KOREAN] * 3})
    memory = fsspec.filesystem("memory")
    memory.pipe("/parquet/f", path.read_bytes())
    address = "memory://parquet/f"
    assert _read(address) == _read(path)

    def fail(self, size=-1):
        raise RuntimeError("connection reset")

    monkeypatch.setattr(type(memory.store["/parquet/f"]), "read", fail)
    with pytest.raises(Unreachable, match="RuntimeError: connection reset") as caught:
        _read(address)
    assert is_passing(caught.value)
    memory.rm("/parquet", recursive=True)
