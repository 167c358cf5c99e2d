"""datatrove's executors behind `configs.tasks.TaskRunner`; the only module that imports them.

Contract: `LocalRunner.run` returns when every task has run to its end once, in this try or in a
former one that was killed (datatrove's completion marks under `log_dir`); the caller keeps `log_dir`
inside a folder named by the stage's identity, so a mark can never speak for another configuration.
The terminal shows one progress bar a stage; each task's own log is `log_dir/logs/task_*.log`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from configs.tasks import Task

_POLL_SECONDS = 0.2


class LocalRunner:
    """Tasks as processes of this machine, `workers` at a time."""

    def __init__(self, workers: int, console: Console) -> None:
        self._workers = workers
        self._console = console

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        """See `TaskRunner.run`. One worker, or one task, runs in this process."""
        if n_tasks == 0:
            return
        from datatrove.executor import LocalPipelineExecutor

        workers = min(self._workers, n_tasks)
        with _progress(self._console, label, n_tasks, log_dir / "completions"), _quiet_stderr():
            LocalPipelineExecutor(
                pipeline=[_step(task)],
                tasks=n_tasks,
                workers=workers,
                logging_dir=str(log_dir),
                skip_completed=True,
            ).run()


def _step(task: Task) -> Any:
    """The task as a datatrove pipeline step (a class, since datatrove copies and serialises steps)."""
    from datatrove.pipeline.base import PipelineStep

    class RunTask(PipelineStep):
        name = getattr(task, "__name__", type(task).__name__)
        type = "TASK"

        def __init__(self) -> None:
            super().__init__()
            self.task = task

        def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
            with self.track_time():
                self.task(rank, world_size)
            yield from ()

    return RunTask()


@contextmanager
def _progress(console: Console, label: str, n_tasks: int, completions: Path) -> Iterator[None]:
    """A bar that follows the completion marks."""
    bar = Progress(
        TextColumn("  {task.description:<34}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    done = threading.Event()

    def follow(bar_id: Any) -> None:
        while not done.wait(_POLL_SECONDS):
            bar.update(bar_id, completed=_count(completions))

    with bar:
        bar_id = bar.add_task(label, total=n_tasks)
        watcher = threading.Thread(target=follow, args=(bar_id,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            bar.update(bar_id, completed=_count(completions))


def _count(folder: Path) -> int:
    return len(os.listdir(folder)) if folder.is_dir() else 0


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """datatrove logs to stderr as well as to its task logs; the terminal keeps the bar only.

    The file descriptor is redirected, not `sys.stderr`, because worker processes inherit it.
    """
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
