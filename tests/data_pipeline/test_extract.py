"""Ids, slices and rejects of the extract stage, and what the recipe's settings for reading do to its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.stages import extract, unique_ids
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


def _parquet_bytes(root: Path) -> dict[str, bytes]:
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}
    assert found
    return found


def test_ids_are_unique_over_the_tasks_of_a_source(tmp_path, make_recipe, write_jsonl, runner, read_all):
    for name in ("a", "b"):
        repeated = [{"id": "x", "text": f"{name}{n}"} for n in range(2)]
        write_jsonl(tmp_path / f"in/{name}.jsonl", [*repeated, {"id": "x~2", "text": "own"}, "no id"])
    recipe = make_recipe({"s": {"path": str(tmp_path / "in")}}, extract={"task_bytes": 1})
    counts = extract.build(recipe, tmp_path / "out", tmp_path / "work", runner)
    assert counts["sources"]["s"]["tasks"] == 2
    rows = read_all(tmp_path / "out/documents")
    assert [row["id"] for row in rows] == [
        "s/x",
        "s/x~2",
        "s/x~2~1",
        "s/a.jsonl#3",
        "s/x~3",
        "s/x~4",
        "s/x~2~1~2",
        "s/b.jsonl#3",
    ]
    # A build that was killed after renaming starts again from the same files, and must not rename twice.
    before = _parquet_bytes(tmp_path / "out")
    unique_ids.make(tmp_path / "out/documents", tmp_path / "work/ids", tmp_path / "work", runner)
    assert _parquet_bytes(tmp_path / "out") == before


def test_ids_of_whole_files_are_their_names(tmp_path, make_recipe, runner, read_all):
    for name in ("b/x.txt", "a.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("글")
    recipe = make_recipe({"s": {"path": str(tmp_path / "in"), "format": "text", "domain": "law"}})
    extract.build(recipe, tmp_path / "out", tmp_path / "work", runner)
    rows = read_all(tmp_path / "out/documents")
    assert [(row["id"], row["file"], row["index"], row["domain"], row["license"]) for row in rows] == [
        ("s/a.txt", "a.txt", 0, "law", "CC0-1.0"),
        ("s/b/x.txt", "b/x.txt", 0, "law", "CC0-1.0"),
    ]


@pytest.mark.parametrize("task_bytes", [1, 10**6])
def test_a_slice_is_whole_documents_in_file_order(tmp_path, make_recipe, write_jsonl, runner, read_all, task_bytes):
    for name in ("a", "b"):
        write_jsonl(tmp_path / f"in/{name}.jsonl", ["가나" * 5] * 4)  # 30 bytes each
    source = {"path": str(tmp_path / "in"), "max_bytes": 160}
    recipe = make_recipe({"s": source}, extract={"task_bytes": task_bytes})
    counts = extract.build(recipe, tmp_path / "out", tmp_path / "work", runner)
    assert [row["file"] for row in read_all(tmp_path / "out/documents")] == ["a.jsonl"] * 4 + ["b.jsonl"]
    assert counts["text_bytes"] == 150


def test_rejects_are_named_and_counted(tmp_path, make_recipe, runner):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "ok"}\n{broken\n{"text": ""}\n')
    recipe = make_recipe({"s": {"path": str(tmp_path / "a.jsonl")}})
    counts = extract.build(recipe, tmp_path / "out", tmp_path / "work", runner)
    rejects = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    assert [(r["source"], r["file"], r["index"], r["reason"]) for r in rejects] == [
        ("s", "a.jsonl", 1, "not_json"),
        ("s", "a.jsonl", 2, "empty"),
    ]
    assert counts["sources"]["s"]["rejects"] == {"not_json": 1, "empty": 1}


def test_broken_files_can_stop_the_job(tmp_path, make_recipe, runner):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "ok"}\n{"text": ""}\n{broken\n')
    recipe = make_recipe({"s": {"path": str(tmp_path / "a.jsonl")}}, extract={"broken_files": "stop"})
    with pytest.raises(UserError, match="broken at record 2"):
        extract.build(recipe, tmp_path / "out", tmp_path / "work", runner)


def test_sources_without_documents_are_refused(tmp_path, make_recipe, write_jsonl, runner):
    write_jsonl(tmp_path / "a.jsonl", ["ok"])
    write_jsonl(tmp_path / "b.jsonl", ["", " "])
    (tmp_path / "c.jsonl").touch()
    recipe = make_recipe({name: {"path": str(tmp_path / f"{name}.jsonl")} for name in "abc"})
    with pytest.raises(UserError) as caught:
        extract.build(recipe, tmp_path / "out", tmp_path / "work", runner)
    first, second = caught.value.problems
    assert (first.field, second.field) == ("sources.b", "sources.c")
    assert "2 x empty" in first.problem
    assert "its files are empty" in second.problem
