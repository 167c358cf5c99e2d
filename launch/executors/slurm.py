"""Tasks as array jobs of Slurm, through datatrove's executor.

Contract: that of `launch.executors`. `run` submits one array job (several, one after another, where the
cluster's arrays are shorter than the stage has tasks), watches completion marks and the queue, and ends
when all tasks have ended. A task that fails ends the whole job at once; a node that is lost is Slurm's to
fix (`--requeue`). Nothing is left behind: jobs are cancelled when the run is interrupted, and jobs of a
run that was killed are cancelled, and waited for, before the same stage is tried again; they are known by
their name, which is made of the stage's folder.

Workers use this interpreter and this checkout, so both must lie where the nodes see them, as must the run
folder. Each task's log is `log_dir/logs/task_*.log`, Slurm's own `log_dir/slurm_logs/`.
"""

from __future__ import annotations

import getpass
import hashlib
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from datatrove.executor import SlurmPipelineExecutor
from rich.console import Console

from configs.data_schema import Executor
from launch.executors.steps import (
    RunTask,
    bar,
    first_failure,
    forget_failures,
    missing_ranks,
    quieten,
    refuse_missing,
)
from twofold.errors import user_error
from twofold.root import ROOT
from twofold.tasks import Task

_COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")
_LONGEST_SILENCE_S = 600
"""How long the controller may fail to answer, as it does while it restarts."""
_LATE_MARKS_S = 30
"""How long after its job's end a task's mark may take to be seen here, over a network file system."""


class Queued(NamedTuple):
    """A line of squeue."""

    job: str
    """`12` or, of an array, `12_3`."""
    state: str
    reason: str


