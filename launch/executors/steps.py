"""A task as a datatrove step, its failure as a file, and the progress bar.

Contract: an exception on another machine has no caller to reach, so a failing task writes
`failures/<rank:05d>.json` into the log folder: its problems if it was a `UserError`, the system's error if the file
system failed, else null. The next attempt of that task removes the file first. A task that meets a passing failure
(twofold/files.py) is run again from its start for at most a minute, since a file server that is gone for a moment must
not end hours of work.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from twofold.errors import UserError, user_error
from twofold.files import is_passing, patiently, read_json, write_json
from twofold.tasks import Task

_FAILURES = "failures"
MOST_TASKS = 10_000


class RunTask(PipelineStep):  # type: ignore[misc]
    """A task as a datatrove step."""

    type = "TASK"

    def __init__(self, task: Task, log_dir: Path) -> None:
        super().__init__()
        self.name = type(task).__name__
        self.task = task
        self.failures = log_dir.absolute() / _FAILURES
        self.folder = Path.cwd()
        """Recipes name their inputs relative to it."""

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        failure = self.failures / f"{rank:05d}.json"
        failure.unlink(missing_ok=True)
        os.chdir(self.folder)
        with self.track_time():
            try:
                patiently(self.task, rank, world_size)
            except Exception as error:
                write_json(failure, _as_json(error))
                raise
        yield from ()


def _as_json(error: Exception) -> dict[str, Any] | None:
    if isinstance(error, UserError):
        return {"problems": error.as_json()}
    if isinstance(error, OSError) and is_passing(error):
        return {"system": [error.errno, error.strerror, error.filename]}
    return None


@dataclass(frozen=True)
class Several:
    """Consecutive tasks as one: task `rank` runs `size` of the tasks one after another."""

    task: Task
    n_tasks: int
    size: int

    def __call__(self, rank: int, world_size: int) -> None:
        for number in range(rank * self.size, min((rank + 1) * self.size, self.n_tasks)):
            self.task(number, self.n_tasks)


def gathered(task: Task, n_tasks: int) -> tuple[Task, int]:
    """At most `MOST_TASKS` tasks that do the work of all: each costs a log, statistics and a completion mark."""
    size = math.ceil(n_tasks / MOST_TASKS)
    return (Several(task, n_tasks, size), math.ceil(n_tasks / size)) if size > 1 else (task, n_tasks)


def executor_of(task: Task, n_tasks: int, log_dir: Path) -> LocalPipelineExecutor:
    """The datatrove executor that runs single tasks (log, statistics, completion mark); see `run_rank`."""
    return LocalPipelineExecutor(
        pipeline=[RunTask(task, log_dir)], tasks=max(1, n_tasks), logging_dir=str(log_dir), skip_completed=True
    )


def run_rank(executor: LocalPipelineExecutor, rank: int) -> None:
    """In a worker: the call that all of datatrove's executors make for one task."""
    executor._run_for_rank(rank)


def first_failure(log_dir: Path) -> Exception | None:
    """The error of the lowest rank that failed; for a bug of ours, a pointer to its log."""
    for path in sorted((log_dir / _FAILURES).glob("*.json")):
        failure = read_json(path)
        if failure and "problems" in failure:
            return UserError.from_json(failure["problems"])
        if failure:
            return OSError(*failure["system"])
        return RuntimeError(f"task {int(path.stem)} failed: see {log_dir}/logs/task_{path.stem}.log")
    return None


def forget_failures(log_dir: Path) -> None:
    """Remove the failures of an earlier attempt."""
    for path in (log_dir / _FAILURES).glob("*.json"):
        path.unlink()


def missing_ranks(log_dir: Path, n_tasks: int) -> list[int]:
    """Tasks without datatrove's completion mark."""
    folder = log_dir / "completions"
    marked = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return [rank for rank in range(n_tasks) if f"{rank:05d}" not in marked]


def refuse_missing(label: str, n_tasks: int, log_dir: Path, hint: str) -> None:
    """Raise the first failure if tasks are missing; those without one were killed."""
    missing = missing_ranks(log_dir, n_tasks)
    if missing:
        lost = f"lost {len(missing)} of {n_tasks} tasks, the first of them {missing[0]}"
        raise first_failure(log_dir) or user_error(label, None, lost, hint)


@contextmanager
def bar(console: Console, label: str, n_tasks: int) -> Iterator[Callable[..., None]]:
    """A progress bar; yields `show(completed, note="")`."""
    columns = (
        TextColumn("  {task.description:<34}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        bar_id = progress.add_task(label, total=n_tasks, note="")
        yield lambda completed, note="": progress.update(bar_id, completed=completed, note=note)


def quieten() -> None:
    """Show only the progress bar in the terminal; each task has its own log."""
    from loguru import logger

    logger.disable("datatrove")
