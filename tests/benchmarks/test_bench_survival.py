"""The survival benchmark: its faults are pure functions of the seed, act where they say, and its judge can fail."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import survival
from benchmarks.failing_calls import CALLS, failing_calls
from benchmarks.survival_faults import KINDS, Actor, Fault, damage, draw
from tests.conftest import ROOT

COUNTS = {name: dict.fromkeys(CALLS, 100) for name in ("pipeline/run", "trainer/run", "trainer/rank")}
FAULT = Fault(0, "trainer", "failure", "rank", 2, ("read",), "ESTALE", 0.5)


def test_faults_are_pure_and_of_every_kind() -> None:
    faults = [draw(1, index, COUNTS) for index in range(300)]
    assert faults == [draw(1, index, COUNTS) for index in range(300)]
    assert faults != [draw(2, index, COUNTS) for index in range(300)]
    assert {fault.kind for fault in faults} == set(KINDS)
    assert {(fault.subject, fault.role) for fault in faults} == {
        ("pipeline", "run"), ("trainer", "run"), ("trainer", "rank"),
    }  # fmt: skip


def _read(path: Path, times: int) -> list[str]:
    found = []
    for _ in range(times):
        try:
            found.append(path.read_text())
        except OSError as error:
            found.append(errno.errorcode[error.errno or 0])
    return found


@pytest.mark.parametrize(
    ("fault", "read"),
    [
        (FAULT, ["a", *["ESTALE"] * 3, "a", "a"]),
        (replace(FAULT, kind="outage"), ["a", *["ESTALE"] * 5]),
        (replace(FAULT, role="run"), ["a"] * 6),
    ],
)
def test_a_fault_acts_at_its_call_of_its_process(tmp_path: Path, fault: Fault, read: list[str]) -> None:
    root, state = tmp_path / "root", tmp_path / "state"
    root.mkdir()
    state.mkdir()
    (root / "a").write_text("a")
    actor = Actor(fault, "rank", state, lambda: None)
    with failing_calls(root, actor):
        assert _read(root / "a", 6) == read
    assert actor.counts["read"] == 6
    assert (state / "acted").exists() == ("ESTALE" in read)
    (state / "cured").touch()
    with failing_calls(root, Actor(fault, "rank", state, lambda: None)):
        assert _read(root / "a", 3) == ["a"] * 3


def test_a_torn_listing_lacks_a_name_once(tmp_path: Path) -> None:
    root, state = tmp_path / "root", tmp_path / "state"
    for path in (state, root / "a", root / "b"):
        path.mkdir(parents=True)
    fault = replace(FAULT, kind="torn listing", calls=("listdir",), call=1)
    with failing_calls(root, Actor(fault, "rank", state, lambda: None)):
        assert [len(os.listdir(root)) for _ in range(3)] == [1, 2, 2]


@pytest.mark.parametrize(("how", "left"), [("removed", None), ("cut", b"01234"), ("altered", b"")])
def test_damage_is_done_to_one_file_and_can_be_undone(tmp_path: Path, how: str, left: bytes | None) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    done = damage(tmp_path, replace(FAULT, detail=how))
    assert done == (tmp_path / "a", b"0123456789")
    held = done[0].read_bytes() if done[0].exists() else None
    assert held == (b"01234" + bytes([ord("5") ^ 1]) + b"6789" if how == "altered" else left)


@pytest.mark.parametrize(
    ("code", "log", "fails"),
    [
        (2, "error: a/b: is missing. Hint: restore it.", False),
        (2, "error: a/b: is missing", True),
        (1, "Traceback (most recent call last):\nKeyError: 3", True),
        (1, "training failed\nthe end of the log", False),
        (75, "interrupted: run the same command", False),
        (124, "", True),
    ],
)
def test_how_a_start_must_not_end(code: int, log: str, fails: bool) -> None:
    assert (survival._badly_told(code, log) is not None) == fails


@pytest.mark.e2e
def test_runs_survive_a_slice_of_the_faults(tmp_path: Path) -> None:
    words = ["--faults", "8", "--work", str(tmp_path), "--json", str(tmp_path / "out.json")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.survival", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "out.json").read_text())
    assert (summary["faults"], summary["failed"]) == (8, [])
