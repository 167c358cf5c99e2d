"""Kept documents are written to all their destinations in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_pipeline import tables
from data_pipeline.stages import extract, write

PHONE = "연락처는 010-1234-5678 이다."


def test_each_document_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["하나", PHONE, "셋", PHONE, "다섯"]
    documents = [
        {**dict.fromkeys(extract.DOCUMENTS.names, "x"), "id": f"s/{n}", "source": "s", "index": n, "text": text}
        for n, text in enumerate(texts)
    ]
    places = [("train", "s"), ("validation", "s"), (None, "s"), ("train", "to-law"), ("train", "s")]
    decisions = [
        {"language": "ko", "personal_information": "masked" if n == 1 else "none", "split": split, "destination": name}
        for n, (split, name) in enumerate(places)
    ]
    tables.write_rows(tables.task_path(tmp_path / "documents", "s", 0), extract.DOCUMENTS, documents)
    table = pa.Table.from_pylist(decisions)
    tables.write_table(tables.task_path(tmp_path / "decisions", "a", 0), table.slice(0, 0))
    tables.write_table(tables.task_path(tmp_path / "decisions", "s", 0), table)

    read: list[Path] = []
    row_groups = tables.row_groups

    def counted(path: Path, columns: Any = None) -> Iterator[pa.Table]:
        read.append(path)
        return row_groups(path, columns)

    monkeypatch.setattr(tables, "row_groups", counted)
    domains = {"s": "general", "to-law": "law"}
    decided = tuple(tables.task_files(tmp_path / "decisions"))
    write._Write(domains, tmp_path / "documents", decided, tmp_path / "kept")(1, 2)
    assert read == [tables.task_path(tmp_path / "documents", "s", 0)]
    monkeypatch.undo()
    kept = {
        path.relative_to(tmp_path / "kept").as_posix(): [
            (row["id"], row["domain"], row["text"]) for row in tables.read_rows(path)
        ]
        for path in (tmp_path / "kept").rglob("*.parquet")
    }
    assert {file: [row[:2] for row in rows] for file, rows in kept.items()} == {
        "train/s/00000.parquet": [("s/0", "general"), ("s/4", "general")],
        "validation/s/00000.parquet": [("s/1", "general")],
        "train/to-law/00001.parquet": [("s/3", "law")],
    }
    assert "5678" not in kept["validation/s/00000.parquet"][0][2]
    assert kept["train/to-law/00001.parquet"][0][2] == PHONE
