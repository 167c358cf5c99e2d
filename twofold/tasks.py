"""The interface between a stage and the executor that runs its tasks.

Contract: a stage splits its work into numbered tasks that exchange files only. `launch.executors` owns the
executors (datatrove's local, Slurm and Ray) and gives the stage a `TaskRunner`. A killed task runs again from
its start, so a task writes its outputs atomically (`files.atomic_path`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

Task = Callable[[int, int], None]
"""`task(rank, world_size)`: picklable (a module-level function, or a frozen dataclass instance with
`__call__`), does the share `rank` of `world_size`, writes files, returns nothing."""


class TaskRunner(Protocol):
    """Runs tasks to completion, several at a time, and skips those that an earlier attempt completed."""

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        """Run `task(rank, n_tasks)` for each rank in 0..n_tasks-1 and wait for all of them.

        `label` is shown by the progress bar. `log_dir` keeps logs and completion marks, by which a restarted
        stage redoes only what is missing; it must be unique to this task within the stage. Raises what the
        first failing task raised. Of very many tasks, consecutive ones may share a log and a mark.
        """
