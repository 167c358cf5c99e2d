"""datatrove's executors behind `twofold.tasks.TaskRunner`; the only package that imports them.

    steps.py   a task as a step of datatrove's; its failure as a file; the progress bar
    local.py   processes of this machine
    slurm.py   array jobs
    ray.py     tasks of a Ray cluster

Contract of all three: `run` returns when every task has run to its end once, in this try or in a former
one that was killed (datatrove's completion marks under `log_dir`), and raises what the first failing task
raised. The caller keeps `log_dir` inside a folder named by the stage's identity, so a mark can never speak
for another configuration. Tasks meet in files only, so the run folder must lie where all machines see it.
docs/executors.md tells how to choose.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from rich.console import Console

from configs.data_schema import Executor
from twofold.tasks import TaskRunner


def task_runner(settings: Executor, console: Console) -> AbstractContextManager[TaskRunner]:
    """The recipe's executor; leaving the context ends what it started."""
    if settings.kind == "slurm":
        from launch.executors.slurm import SlurmRunner

        return SlurmRunner(settings, console)
    if settings.kind == "ray":
        from launch.executors.ray import RayRunner

        return RayRunner(settings, console)
    from launch.executors.local import LocalRunner

    return LocalRunner(settings.workers, console)
