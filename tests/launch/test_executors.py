"""Tasks run once each, in processes, through datatrove's executor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from configs.errors import UserError, user_error
from launch.executors import LocalRunner

QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Append:
    """Append a line, so that a task that ran twice shows."""

    folder: Path
    fails_at: int = -1

    def __call__(self, rank: int, world_size: int) -> None:
        if rank == self.fails_at:
            raise user_error("source", str(rank), "is broken", "mend it")
        with (self.folder / f"{rank}.txt").open("a") as stream:
            stream.write(f"{rank}/{world_size}\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_each_task_runs_once(tmp_path: Path, workers: int) -> None:
    (tmp_path / "out").mkdir()
    for _ in range(2):  # the second call finds every completion mark
        LocalRunner(workers, QUIET).run("append", Append(tmp_path / "out"), 3, tmp_path / "log")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        f"{rank}.txt": f"{rank}/3\n" for rank in range(3)
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_in_a_task_reaches_the_caller_and_only_it_is_redone(tmp_path: Path, workers: int) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is broken. Mend: mend it"):
        LocalRunner(workers, QUIET).run("append", Append(tmp_path / "out", fails_at=2), 3, tmp_path / "log")
    LocalRunner(workers, QUIET).run("append", Append(tmp_path / "out"), 3, tmp_path / "log")
    assert (tmp_path / "out" / "2.txt").read_text() == "2/3\n"
    assert (tmp_path / "out" / "0.txt").read_text() == "0/3\n"


def test_no_tasks_is_no_work(tmp_path: Path) -> None:
    LocalRunner(2, QUIET).run("nothing", Append(tmp_path), 0, tmp_path / "log")
    assert list(tmp_path.iterdir()) == []
