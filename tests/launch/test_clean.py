"""`twofold clean` removes what nobody misses, and no training unasked."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from configs.recipe import load_recipe
from launch.actions.clean import clean
from tests.launch.conftest import SMOKE
from twofold.errors import UserError

TRAININGS = ("replaced-1-train-aaa", "train-bbb", "train-ccc.partial")
OTHERS = ("filter-ddd", "score-eee.partial")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    for name in (*TRAININGS, *OTHERS):
        folder = tmp_path / "artifacts" / name
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    return tmp_path


def _clean(run_dir: Path, yes: bool = False, trainings: bool = False) -> str:
    output = io.StringIO()
    clean(load_recipe(SMOKE, [f"run_dir={run_dir}"]), yes, trainings, Console(file=output, width=200))
    return output.getvalue()


def _left(run_dir: Path) -> set[str]:
    return {path.name for path in (run_dir / "artifacts").iterdir()}


def test_nothing_is_removed_without_yes(run_dir: Path) -> None:
    told = _clean(run_dir)
    assert "2 unused; `--yes` removes them" in told
    assert "3 trainings of other recipes are kept" in told
    assert "train-" not in told
    assert _left(run_dir) == {*TRAININGS, *OTHERS}


def test_yes_leaves_trainings(run_dir: Path) -> None:
    _clean(run_dir, yes=True)
    assert _left(run_dir) == set(TRAININGS)


@pytest.mark.parametrize(("answer", "left"), [("y\n", set(TRAININGS)), ("", set(TRAININGS)), ("remove 3\n", set())])
def test_trainings_are_removed_by_their_own_answer_only(
    run_dir: Path, answer: str, left: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    told = _clean(run_dir, yes=True, trainings=True)
    assert all(name in told for name in TRAININGS)
    assert _left(run_dir) == left


def test_trainings_are_listed_without_a_question(run_dir: Path) -> None:
    assert "3 trainings of other recipes, kept" in _clean(run_dir, trainings=True)
    assert _left(run_dir) == {*TRAININGS, *OTHERS}


def test_a_missing_run_folder_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        _clean(tmp_path / "none")
    assert not (tmp_path / "none").exists()
