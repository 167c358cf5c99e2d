"""Tasks run once each, in processes, through datatrove's executor."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from launch.executors import steps
from launch.executors.local import LocalRunner, _is_running
from launch.executors.steps import executor_of, first_failure, missing_ranks, run_rank
from tests.conftest import ROOT
from twofold import files
from twofold.errors import UserError, user_error

QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Append:
    """Append a line, so that a task that ran twice shows."""

    folder: Path
    fails_at: int = -1

    def __call__(self, rank: int, world_size: int) -> None:
        if rank == self.fails_at:
            raise user_error("source", str(rank), "is broken", "fix it")
        with (self.folder / f"{rank}.txt").open("a") as stream:
            stream.write(f"{rank}/{world_size}\n")


@dataclass(frozen=True)
class Slow:
    """Says that it began, waits, says that it ended."""

    folder: Path
    seconds: float

    def __call__(self, rank: int, world_size: int) -> None:
        with (self.folder / f"{rank}.txt").open("a") as stream:
            stream.write("began\n")
            stream.flush()
            time.sleep(self.seconds)
            stream.write("ended\n")


@dataclass(frozen=True)
class AloneIn:
    """Fails if another task is at work in the same folder."""

    folder: Path

    def __call__(self, rank: int, world_size: int) -> None:
        busy = self.folder.with_name("busy")
        busy.mkdir()
        time.sleep(0.3)
        busy.rmdir()
        (self.folder / str(rank)).touch()


class CountsPickling(Append):
    """Notes each time that it is pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        with (self.folder.parent / "pickled").open("a") as stream:
            stream.write("x")
        return CountsPickling, (self.folder, self.fails_at)


def test_very_many_tasks_share_logs_and_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_TASKS", 3)
    (tmp_path / "out").mkdir()
    with LocalRunner(2, QUIET) as runner:
        with pytest.raises(UserError, match="source = '5': is broken"):
            runner.run("append", Append(tmp_path / "out", fails_at=5), 8, tmp_path / "log")
        runner.run("append", Append(tmp_path / "out"), 8, tmp_path / "log")
    assert len(list((tmp_path / "log" / "completions").iterdir())) == 3
    assert {path.stem: path.read_text().splitlines()[-1] for path in (tmp_path / "out").iterdir()} == {
        str(rank): f"{rank}/8" for rank in range(8)
    }
    assert all(len((tmp_path / "out" / f"{rank}.txt").read_text().splitlines()) == 1 for rank in (0, 1, 2, 6, 7))


def test_a_task_is_pickled_once_however_many_ranks_it_has(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with LocalRunner(1, QUIET) as runner:
        for label in ("first", "second"):
            runner.run(label, CountsPickling(tmp_path / "out"), 6, tmp_path / label)
    assert (tmp_path / "pickled").read_text() == "xx"
    assert (tmp_path / "out/5.txt").read_text() == "5/6\n5/6\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_each_task_runs_once(tmp_path: Path, workers: int) -> None:
    (tmp_path / "out").mkdir()
    for _ in range(2):  # the second call finds every completion mark
        with LocalRunner(workers, QUIET) as runner:
            runner.run("append", Append(tmp_path / "out"), 3, tmp_path / "log")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        f"{rank}.txt": f"{rank}/3\n" for rank in range(3)
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_in_a_task_reaches_the_caller_and_only_it_is_redone(tmp_path: Path, workers: int) -> None:
    (tmp_path / "out").mkdir()
    with LocalRunner(workers, QUIET) as runner:
        with pytest.raises(UserError, match="is broken"):
            runner.run("append", Append(tmp_path / "out", fails_at=2), 3, tmp_path / "log")
        runner.run("append", Append(tmp_path / "out"), 3, tmp_path / "log")
    assert (tmp_path / "out" / "2.txt").read_text() == "2/3\n"
    assert (tmp_path / "out" / "0.txt").read_text() == "0/3\n"


def test_no_tasks_is_no_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with LocalRunner(2, QUIET) as runner:
        runner.run("nothing", Append(tmp_path / "out"), 0, tmp_path / "log")
    assert list((tmp_path / "out").iterdir()) == []


def die(rank: int, world_size: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_told_and_not_waited_for(tmp_path: Path) -> None:
    with LocalRunner(2, QUIET) as runner, pytest.raises(UserError, match=r"lost a worker process.*Hint: lower"):
        runner.run("doomed", die, 2, tmp_path / "log")


def test_workers_do_not_outlive_a_killed_run(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from rich.console import Console\n"
        "from launch.executors.local import LocalRunner; from tests.launch.test_executors import note_and_wait\n"
        "if __name__ == '__main__': LocalRunner(2, Console(quiet=True)).run('w', note_and_wait, 2, Path(sys.argv[1]))\n"
    )
    (tmp_path / "main.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NOTES": str(tmp_path)}
    run = subprocess.Popen([sys.executable, str(tmp_path / "main.py"), str(tmp_path / "log")], env=environment)
    workers = _eventually(lambda: [int(p.stem) for p in tmp_path.glob("*.pid")], lambda pids: len(pids) == 2)
    run.kill()  # and nobody waits for it yet, so it stays listed
    _eventually(lambda: [pid for pid in workers if _is_running(pid)], lambda pids: not pids)
    run.wait()


def note_and_wait(rank: int, world_size: int) -> None:
    (Path(os.environ["NOTES"]) / f"{os.getpid()}.pid").touch()
    time.sleep(60)


def _eventually(look: Callable[[], list[int]], good: Callable[[list[int]], bool]) -> list[int]:
    for _ in range(200):
        if good(seen := look()):
            return seen
        time.sleep(0.1)
    raise AssertionError(seen)


@dataclass(frozen=True)
class FailsOnce:
    """Meets a stale handle the first time, or at every time."""

    folder: Path
    always: bool

    def __call__(self, rank: int, world_size: int) -> None:
        tried = self.folder / f"tried-{rank}"
        if self.always or not tried.exists():
            tried.touch()
            raise OSError(errno.ESTALE, "Stale file handle", "shard")


def test_a_task_outlasts_a_passing_failure_and_tells_one_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_FIRST_WAIT_S", 0.0)
    run_rank(executor_of(FailsOnce(tmp_path, always=False), 1, tmp_path / "once"), 0)
    assert missing_ranks(tmp_path / "once", 1) == []
    assert first_failure(tmp_path / "once") is None
    monkeypatch.setattr(files, "_PATIENCE_S", -1.0)
    with pytest.raises(OSError, match="Stale"):
        run_rank(executor_of(FailsOnce(tmp_path, always=True), 1, tmp_path / "always"), 0)
    told = first_failure(tmp_path / "always")
    assert isinstance(told, OSError)
    assert (told.errno, told.filename) == (errno.ESTALE, "shard")
