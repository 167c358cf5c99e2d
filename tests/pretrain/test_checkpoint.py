"""Commit, fallback, refusal and retention of checkpoints, without an engine."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from configs.errors import UserError
from pretrain.checkpoint import Checkpoints, State
from pretrain.ranks import Ranks

IDENTITY = {"data": "d", "model": "m"}
ALONE = Ranks(0, 1, torch.device("cpu"))


def _checkpoints(root: Path, identity: dict[str, str] | None = None, keep: int = 2) -> Checkpoints:
    return Checkpoints(root, keep, identity or IDENTITY, ALONE)


def _state(step: int, ends_phase: str | None = None, world_size: int = 1) -> State:
    return State(step, step * 100, step * 1.5, ends_phase, world_size, IDENTITY)


def _writer(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "state").mkdir()
        (folder / "state" / "rank-0").write_text(text)
        (folder / "state" / "rank-1").write_text(text * 2)

    return write


def _save(root: Path, *steps: int, ends: int = -1, keep: int = 2) -> None:
    for step in steps:
        _checkpoints(root, keep=keep).save(_state(step, "one" if step == ends else None), _writer(f"s{step}"))


def _newest(root: Path) -> tuple[int | None, list[str]]:
    warnings: list[str] = []
    found = _checkpoints(root).newest(warnings.append)
    return (found[0].step if found else None), warnings


def test_what_was_saved_is_found(tmp_path: Path) -> None:
    assert _newest(tmp_path) == (None, [])
    _save(tmp_path, 3, 12)
    found = _checkpoints(tmp_path).newest(pytest.fail)
    assert found == (_state(12), tmp_path / "step-00000012")
    assert (found[1] / "state" / "rank-0").read_text() == "s12"


@pytest.mark.parametrize("kill_at", ["while writing", "before the rename"])
def test_a_kill_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, kill_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path, 3)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    write = _writer("x")
    if kill_at == "while writing":
        write = die
    else:
        monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        _checkpoints(tmp_path).save(_state(6), write)
    monkeypatch.undo()
    assert _newest(tmp_path) == (3, [])
    _save(tmp_path, 6)
    assert _newest(tmp_path) == (6, [])
    assert not list(tmp_path.glob("*.partial"))


def _missing(path: Path) -> None:
    (path / "state" / "rank-1").unlink()


def _cut(path: Path) -> None:
    (path / "state" / "rank-0").write_text("s")


def _altered(path: Path) -> None:
    (path / "state" / "rank-0").write_text("s13")


def _broken_manifest(path: Path) -> None:
    (path / "manifest.json").write_text('{"format": 1, "st')


def _foreign_manifest(path: Path) -> None:
    (path / "manifest.json").write_text('{"format": 2, "files": []}')


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_missing, "state/rank-1 is missing"),
        (_cut, "state/rank-0 has 1 bytes instead of 3"),
        (_altered, "state/rank-0 was altered"),
        (_broken_manifest, "manifest.json"),
        (_foreign_manifest, "is of another format"),
    ],
)
def test_a_damaged_newest_falls_back_and_says_so(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    _save(tmp_path, 3, 12)
    damage(tmp_path / "step-00000012")
    step, (warning,) = _newest(tmp_path)
    assert step == 3
    assert words in warning
    assert "step-00000012" in warning
    _save(tmp_path, 12)
    assert _newest(tmp_path) == (12, [])


def test_all_damaged_is_as_none(tmp_path: Path) -> None:
    _save(tmp_path, 3)
    _missing(tmp_path / "step-00000003")
    step, warnings = _newest(tmp_path)
    assert step is None
    assert len(warnings) == 1


def test_retention_keeps_the_newest_and_the_ends_of_phases(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2, 3, 4, 5, 6, ends=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000005", "step-00000006"]


def test_a_removal_cut_short_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1, 2)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    _save(tmp_path, 3)
    assert (tmp_path / "step-00000001" / "state").exists()
    _missing(tmp_path / "step-00000003")
    _missing(tmp_path / "step-00000002")
    assert _newest(tmp_path)[0] is None


def test_another_identity_is_refused_part_by_part(tmp_path: Path) -> None:
    _save(tmp_path, 3)
    with pytest.raises(UserError) as error:
        _checkpoints(tmp_path, {"data": "other", "model": "m"}).newest(pytest.fail)
    (problem,) = error.value.problems
    assert problem.problem == "differs from this run in its data"
    assert problem.mend == "restore the data it was trained with, or train in another run_dir"


def test_another_number_of_ranks_is_refused_with_the_mend(tmp_path: Path) -> None:
    _checkpoints(tmp_path).save(_state(3, world_size=8), _writer("x"))
    with pytest.raises(UserError, match=r"saved by 8 ranks, and 1 are running.*resume with 8 ranks"):
        _checkpoints(tmp_path).newest(pytest.fail)


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    _save(tmp_path, 3)

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(UserError, match="the disk is full"):
        _checkpoints(tmp_path).save(_state(6), full)
    assert _newest(tmp_path) == (3, [])
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_the_manifest_lists_every_file_with_size_and_hash(tmp_path: Path) -> None:
    _save(tmp_path, 3)
    manifest = json.loads((tmp_path / "step-00000003" / "manifest.json").read_text())
    assert {entry["path"]: entry["bytes"] for entry in manifest["files"]} == {"state/rank-0": 2, "state/rank-1": 4}
    assert all(len(entry["sha256"]) == 64 for entry in manifest["files"])
    assert not list((tmp_path / "step-00000003").glob(".files-*"))
