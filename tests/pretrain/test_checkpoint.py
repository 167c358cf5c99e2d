"""Commit, fallback, refusal and retention of checkpoints, without an engine."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.failing_calls import Once, failing_calls
from pretrain.checkpoints import checkpoint, manifest, training_state
from pretrain.checkpoints.checkpoint import Checkpoints
from pretrain.checkpoints.manifest import State, committed, verified
from pretrain.checkpoints.training_state import SavedTensors
from pretrain.engine.distributed import Ranks
from twofold import files
from twofold.errors import UserError

IDENTITY = {"data": "d", "model": "m"}
STATE = training_state.file_name(0, 1)
ALONE = Ranks(0, 1, torch.device("cpu"))


def _checkpoints(root: Path, identity: dict[str, str] | None = None, keep: int = 2) -> Checkpoints:
    return Checkpoints(root, keep, identity or IDENTITY, ALONE, recipe="name: tiny\n", made_with={"torch": "2"})


def _state(step: int, ends_phase: str | None = None, world_size: int = 1) -> State:
    return State(step, step * 100, step * 1.5, ends_phase, "tokens", world_size, IDENTITY, step, (1,), {"phase": 0})


def _parts(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {kind: {"w": torch.full((4,), value)} for kind in training_state.KINDS}


def _save(root: Path, *steps: int, ends: int = -1, keep: int = 2) -> None:
    for step in steps:
        checkpoints = _checkpoints(root, keep=keep)
        checkpoints.begin(_state(step, "one" if step == ends else None), _parts(step))
        checkpoints.commit()


def _newest(root: Path) -> tuple[int | None, list[str]]:
    warnings: list[str] = []
    found = _checkpoints(root).newest(warnings.append)
    return (found[0].step if found else None), warnings


def test_what_was_saved_is_found(tmp_path: Path) -> None:
    assert _newest(tmp_path) == (None, [])
    _save(tmp_path, 3, 12)
    found = _checkpoints(tmp_path).newest(pytest.fail)
    assert found == (_state(12), tmp_path / "step-00000012")
    with SavedTensors(found[1]) as saved:
        assert saved.read("master", "w", 4).tolist() == [12.0] * 4
    assert (found[1] / "recipe.yaml").read_text() == "name: tiny\n"


def test_skipped_steps_by_their_old_name_are_read(tmp_path: Path) -> None:
    _save(tmp_path, 3)
    manifest = tmp_path / "step-00000003" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"skipped_steps"', '"without_effect"'))
    found = _checkpoints(tmp_path).newest(pytest.fail)
    assert found is not None
    assert found[0].skipped_steps == (1,)


def test_the_newest_before_a_step_is_found_and_later_ones_can_be_dropped(tmp_path: Path) -> None:
    _save(tmp_path, 3, 6, 9, keep=3)
    found = _checkpoints(tmp_path).newest(pytest.fail, upto=8)
    assert found is not None
    assert found[0].step == 6
    _checkpoints(tmp_path).drop_after(6)
    assert [path.name for path in committed(tmp_path)] == ["step-00000003", "step-00000006"]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    write = training_state.write

    def slow(*arguments: Any) -> Path:
        assert release.wait(20)
        return write(*arguments)

    monkeypatch.setattr(training_state, "write", slow)
    checkpoints = _checkpoints(tmp_path)
    checkpoints.begin(_state(3), _parts(3))
    assert checkpoints.pending == _state(3)
    assert not checkpoints.is_written
    assert _newest(tmp_path) == (None, [])
    release.set()
    checkpoints.commit()
    assert checkpoints.pending is None
    assert checkpoints.is_written
    assert _newest(tmp_path) == (3, [])


@pytest.mark.parametrize("kill_at", ["while writing", "before the rename"])
def test_a_kill_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, kill_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path, 3)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    def die_half_way(folder: Path, *_: object) -> None:
        (folder / STATE).write_bytes(b"half")
        raise KeyboardInterrupt

    if kill_at == "while writing":
        monkeypatch.setattr(training_state, "write", die_half_way)
    checkpoints = _checkpoints(tmp_path)
    checkpoints.begin(_state(6), _parts(6))
    if kill_at == "before the rename":
        monkeypatch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.commit()
    while not checkpoints.is_written:
        time.sleep(0.01)
    monkeypatch.undo()
    assert list(tmp_path.glob("*.partial"))
    assert _newest(tmp_path) == (3, [])
    _save(tmp_path, 6)
    assert _newest(tmp_path) == (6, [])
    assert not list(tmp_path.glob("*.partial"))


def _missing(path: Path) -> None:
    (path / STATE).unlink()


def _cut(path: Path) -> None:
    (path / STATE).write_bytes((path / STATE).read_bytes()[:-1])


def _altered(path: Path) -> None:
    data = bytearray((path / STATE).read_bytes())
    data[-1] ^= 1
    (path / STATE).write_bytes(data)


def _broken_manifest(path: Path) -> None:
    (path / "manifest.json").write_text('{"format": 2, "st')


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_missing, f"{STATE} is missing"),
        (_cut, f"{STATE} has "),
        (_altered, f"{STATE} was altered"),
        (_broken_manifest, "manifest.json"),
    ],
)
def test_a_damaged_newest_falls_back_and_says_so(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    _save(tmp_path, 3, 12)
    damage(tmp_path / "step-00000012")
    step, (warning,) = _newest(tmp_path)
    assert step == 3
    assert words in warning
    assert "step-00000012" in warning
    assert (tmp_path / "step-00000012.damaged-1").exists()
    assert _newest(tmp_path) == (3, [])
    _save(tmp_path, 12)
    assert _newest(tmp_path) == (12, [])


def test_no_usable_checkpoint_ends_the_start_every_time(tmp_path: Path) -> None:
    _save(tmp_path, 3, 6)
    _missing(tmp_path / "step-00000006")
    assert _newest(tmp_path)[0] == 3
    _cut(tmp_path / "step-00000003")
    for _ in range(2):
        with pytest.raises(UserError, match=r"step-00000003: is damaged .* none of the 2 checkpoints.*--fresh"):
            _newest(tmp_path)
    (tmp_path / "step-00000003").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"step-00000006.damaged-1: .*set aside.*--fresh"):
        _newest(tmp_path)


def test_a_manifest_of_another_format_is_refused_by_its_number(tmp_path: Path) -> None:
    _save(tmp_path, 3, 6)
    (tmp_path / "step-00000006" / "manifest.json").write_text(
        '{"format": 9, "made_with": {"twofold": "7.1"}, "files": []}'
    )
    with pytest.raises(UserError, match=r"format = 9: is the format .* reads 2 and 3\. Hint: .*wrote it \(7\.1\)"):
        _newest(tmp_path)


def test_a_file_system_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 3, 6)

    monkeypatch.setattr(files, "_FIRST_WAIT_S", 0.0)
    none = Once(errno.EIO, range(0))
    with failing_calls(tmp_path, none):
        assert _newest(tmp_path) == (6, [])
    for call in range(1, none.seen + 1):
        with failing_calls(tmp_path, Once(errno.EIO, range(call, call + 3))):
            assert _newest(tmp_path) == (6, []), f"after a failure of call {call}"
    monkeypatch.setattr(files, "_PATIENCE_S", -1.0)
    for call in range(1, none.seen + 1):
        with failing_calls(tmp_path, Once(errno.EIO, range(call, 10**6))), pytest.raises(OSError, match="Input/output"):
            _newest(tmp_path)
        assert _newest(tmp_path) == (6, [])


def test_folders_that_a_person_made_are_left_alone(tmp_path: Path) -> None:
    _save(tmp_path, 3, 6)
    names = ("step-4-backup", "step-00000007 (copy)", "step-best", "my-step-00000008")
    for name in names:
        shutil.copytree(tmp_path / "step-00000006", tmp_path / name)
    (tmp_path / "step-00000009.partial").mkdir()
    (tmp_path / "step-00000009.partial" / "manifest.json").write_text("{}")
    assert [path.name for path in committed(tmp_path)] == ["step-00000003", "step-00000006"]
    assert _newest(tmp_path) == (6, [])
    _save(tmp_path, 10, 11, 12)
    _checkpoints(tmp_path).drop_after(11)
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000011", *names}


def test_checkpoints_are_in_the_order_of_their_steps_not_of_their_names(tmp_path: Path) -> None:
    _save(tmp_path, 99_999_999, 100_000_000)
    assert _newest(tmp_path)[0] == 100_000_000


def test_retention_neither_counts_nor_removes_what_cannot_be_read(tmp_path: Path) -> None:
    _save(tmp_path, 3, 20)
    _broken_manifest(tmp_path / "step-00000020")
    _save(tmp_path, 4, 5, 6)
    assert [path.name for path in committed(tmp_path)] == ["step-00000005", "step-00000006", "step-00000020"]


class _Threads(Ranks):
    """Ranks that are threads of this process."""

    shared: dict[str, Any]

    def gather(self, value: Any) -> list[Any]:
        self.shared["values"][self.rank] = value
        self.shared["barrier"].wait(20)
        found = list(self.shared["values"])
        self.shared["barrier"].wait(20)
        return found

    def from_first(self, value: Any) -> Any:
        return self.gather(value)[0]


def _on_two_ranks(root: Path, see: Callable[[int, Path], Path]) -> list[Any]:
    """What `newest` gives on each of two ranks; `see`: (rank, folder) -> what the rank sees in its place."""
    shared = {"values": [None, None], "barrier": threading.Barrier(2)}

    def newest(rank: int) -> Any:
        ranks = _Threads(rank, 2, torch.device("cpu"))
        object.__setattr__(ranks, "shared", shared)
        try:
            found = Checkpoints(see(rank, root), 2, IDENTITY, ranks).newest(lambda _: None)
        except Exception as error:
            return error
        return None if found is None else found[0].step

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(newest, range(2)))


def test_a_rank_with_a_stale_listing_takes_the_first_ones_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, link = tmp_path / "a", tmp_path / "seen-by-rank-1"
    _save(root, 3, 6)
    link.symlink_to(root)
    listed = manifest.committed
    monkeypatch.setattr(manifest, "committed", lambda folder: listed(folder)[: 1 if folder == link else 2])
    assert _on_two_ranks(root, lambda rank, _: root if rank == 0 else link) == [6, 6]


def test_what_only_one_rank_misses_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_PATIENCE_S", 0.0)
    _save(tmp_path / "a", 3, 6)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "step-00000006")
    errors = _on_two_ranks(tmp_path / "a", lambda rank, root: root if rank == 0 else tmp_path / "b")
    assert all("rank 1 does not see" in str(error) for error in errors), errors
    assert [path.name for path in committed(tmp_path / "a")] == ["step-00000003", "step-00000006"]
    _save(tmp_path / "b", 6)
    (tmp_path / "b" / "step-00000006" / "manifest.json").write_text("{}")
    errors = _on_two_ranks(tmp_path / "a", lambda rank, root: root if rank == 0 else tmp_path / "b")
    assert all("manifest.json is another one" in str(error) for error in errors), errors


def test_damage_that_the_other_rank_finds_is_set_aside_by_the_first(tmp_path: Path) -> None:
    _save(tmp_path, 3, 6)
    (tmp_path / "step-00000006" / "recipe.yaml").unlink()  # the second file, so the second rank's share
    assert _on_two_ranks(tmp_path, lambda rank, root: root) == [3, 3]
    assert (tmp_path / "step-00000006.damaged-1").exists()


def test_retention_keeps_the_newest_and_the_ends_of_phases(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2, 3, 4, 5, 6, ends=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000005", "step-00000006"]


def test_a_removal_cut_short_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1, 2)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    _save(tmp_path, 3)
    assert (tmp_path / "step-00000001" / "state").exists()
    assert [path.name for path in committed(tmp_path)] == ["step-00000002", "step-00000003"]


def test_another_identity_is_refused_part_by_part(tmp_path: Path) -> None:
    _save(tmp_path, 3)
    with pytest.raises(UserError) as error:
        _checkpoints(tmp_path, {"data": "other", "model": "m"}).newest(pytest.fail)
    (problem,) = error.value.problems
    assert problem.problem == "was trained with data 'd', and this recipe has 'other'"
    assert "--fresh" in problem.hint
    assert "twofold branch" in problem.hint


def test_a_checkpoint_of_other_ranks_is_taken(tmp_path: Path) -> None:
    checkpoints = _checkpoints(tmp_path)
    checkpoints.begin(_state(3, world_size=8), _parts(3))
    checkpoints.commit()
    found = _checkpoints(tmp_path).newest(pytest.fail)
    assert found is not None
    assert found[0].world_size == 8


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 3)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(training_state, "write", full)
    checkpoints = _checkpoints(tmp_path)
    checkpoints.begin(_state(6), _parts(6))
    with pytest.raises(UserError, match="the disk is full"):
        checkpoints.commit()
    assert _newest(tmp_path) == (3, [])
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_a_full_disk_at_the_commit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    checkpoints = _checkpoints(tmp_path)
    checkpoints.begin(_state(6), _parts(6))
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="the disk is full"):
        checkpoints.commit()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_one_is_not_used_by_name(tmp_path: Path) -> None:
    _save(tmp_path, 3)
    assert verified(tmp_path / "step-00000003") == _state(3)
    _altered(tmp_path / "step-00000003")
    with pytest.raises(UserError, match=r"is damaged .* was altered.*name another checkpoint"):
        verified(tmp_path / "step-00000003")


def test_the_manifest_lists_every_file_with_size_and_hash(tmp_path: Path) -> None:
    _save(tmp_path, 3)
    manifest = json.loads((tmp_path / "step-00000003" / "manifest.json").read_text())
    assert {entry["path"] for entry in manifest["files"]} == {STATE, "recipe.yaml"}
    assert all(len(entry["sha256"]) == 64 for entry in manifest["files"])
    assert manifest["made_with"] == {"torch": "2"}
    assert not list((tmp_path / "step-00000003").glob(".part-*"))
