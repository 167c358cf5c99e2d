"""`twofold init` writes a recipe that is valid, says what was guessed, and loses nothing in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.recipe import load_recipe
from data_pipeline.readers import sources
from launch.cli import main
from tests.data_pipeline.test_survey import ENGLISH, KOREAN, lines, write


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    root = tmp_path / "documents"
    write(root / "news" / "a.jsonl", lines(*({"body": KOREAN + str(n), "id": n} for n in range(2_000))))
    write(root / "court" / "a.txt", ENGLISH * 2_400)
    write(root / "benchmarks" / "quiz.jsonl", lines({"text": ENGLISH}))
    write(root / "spam" / "a.jsonl", lines({"text": ENGLISH, "label": "ham"}))
    write(root / "broken" / "a.jsonl", lines({"title": 3, "n": 4}))
    write(root / "news" / "scan.tiff", "II*")
    return root


def test_the_recipe_is_valid_and_finds_its_documents_from_any_folder(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "My Run"), "--from", str(documents)]) == 0
    out = capsys.readouterr().out
    monkeypatch.chdir("/")
    recipe = load_recipe(tmp_path / "My Run" / "recipe.yaml")
    assert recipe.name == "my-run"
    assert Path(recipe.run_dir) == tmp_path / "My Run" / "run"
    assert sorted(recipe.sources) == ["court", "news"]
    assert (recipe.sources["news"].text_field, recipe.sources["court"].domain) == ("body", "law")
    assert all(sources.exists(source) for source in recipe.sources.values())
    assert [(phase.name, sorted(phase.mixture)) for phase in recipe.phases] == [
        ("general", ["news"]),
        ("domain", ["court", "news"]),
    ]
    assert recipe.data.decontamination is not None
    for left_out in ("spam", "broken", "title, n", "scan.tiff"):
        assert left_out in out.split("left out", 1)[1], left_out
        assert left_out in (tmp_path / "My Run" / "recipe.yaml").read_text(), left_out
    assert "license of court, news" in out or "license of news, court" in out
    schema = json.loads((tmp_path / "My Run" / "recipe.schema.json").read_text())
    assert schema["properties"]["sources"]["description"]


def test_documents_beside_the_recipe_move_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine" / "texts" / "a.txt", ENGLISH)
    assert main(["init", str(tmp_path / "mine")]) == 0
    (tmp_path / "mine").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    recipe = load_recipe(tmp_path / "moved" / "recipe.yaml")
    assert sources.exists(recipe.sources["texts"])
    assert not recipe.phases, "three sentences are too little to train on"


def test_a_recipe_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.txt", ENGLISH)
    write(tmp_path / "recipe.yaml", "name: mine\n")
    assert main(["init", str(tmp_path)]) == 2
    assert "exists already. Hint: name another folder" in capsys.readouterr().err
    assert (tmp_path / "recipe.yaml").read_text() == "name: mine\n"


def test_folders_without_documents_are_refused_with_what_they_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "r"), "--from", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    write(tmp_path / "scans" / "a.tiff", "II*")
    assert main(["init", str(tmp_path / "r"), "--from", str(tmp_path / "scans")]) == 2
    assert "gives no documents (1 file, 3 B: another ending, such as a.tiff). Hint: " in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
