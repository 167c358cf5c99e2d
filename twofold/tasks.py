"""What a stage may ask of whatever executes it.

A stage cuts its work into numbered tasks that exchange files only; `launch.executors` owns the
executors (datatrove's local, Slurm and Ray) and hands the stage a `TaskRunner`. A task that was
killed is run again from its start, so a task writes its outputs atomically (`files.atomic_path`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

Task = Callable[[int, int], None]
"""`task(rank, world_size)`: picklable (a module-level function, or a frozen dataclass instance with
`__call__`), does the share `rank` of `world_size`, writes files, returns nothing."""


class TaskRunner(Protocol):
    """Runs tasks to completion, several at a time; skips those that a former try completed."""

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        """Run `task(rank, n_tasks)` for each rank in 0..n_tasks-1 and wait for all of them.

        `label` is what the progress bar says; `log_dir` keeps logs and completion marks, must be
        unique to this task within the stage's (partial) output folder, and is what makes a
        restarted stage redo only what is missing. Raises what the first failing task raised.
        """
