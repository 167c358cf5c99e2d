"""When a training is started again: real processes that end as they are told, in the trainer's place."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.recipe import load_recipe
from launch import training
from launch.outcomes import Interrupted, TrainingFailed
from pretrain import layout
from tests.launch.conftest import SMOKE
from twofold.errors import UserError
from twofold.exit_codes import EXIT_CODE_STALLED, EXIT_CODE_STOPPED

TRAINER = f"""
import json, os, pathlib, sys
out = pathlib.Path(sys.argv[1])
starts = len(list(out.glob("began-*")))
(out / f"began-{{starts}}").touch()
end = os.environ["ENDS"].split(",")[starts]
if "c" in end:
    saved = out / "{layout.CHECKPOINTS_DIR}" / f"step-{{starts + 1:08d}}"
    saved.mkdir(parents=True)
    (saved / "manifest.json").touch()
if "u" in end:
    problem = {{"field": "data", "value": 3, "problem": "is wrong", "hint": "fix it"}}
    (out / "{layout.ERROR_FILE}").write_text(json.dumps({{"problems": [problem]}}))
if "d" in end:
    (out / "{layout.SUMMARY_FILE}").write_text('{{"steps": 9}}')
print("the log of start", starts, flush=True)
sys.exit(int(end.strip("cud")))
"""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train as `ends` says; (what `build` returned or raised, number of starts)."""
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(training.command_lines, "start_command", lambda *_: [sys.executable, str(script), str(out)])
    monkeypatch.setattr(training, "check_supply", lambda *_: None)
    here = SimpleNamespace(path=tmp_path)

    def train(ends: str, *overrides: str) -> tuple[Any, int]:
        monkeypatch.setenv("ENDS", ends)
        recipe = load_recipe(SMOKE, ["launch.device=cpu", *overrides])
        try:
            found: Any = training.train(recipe, here, here, out)  # type: ignore[arg-type]
        except (UserError, Interrupted, TrainingFailed) as error:
            found = error
        return found, len(list(out.glob("began-*")))

    return train


STALLED, STOPPED = EXIT_CODE_STALLED, EXIT_CODE_STOPPED


@pytest.mark.parametrize(
    ("ends", "restarts", "starts", "outcome"),
    [
        ("0d", 0, 1, dict),
        (f"{STALLED}", 0, 1, TrainingFailed),
        (f"{STALLED},1,0d", 2, 3, dict),
        (f"{STALLED},1,-9,0d", 2, 3, TrainingFailed),
        # Each checkpoint in between begins the count anew.
        ("1c,1c,1c,1c,0d", 1, 5, dict),
        ("1c,1,1,0d", 1, 2, TrainingFailed),
        ("2u,0d", 5, 1, UserError),
        (f"1,{STOPPED}", 5, 2, Interrupted),
        # An end that claims success but left no summary is none.
        ("0,0d", 1, 2, dict),
    ],
)
def test_what_is_started_again(trained: Any, ends: str, restarts: int, starts: int, outcome: type) -> None:
    found, number = trained(ends, f"launch.restarts={restarts}")
    assert isinstance(found, outcome), found
    assert number == starts
    if outcome is dict:
        assert found == {"steps": 9}
    if outcome is TrainingFailed:
        assert f"the log of start {starts - 1}" in str(found)
    if outcome is UserError:
        assert "data = 3: is wrong" in str(found)


def test_checkpoints_that_will_not_fit_are_warned_of(
    trained: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained("0d")
    assert "the checkpoints to come" not in capsys.readouterr().out
    monkeypatch.setattr(training.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    trained("-,0d")
    assert "MB, and " in capsys.readouterr().out.partition("the checkpoints to come need ")[2]


def test_a_host_that_is_gone_is_left_out_or_named(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text('#!/bin/bash\n[[ "$*" != *gone* ]]\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("here slots=2\ngone slots=2\n")
    told = (f"launch.hostfile={hostfile}", "launch.nodes=2", "launch.restarts=1")
    found, starts = trained("1,0d", *told)
    assert isinstance(found, UserError)
    assert "training, hosts = 'gone': do not answer, and the 1 left are too few" in str(found)
    assert starts == 1
    found, starts = trained("-,1,0d", *told, "launch.min_nodes=1")
    assert found == {"steps": 9}
    assert "restart 1 of 1, on 1 of 2 nodes" in capsys.readouterr().out
    assert (tmp_path / "out" / "hostfile").read_text() == "here slots=2\n"


def test_a_launcher_whose_ranks_are_silent_is_given_up(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_SILENT_LAUNCHER", -1e6)
    found, _ = trained("0d", "watch.stall_s=60")
    assert isinstance(found, TrainingFailed)
    assert "exit code -9" in str(found)


def test_ranks_that_removed_their_beats_at_the_end_are_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the training was: only the time since the last beat counts."""
    now = 1e9
    monkeypatch.setattr(training, "time", SimpleNamespace(time=lambda: now))
    recipe = load_recipe(SMOKE, ["launch.device=cpu"])
    limit = training._SILENT_LAUNCHER * recipe.watch.stall_s + 60
    with training._started(recipe, [sys.executable, "-c", "input()"], tmp_path) as (_, hangs):
        now += 10 * limit
        beat = tmp_path / layout.BEATS_DIR / "rank-00000.json"
        beat.parent.mkdir()
        beat.touch()
        os.utime(beat, (now, now))
        assert not hangs()
        shutil.rmtree(beat.parent)
        now += limit - 1
        assert not hangs()
        now += 2
        assert hangs()


def test_a_hang_up_asks_the_ranks_to_save(tmp_path: Path) -> None:
    with training._signals_passed_on(tmp_path):
        assert not (tmp_path / layout.STOP_FILE).exists()
        signal.raise_signal(signal.SIGHUP)
        assert (tmp_path / layout.STOP_FILE).exists()


def test_under_nohup_a_hang_up_is_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with training._signals_passed_on(tmp_path):
            signal.raise_signal(signal.SIGHUP)
            assert not (tmp_path / layout.STOP_FILE).exists()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ranks_of_an_earlier_start_are_not_joined_by_others(trained: Any, tmp_path: Path) -> None:
    with (tmp_path / "out" / layout.TRAINER_LEASE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found, starts = trained("0d")
    assert isinstance(found, UserError)
    assert "ranks of an earlier start" in str(found)
    assert starts == 0
