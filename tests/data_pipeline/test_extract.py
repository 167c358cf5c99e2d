"""What the recipe's settings for reading do to the extracted rows."""

from __future__ import annotations

import json
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.stages import extract
from twofold.errors import UserError

KOREAN = "가을 하늘은 높고 푸르다. 아이들은 운동장에서 공을 차며 논다."


@pytest.fixture
def extracted(tmp_path, make_recipe, runner, read_all):
    """`extracted(source, **extract settings)`: (rows, rejects, counts) of one source named `s`."""

    def run(source: dict[str, Any], **settings: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Any]:
        out = tmp_path / "out"
        counts = extract.build(make_recipe({"s": source}, extract=settings), out, tmp_path / "work", runner)
        rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text(encoding="utf-8").splitlines()]
        return read_all(out / "documents"), rejects, counts

    return run


def test_parquet_rows_become_documents_with_their_own_licence(tmp_path, extracted):
    columns = {"body": [KOREAN, None, "셋째"], "key": [5, 6, 5], "license": ["MIT", None, None]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"no Parquet")
    source = {"path": str(tmp_path), "format": "parquet", "text_field": "body", "id_field": "key"}
    rows, rejects, counts = extracted(source)
    assert [(row["id"], row["license"], row["index"], row["text"]) for row in rows] == [
        ("s/5", "MIT", 0, KOREAN),
        ("s/5~2", "CC0-1.0", 2, "셋째"),
    ]
    assert [(reject["file"], reject["index"], reject["reason"]) for reject in rejects] == [
        ("a.parquet", 1, "no_text_field"),
        ("b.parquet", 0, "broken_parquet"),
    ]
    assert counts["sources"]["s"]["rejects"] == {"no_text_field": 1, "broken_parquet": 1}


def test_a_broken_parquet_file_stops_the_job_where_the_recipe_says_so(tmp_path, extracted):
    (tmp_path / "a.parquet").write_bytes(b"no Parquet")
    with pytest.raises(UserError, match=r"a\.parquet.*broken_parquet"):
        extracted({"path": str(tmp_path), "format": "parquet"}, broken_files="stop")


def test_a_remote_source_gives_the_rows_of_a_local_one(tmp_path, extracted):
    data = "".join(json.dumps({"text": f"{n} {KOREAN}"}) + "\n" for n in range(5)).encode()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_bytes(data)
    memory = fsspec.filesystem("memory")
    memory.pipe("/extract/a.jsonl", data)
    local = extracted({"path": str(tmp_path / "in")})
    remote = extracted({"path": "memory://extract"})
    memory.rm("/extract", recursive=True)
    assert remote == local
    assert len(remote[0]) == 5


def test_the_extractor_and_the_unicode_form_are_the_recipes(tmp_path, extracted):
    article = f"<article><p>{KOREAN * 4}</p><p>Ｗｉｄｅ {KOREAN * 4}</p></article>"
    (tmp_path / "a.html").write_text(f"<html><body>{article}</body></html>", encoding="utf-8")
    source = {"path": str(tmp_path), "format": "html"}
    (fast,), _, _ = extracted(source)
    (good,), _, _ = extracted(source, html="trafilatura", unicode="NFKC")
    assert "\n\nＷｉｄｅ" in fast["text"]
    assert "\nWide" in good["text"]
    assert "\n\n" not in good["text"]


def test_what_decides_the_rows_decides_the_identity(make_recipe):
    source = {"path": "x"}
    base = extract.config(make_recipe({"s": source}))
    changes = [
        make_recipe({"s": {**source, "text_field": "body"}}),
        make_recipe({"s": {**source, "id_field": "key"}}),
        *(make_recipe({"s": source}, extract=setting) for setting in ({"html": "trafilatura"}, {"unicode": "NFKC"})),
    ]
    assert all(extract.config(recipe) != base for recipe in changes)
    assert extract.config(make_recipe({"s": source}, extract={"fingerprint": "stat"})) == base
