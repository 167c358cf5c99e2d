"""Tasks as Slurm array jobs, through datatrove's executor.

Contract: that of `launch.executors`. `run` submits one array job (or several in sequence, if the cluster limits
arrays to fewer tasks), watches completion marks and the queue, and returns when all tasks have ended. A failing
task ends the whole job at once; if a node is lost, Slurm requeues its tasks (`--requeue`). No jobs are left behind:
they are cancelled when the run is interrupted. Jobs of a killed run are found by their name, which is derived from
the stage's folder, and are cancelled before the stage is tried again.

Workers use this interpreter and this checkout, so nodes must share both and the run folder. Each task's log is
`log_dir/logs/task_*.log`, Slurm's own `log_dir/slurm_logs/`.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datatrove.executor import SlurmPipelineExecutor
from rich.console import Console

from configs.data_schema import Executor
from launch.executors.steps import (
    RunTask,
    bar,
    first_failure,
    forget_failures,
    gathered,
    missing_ranks,
    quieten,
    refuse_missing,
)
from twofold.errors import user_error
from twofold.root import ROOT
from twofold.tasks import Task

_COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")
_LONGEST_SILENCE_S = 600
"""How long the controller may not answer, for example while it restarts."""
_LATE_MARKS_S = 30
"""How long a task's completion mark may take to appear here over a network file system."""


class Queued(NamedTuple):
    """A line of squeue."""

    job: str
    """`12` or, of an array, `12_3`."""
    state: str
    reason: str


class SlurmRunner:
    """Runs array jobs of at most `workers` tasks at a time."""

    def __init__(self, settings: Executor, console: Console) -> None:
        assert settings.slurm is not None, "the schema asks for it"
        self._settings, self._slurm, self._console = settings, settings.slurm, console

    def __enter__(self) -> SlurmRunner:
        quieten()
        missing = [command for command in _COMMANDS if not shutil.which(command)]
        if missing:
            hint = "run on a login node of the cluster, or set data.executor.kind=local"
            raise user_error("data.executor.kind", "slurm", f"needs {', '.join(missing)} on this machine", hint)
        # Inside another array job's task, datatrove would mistake this process for one of its own workers.
        os.environ.pop("SLURM_ARRAY_TASK_ID", None)
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to do: every run has ended its own jobs."""

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        """See `TaskRunner.run`."""
        log_dir = log_dir.absolute()
        task, n_tasks = gathered(task, n_tasks)
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
        hint = f"see {log_dir}/slurm_logs (if there are none, the nodes cannot see {log_dir})"
        raised = "raise data.executor.slurm.time or memory_per_cpu_gb, then run again"
        refuse_missing(label, n_tasks, log_dir, f"{hint}, {raised}: only the missing tasks are run")

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
            # datatrove requests a quality of service named `normal`, which few clusters have.
            qos=None,
            env_command=f'export PYTHONPATH="{ROOT}:$PYTHONPATH"',
            sbatch_args=dict(slurm.sbatch),
            max_array_size=_longest_array(),
            tasks_per_job=_tasks_per_job(len(missing_ranks(log_dir, n_tasks)), self._settings.workers),
            logging_dir=str(log_dir),
            # The batch script runs the task itself; srun would only add a process in between.
            with_srun=False,
        )

    def _submit(self, executor: SlurmPipelineExecutor, label: str, log_dir: Path) -> None:
        try:
            executor.run()
        except subprocess.CalledProcessError:
            # datatrove drops sbatch's message; a test submission repeats it and queues nothing.
            script = log_dir / "launch_script.slurm"
            said = subprocess.run(["sbatch", "--test-only", str(script)], capture_output=True, text=True, check=False)
            reason = " ".join(said.stderr.split()) or "no reason given"
            hint = "correct the partition, the limits or data.executor.slurm.sbatch"
            refused = f"was refused by sbatch for `{label}`: {reason}"
            raise user_error("data.executor.slurm", None, refused, hint) from None

    def _watch(self, name: str, n_tasks: int, log_dir: Path, show: Callable[..., None]) -> None:
        """Wait until the queue is empty and marks have had time to arrive, or until a task has failed."""
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
        """Cancel these jobs and wait until they have ended, so that nothing is written any more."""
        jobs = sorted({task.job.split("_")[0] for task in queue})
        deadline = time.monotonic() + _LONGEST_SILENCE_S
        while any(_is_queued(job) for job in jobs):
            subprocess.run(["scancel", *jobs], check=False, capture_output=True)
            if time.monotonic() > deadline:
                raise user_error("slurm", ", ".join(jobs), "cannot be cancelled", "cancel these jobs, then run again")
            time.sleep(min(1.0, self._settings.poll_s))


class _Executor(SlurmPipelineExecutor):  # type: ignore[misc]
    """Uses this interpreter and submits no extra job that merges statistics."""

    def launch_merge_stats(self) -> None:
        """Do nothing: the job would wait forever for a failed array. Each task's statistics are in `stats/`."""

    def get_launch_file_contents(self, sbatch_args: dict[str, Any], run_script: str) -> str:
        """datatrove's script finds its command through PATH, where another environment may come first."""
        command, _, pickled = run_script.partition(" ")
        assert command == "launch_pickled_pipeline"
        ours = f"{shlex.quote(sys.executable)} -m datatrove.tools.launch_pickled_pipeline {shlex.quote(pickled)}"
        contents: str = super().get_launch_file_contents(sbatch_args, ours)
        return contents


def job_name(log_dir: Path) -> str:
    """The name of all jobs for this folder, which belongs to one stage's identity."""
    return f"twofold-{hashlib.sha256(str(log_dir).encode()).hexdigest()[:16]}"


def _queue(name: str) -> list[Queued]:
    """This user's jobs of that name, with array tasks listed one by one."""
    mine = ("--user", getpass.getuser(), "--name", name)
    said = _output_of("squeue", "--noheader", "--array", *mine, "--format", "%i|%T|%r")
    return [Queued(*line.strip().split("|", 2)) for line in said.splitlines() if line.strip()]


def _is_queued(job: str) -> bool:
    """Whether the job is still known to the controller; no answer counts as yes."""
    found = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) or (found.returncode != 0 and "Invalid job id" not in found.stderr)


def _tasks_per_job(missing: int, workers: int) -> int:
    """Two jobs per worker: tasks share the cost of a job's start, and uneven durations level out."""
    return max(1, math.ceil(missing / (2 * workers)))


def _longest_array() -> int:
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _output_of("scontrol", "show", "config"))
    return int(found[1]) if found else 1001


def _output_of(*command: str) -> str:
    """Standard output; retries while the controller does not answer."""
    deadline = time.monotonic() + _LONGEST_SILENCE_S
    while True:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return found.stdout
        if time.monotonic() > deadline:
            reason = " ".join(found.stderr.split())
            raise user_error("slurm", command[0], f"does not answer: {reason}", "check the controller, then run again")
        time.sleep(5)


def _note(queue: Sequence[Queued]) -> str:
    """`2 running, 14 pending (Resources)`."""
    states = Counter(task.state.lower() for task in queue)
    reasons = {task.reason for task in queue if task.state == "PENDING"} - {"None", "(None)", "JobArrayTaskLimit"}
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return counts + (f" ({', '.join(sorted(reasons))})" if reasons else "")
