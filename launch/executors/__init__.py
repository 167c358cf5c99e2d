"""datatrove's executors behind `twofold.tasks.TaskRunner`; the only package that imports them.

    steps.py   a task as a datatrove step, failures as files, the progress bar
    local.py   processes on this machine
    slurm.py   array jobs
    ray.py     tasks on a Ray cluster

Contract of all three: `run` returns when every task has completed, in this attempt or in an earlier one that was
killed (datatrove's completion marks under `log_dir`), and raises the error of the first failing task. The caller
keeps `log_dir` inside a folder named by the stage's identity, so marks of another configuration are never used.
Tasks communicate only through files, so all machines must share the run folder. docs/executors.md explains how to
choose.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from rich.console import Console

from configs.data_schema import Executor
from twofold.tasks import TaskRunner


def task_runner(settings: Executor, console: Console) -> AbstractContextManager[TaskRunner]:
    """The recipe's executor; leaving the context ends everything that it started."""
    if settings.kind == "slurm":
        from launch.executors.slurm import SlurmRunner

        return SlurmRunner(settings, console)
    if settings.kind == "ray":
        from launch.executors.ray import RayRunner

        return RayRunner(settings, console)
    from launch.executors.local import LocalRunner

    return LocalRunner(settings.workers, console)
