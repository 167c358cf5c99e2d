"""Texts of `--text` get a language and a domain, and files that cannot be read are named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launch.actions.labelled_texts import read_texts
from tokenizer.evaluation.compression import LabelledText
from twofold.errors import UserError


def test_every_kind_of_file_is_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "law").mkdir()
    (tmp_path / "law" / "a.txt").write_text("제1조(목적) harbour")
    (tmp_path / "law" / "b.md").write_text("the harbour 항구")
    (tmp_path / "law" / "c.py").write_text("# 항구")
    rows = [{"text": "하나", "language": "ko", "domain": "news"}, {"text": "two", "lang": "ko"}, {"text": "셋"}]
    (tmp_path / "law" / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "law" / "e.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": "四"}).encode()))
    pq.write_table(pa.table({"text": ["five"], "language": ["en"], "domain": ["math"]}), tmp_path / "law" / "f.parquet")
    assert list(read_texts(tmp_path)) == [
        LabelledText("ko", "law", "제1조(목적) harbour"),
        LabelledText("en", "law", "the harbour 항구"),
        LabelledText("code", "law", "# 항구"),
        LabelledText("ko", "news", "하나"),
        LabelledText("ko", "law", "two"),
        LabelledText("ko", "law", "셋"),
        LabelledText("en", "law", "四"),
        LabelledText("en", "math", "five"),
    ]
    assert list(read_texts(tmp_path / "law" / "a.txt")) == [LabelledText("ko", "law", "제1조(목적) harbour")]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", b"ab\xff", "a.txt: is not UTF-8 at byte 2"),
        ("a.jsonl", b'{"text": "x"}\n{"text"', "a.jsonl: has no JSON object in line 2"),
        ("a.jsonl", b"[1]\n", "a.jsonl: has no JSON object in line 1"),
        ("a.jsonl", b'{"body": "x"}\n', "a.jsonl: has a record without `text`"),
        ("a.parquet", b"PAR1", "a.parquet: cannot be read"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=problem):
        list(read_texts(tmp_path))


def test_a_place_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--text = .*holds no file"):
        list(read_texts(tmp_path))
    with pytest.raises(UserError, match=r"--text = .*does not exist"):
        list(read_texts(tmp_path / "absent"))
