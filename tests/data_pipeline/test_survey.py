"""A folder of documents: its sources, formats, fields, languages and sizes, whatever lies in it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.readers.survey import Found, survey

ENGLISH = "The harbour lies quiet in the morning, and the boats have not yet left for the open sea. " * 4
KOREAN = "아침 항구는 조용하고 배들은 아직 먼바다로 떠나지 않았다. 갈매기만 부두 위를 천천히 맴돌고 있다. " * 4


def found(root: Path) -> dict[str, Found]:
    return {one.name: one for one in survey(root).found}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def lines(*records: object) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def test_each_folder_of_documents_is_a_source(tmp_path: Path) -> None:
    write(tmp_path / "README.md", "about these folders")
    write(tmp_path / "law" / "a.jsonl", lines(*({"content": KOREAN, "_id": str(n)} for n in range(5))))
    write(tmp_path / "web" / "site" / "index.html", f"<p>{ENGLISH}</p>")
    write(tmp_path / "web" / "site" / "deep" / "page.html", f"<p>{ENGLISH}</p>")
    write(tmp_path / "tools" / "run.py", "def run():\n    return 1\n")
    sources = found(tmp_path)
    assert sorted(sources) == ["law", "site", "tools"]
    law = sources["law"]
    assert (law.format, law.domain, law.text_field, law.id_field) == ("jsonl", "law", "content", "_id")
    assert law.languages == {"ko": 5}
    assert (sources["site"].format, sources["site"].files) == ("html", 2)
    assert (sources["tools"].format, sources["tools"].kind, sources["tools"].domain) == ("text", "code", "code")


def test_only_names_that_describe_a_folder_are_left_out_and_they_are_counted(tmp_path: Path) -> None:
    for name in ("README.md", "LICENSE.txt", "Notice 2024-01.txt", "License to Kill, a review.txt"):
        write(tmp_path / name, ENGLISH)
    for number in range(60):
        write(tmp_path / "novels" / f"{number}.txt", ENGLISH)
    seen = survey(tmp_path)
    assert sum(one.files for one in seen.found) == 62
    assert seen.passed_over["describes the folders beside it"].files == 2


def test_formats_in_one_folder_are_sources_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", ENGLISH)
    write(tmp_path / "b.jsonl", lines({"text": KOREAN}))
    pq.write_table(pa.table({"body": [ENGLISH], "license": ["MIT"]}), tmp_path / "c.parquet")
    sources = {one.format: one for one in survey(tmp_path).found}
    assert sorted(sources) == ["jsonl", "parquet", "text"]
    assert len({one.name for one in sources.values()}) == 3
    assert (sources["parquet"].text_field, sources["parquet"].license) == ("body", "MIT")


def test_json_beside_a_text_file_holds_records(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        write(tmp_path / name, json.dumps([{"text": ENGLISH}], indent=1))
    write(tmp_path / "about.txt", ENGLISH)
    assert {one.format: one.files for one in survey(tmp_path).found} == {"jsonl": 2, "text": 1}


def test_a_site_of_many_folders_is_one_source(tmp_path: Path) -> None:
    for number in range(60):
        write(tmp_path / "site" / str(number) / "page.html", f"<p>{ENGLISH}</p>")
    write(tmp_path / "books" / "a.txt", ENGLISH)
    assert {name: one.files for name, one in found(tmp_path).items()} == {"books": 1, "site": 60}


def test_a_page_in_records_needs_no_text_field(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", lines({"html": f"<p>{ENGLISH}</p>", "url": "https://example.org/", "note": "x"}))
    (one,) = survey(tmp_path).found
    assert (one.text_field, one.languages) == ("text", {"en": 1})


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.warc.gz", "a.html", "a.txt", "a.jsonl.gz"])
def test_broken_files_raise_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08\x00\xff" + bytes(range(256)) * 40)
    assert len(survey(tmp_path).found) == 1


def test_labels_and_benchmarks_are_recognized(tmp_path: Path) -> None:
    write(tmp_path / "spam" / "a.jsonl", lines({"text": ENGLISH, "label": "ham"}))
    write(tmp_path / "benchmarks" / "quiz" / "a.jsonl", lines({"text": ENGLISH}))
    sources = found(tmp_path)
    assert (sources["spam"].labelled, sources["spam"].benchmark) == (True, False)
    assert (sources["quiz"].labelled, sources["quiz"].benchmark) == (False, True)


def test_text_is_estimated_from_whole_files_and_from_compressed_size(tmp_path: Path) -> None:
    write(tmp_path / "plain" / "a.txt", ENGLISH)
    (tmp_path / "packed").mkdir()
    many = lines(*({"text": ENGLISH} for _ in range(1_000)))
    (tmp_path / "packed" / "a.jsonl.gz").write_bytes(gzip.compress(many.encode()))
    sources = found(tmp_path)
    assert sources["plain"].text_bytes == pytest.approx(len(ENGLISH), rel=0.01)
    assert sources["packed"].text_bytes > sources["packed"].raw_bytes


def test_other_files_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", ENGLISH)
    write(tmp_path / "scan.tiff", "II*")
    assert [(reason, tally.files) for reason, tally in survey(tmp_path).passed_over.items()] == [("another ending", 1)]
    assert survey(tmp_path / "a.txt").found[0].name == "a-txt"