class SlurmRunner:
    """Array jobs of at most `workers` tasks at a time."""

    def __init__(self, settings: Executor, console: Console) -> None:
        assert settings.slurm is not None, "the schema asks for it"
        self._settings, self._slurm, self._console = settings, settings.slurm, console

    def __enter__(self) -> SlurmRunner:
        quieten()
        missing = [command for command in _COMMANDS if not shutil.which(command)]
        if missing:
            raise user_error(
                "data.executor.kind", "slurm", f"needs {', '.join(missing)} on this machine",
                "run on a login node of the cluster, or set data.executor.kind=local",
            )  # fmt: skip
        # Inside a task of somebody's array job datatrove would take this process for one of its own workers.
        os.environ.pop("SLURM_ARRAY_TASK_ID", None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Every run has ended its own jobs."""

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        """See `TaskRunner.run`."""
        log_dir = log_dir.absolute()
        name = job_name(log_dir)
        if not missing_ranks(log_dir, n_tasks):
            return
        executor = self._executor(task, n_tasks, log_dir, name)
        self._cancel(_queue(name))
        forget_failures(log_dir)
        try:
            self._submit(executor, label, log_dir)
            with bar(self._console, label, n_tasks) as show:
                self._watch(name, n_tasks, log_dir, show)
        finally:
            self._cancel(_queue(name))
        refuse_missing(
            label, n_tasks, log_dir,
            f"look into {log_dir}/slurm_logs (none: {log_dir} is not seen by the nodes), "
            "raise data.executor.slurm.time or memory_per_cpu_gb, then run again: only these are made",
        )  # fmt: skip

    def _executor(self, task: Task, n_tasks: int, log_dir: Path, name: str) -> SlurmPipelineExecutor:
        slurm = self._slurm
        return _Executor(
            pipeline=[RunTask(task, log_dir)],
            tasks=n_tasks,
            time=slurm.time,
            partition=slurm.partition,
            cpus_per_task=slurm.cpus_per_task,
            mem_per_cpu_gb=slurm.memory_per_cpu_gb,
            workers=self._settings.workers,
            job_name=name,
            # datatrove asks for a quality of service named `normal`, which few clusters have.
            qos=None,
            env_command=f'export PYTHONPATH="{ROOT}:$PYTHONPATH"',
            sbatch_args=dict(slurm.sbatch),
            max_array_size=_longest_array(),
            tasks_per_job=_tasks_per_job(len(missing_ranks(log_dir, n_tasks)), self._settings.workers),
            logging_dir=str(log_dir),
            # The batch script's own step runs the task; srun would start the same once more removed.
            with_srun=False,
        )

    def _submit(self, executor: SlurmPipelineExecutor, label: str, log_dir: Path) -> None:
        try:
            executor.run()
        except subprocess.CalledProcessError:
            # datatrove does not keep what sbatch said; a test submission says it again and queues nothing.
            script = log_dir / "launch_script.slurm"
            said = subprocess.run(["sbatch", "--test-only", str(script)], capture_output=True, text=True, check=False)
            reason = " ".join(said.stderr.split()) or "no reason given"
            raise user_error(
                "data.executor.slurm", None, f"was refused by sbatch for `{label}`: {reason}",
                "correct the partition, the limits or data.executor.slurm.sbatch",
            ) from None  # fmt: skip

    def _watch(self, name: str, n_tasks: int, log_dir: Path, show) -> None:  # type: ignore[no-untyped-def]
        """Until nothing is queued any more and marks have had time to arrive, or a task has failed."""
        ended = None
        while True:
            done = n_tasks - len(missing_ranks(log_dir, n_tasks))
            queue = _queue(name)
            show(done, _note(queue))
            if done == n_tasks or first_failure(log_dir):
                return
            ended = None if queue else (ended or time.monotonic())
            if ended and time.monotonic() - ended > _LATE_MARKS_S:
                return
            time.sleep(self._settings.poll_s)

    def _cancel(self, queue: Sequence[Queued]) -> None:
        """Cancel these jobs and wait until they are gone, so that nothing writes any more."""
        jobs = sorted({task.job.split("_")[0] for task in queue})
        deadline = time.monotonic() + _LONGEST_SILENCE_S
        while any(_is_queued(job) for job in jobs):
            subprocess.run(["scancel", *jobs], check=False, capture_output=True)
            if time.monotonic() > deadline:
                raise user_error("slurm", ", ".join(jobs), "cannot be cancelled", "cancel these jobs, then run again")
            time.sleep(min(1.0, self._settings.poll_s))


class _Executor(SlurmPipelineExecutor):  # type: ignore[misc]
    """This interpreter, and without the extra job that merges statistics."""

    def launch_merge_stats(self) -> None:
        """Nothing: it would wait for ever for an array that failed. Each task's statistics stand in `stats/`."""

    def get_launch_file_contents(self, sbatch_args: dict[str, Any], run_script: str) -> str:
        """datatrove's script looks its command up by PATH, where another environment may come first."""
        command, _, pickled = run_script.partition(" ")
        assert command == "launch_pickled_pipeline"
        ours = f"{shlex.quote(sys.executable)} -m datatrove.tools.launch_pickled_pipeline {shlex.quote(pickled)}"
        contents: str = super().get_launch_file_contents(sbatch_args, ours)
        return contents


def job_name(log_dir: Path) -> str:
    """Of all jobs for this folder, which is that of one stage's identity."""
    return f"twofold-{hashlib.sha256(str(log_dir).encode()).hexdigest()[:16]}"


def _queue(name: str) -> list[Queued]:
    """This user's jobs of that name, array tasks one by one."""
    mine = ("--user", getpass.getuser(), "--name", name)
    said = _asked("squeue", "--noheader", "--array", *mine, "--format", "%i|%T|%r")
    return [Queued(*line.strip().split("|", 2)) for line in said.splitlines() if line.strip()]


def _is_queued(job: str) -> bool:
    """Whether the controller knows it still; its silence is not a no."""
    found = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) or (found.returncode != 0 and "Invalid job id" not in found.stderr)


def _tasks_per_job(missing: int, workers: int) -> int:
    """Short tasks share the cost of a job's start; two jobs a worker even out how long they take."""
    return max(1, math.ceil(missing / (2 * workers)))


def _longest_array() -> int:
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _asked("scontrol", "show", "config"))
    return int(found[1]) if found else 1001


def _asked(*command: str) -> str:
    """Standard output; tries again while the controller does not answer."""
    deadline = time.monotonic() + _LONGEST_SILENCE_S
    while True:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return found.stdout
        if time.monotonic() > deadline:
            reason = " ".join(found.stderr.split())
            raise user_error("slurm", command[0], f"does not answer: {reason}", "see to the controller, then run again")
        time.sleep(5)


def _note(queue: Sequence[Queued]) -> str:
    """`2 running, 14 pending (Resources)`."""
    states = Counter(task.state.lower() for task in queue)
    reasons = {task.reason for task in queue if task.state == "PENDING"} - {"None", "(None)", "JobArrayTaskLimit"}
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return counts + (f" ({', '.join(sorted(reasons))})" if reasons else "")
