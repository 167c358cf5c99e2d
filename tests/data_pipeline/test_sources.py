"""Which files a source has, and how they are known again and cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configs.errors import UserError
from data_pipeline.reading import sources


def _touch(path: Path, size: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def test_folder_lists_matching_files_sorted(tmp_path, make_recipe):
    for name in ("b/2.jsonl.zst", "b/1.jsonl", "a.jsonl.gz", "note.txt", ".hidden.jsonl", ".git/x.jsonl", "UP.JSONL"):
        _touch(tmp_path / name)
    files = sources.list_files(make_recipe({"s": {"path": str(tmp_path)}}))["s"]
    assert [file.relative for file in files] == ["UP.JSONL", "a.jsonl.gz", "b/1.jsonl", "b/2.jsonl.zst"]


def test_single_file_may_have_any_ending(tmp_path, make_recipe):
    _touch(tmp_path / "data.bin", 5)
    files = sources.list_files(make_recipe({"s": {"path": str(tmp_path / "data.bin")}}))["s"]
    assert [(file.relative, file.bytes) for file in files] == [("data.bin", 5)]


def test_missing_and_empty_sources_are_named_together(tmp_path, make_recipe):
    (tmp_path / "empty").mkdir()
    recipe = make_recipe({"gone": {"path": str(tmp_path / "gone")}, "bare": {"path": str(tmp_path / "empty")}})
    with pytest.raises(UserError) as caught:
        sources.list_files(recipe)
    assert [problem.field for problem in caught.value.problems] == ["sources.gone.path", "sources.bare.path"]
    assert "does not exist" in str(caught.value)
    assert "holds no jsonl file" in str(caught.value)


def test_unreadable_file_is_refused_before_any_work(tmp_path, make_recipe, monkeypatch):
    _touch(tmp_path / "a.jsonl")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything, so permissions are faked
    with pytest.raises(UserError, match="cannot be read"):
        sources.list_files(make_recipe({"s": {"path": str(tmp_path)}}))


def test_unlistable_folder_is_refused(tmp_path, make_recipe, monkeypatch):
    def walk(top, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", str(top)))
        return iter(())

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(UserError, match="cannot be listed"):
        sources.list_files(make_recipe({"s": {"path": str(tmp_path)}}))


def test_fingerprint_follows_content_and_names_but_not_place(tmp_path, make_recipe):
    for root in ("one", "two"):
        _touch(tmp_path / root / "a.jsonl", 3)
    recipes = [make_recipe({"s": {"path": str(tmp_path / root)}}) for root in ("one", "two")]
    first, second = (sources.fingerprints(recipe)["s"] for recipe in recipes)
    assert first == second
    (tmp_path / "two" / "a.jsonl").write_bytes(b"yyy")
    assert sources.fingerprints(recipes[1])["s"] != first
    (tmp_path / "one" / "a.jsonl").rename(tmp_path / "one" / "b.jsonl")
    assert sources.fingerprints(recipes[0])["s"] != first


def test_stat_fingerprint_follows_modification_time(tmp_path, make_recipe):
    _touch(tmp_path / "a.jsonl")
    recipe = make_recipe({"s": {"path": str(tmp_path)}}, extract={"fingerprint": "stat"})
    before = sources.fingerprints(recipe)
    os.utime(tmp_path / "a.jsonl", ns=(1, 1))
    assert sources.fingerprints(recipe) != before


def test_fingerprint_of_a_file_that_vanishes(tmp_path, make_recipe, monkeypatch):
    _touch(tmp_path / "a.jsonl")

    def vanished(path):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(sources, "sha256_of", vanished)
    with pytest.raises(UserError, match="No such file"):
        sources.fingerprints(make_recipe({"s": {"path": str(tmp_path)}}))


def test_plan_cuts_whole_files_and_keeps_capped_sources_in_one_task(tmp_path, make_recipe):
    for number in range(5):
        _touch(tmp_path / f"{number}.jsonl", 40)
    source = {"path": str(tmp_path)}
    recipe = make_recipe({"s": source, "capped": {**source, "max_bytes": 10}}, extract={"task_bytes": 100})
    shares = sources.plan(recipe)
    assert [(share.source, share.number, len(share.files)) for share in shares] == [
        ("s", 0, 2), ("s", 1, 2), ("s", 2, 1), ("capped", 0, 5),
    ]  # fmt: skip
