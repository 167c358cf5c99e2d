"""A task as a step of datatrove's, its failure as a file, and the bar that shows how far all are.

Contract: on another machine an exception has no caller to reach, so a failing task leaves
`failures/<rank:05d>.pickle` in the log folder: what it raised, if that was a `UserError`. The next try of
that task removes it first.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from twofold.errors import UserError, user_error
from twofold.files import atomic_path
from twofold.tasks import Task

_FAILURES = "failures"


class RunTask(PipelineStep):  # type: ignore[misc]
    """A task as a step of datatrove's."""

    type = "TASK"

    def __init__(self, task: Task, log_dir: Path) -> None:
        super().__init__()
        self.name = type(task).__name__
        self.task = task
        self.failures = log_dir.absolute() / _FAILURES
        self.folder = Path.cwd()
        """Recipes name their inputs from there."""

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        failure = self.failures / f"{rank:05d}.pickle"
        failure.unlink(missing_ok=True)
        os.chdir(self.folder)
        with self.track_time():
            try:
                self.task(rank, world_size)
            except Exception as error:
                kept = error if isinstance(error, UserError) else None
                with atomic_path(failure) as partial:
                    partial.write_bytes(pickle.dumps(kept))
                raise
        yield from ()


def first_failure(log_dir: Path) -> Exception | None:
    """What the failing task of the lowest rank raised; a pointer to its log where that was our own bug."""
    for path in sorted((log_dir / _FAILURES).glob("*.pickle")):
        error = pickle.loads(path.read_bytes())
        if isinstance(error, UserError):
            return error
        return RuntimeError(f"task {int(path.stem)} failed: see {log_dir}/logs/task_{path.stem}.log")
    return None


def forget_failures(log_dir: Path) -> None:
    """Before another try: failures that it finds are its own."""
    for path in (log_dir / _FAILURES).glob("*.pickle"):
        path.unlink()


def missing_ranks(log_dir: Path, n_tasks: int) -> list[int]:
    """Tasks without datatrove's completion mark."""
    folder = log_dir / "completions"
    marked = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return [rank for rank in range(n_tasks) if f"{rank:05d}" not in marked]


def refuse_missing(label: str, n_tasks: int, log_dir: Path, hint: str) -> None:
    """Raise what failed; tasks that ended without a word were killed."""
    missing = missing_ranks(log_dir, n_tasks)
    if missing:
        raise first_failure(log_dir) or user_error(
            label, None, f"lost {len(missing)} of {n_tasks} tasks, the first of them {missing[0]}", hint
        )


@contextmanager
def bar(console: Console, label: str, n_tasks: int) -> Iterator[Any]:
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
    """Keep the terminal to the progress bar; each task has its log."""
    from loguru import logger

    logger.disable("datatrove")
