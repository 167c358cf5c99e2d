"""Tasks of a running Ray cluster; the only module that imports ray.

Contract: that of `launch.executors`. Each task is one of Ray's, with one processor and `ray_memory_gb`, at
most `workers` at a time; it is datatrove's executor that runs in it (log, statistics, completion mark).
datatrove's own loop is not used: it opens a pool of processes in each of Ray's, which runs more tasks at
once than were asked for, and waits for ever for one that the system killed. Ray starts a task again when
its node or its process is lost, three times at most. Workers get this checkout on their path, so it must
lie where the nodes see it, as must the run folder. Ray is an optional dependency:
`pip install 'twofold-pretrain[ray]'`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from rich.console import Console

from configs.data_schema import Executor
from launch.executors.steps import RunTask, bar, forget_failures, missing_ranks, quieten, refuse_missing
from twofold.errors import UserError, user_error
from twofold.root import ROOT
from twofold.tasks import Task

_RETRIES = 3


class RayRunner:
    """At most `workers` tasks at a time on the cluster at `ray_address`."""

    def __init__(self, settings: Executor, console: Console) -> None:
        self._settings, self._console = settings, console
        self._memory_bytes = int(settings.ray_memory_gb * 1e9)

    def __enter__(self) -> RayRunner:
        quieten()
        try:
            import ray
        except ImportError:
            raise user_error(
                "data.executor.kind", "ray", "needs the package ray",
                "pip install 'twofold-pretrain[ray]', or set data.executor.kind=local",
            ) from None  # fmt: skip
        try:
            ray.init(
                address=self._settings.ray_address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
            )
        except (ConnectionError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise user_error(
                "data.executor.ray_address", self._settings.ray_address, f"is no running Ray cluster ({reason})",
                "start one (`ray start --head`), or correct the address",
            ) from None  # fmt: skip
        nodes: Any = ray.nodes
        try:
            self._refuse_small_nodes(nodes())
        except UserError:
            ray.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ray ends what still runs for this process."""
        import ray

        ray.shutdown()

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        """See `TaskRunner.run`."""
        import ray

        log_dir = log_dir.absolute()
        waiting = missing_ranks(log_dir, n_tasks)
        if not waiting:
            return
        forget_failures(log_dir)
        executor = LocalPipelineExecutor(
            pipeline=[RunTask(task, log_dir)], tasks=n_tasks, logging_dir=str(log_dir), skip_completed=True
        )
        shared = ray.put(executor)
        remote = ray.remote(_run_rank).options(num_cpus=1, memory=self._memory_bytes, max_retries=_RETRIES)
        running: list[Any] = []
        with bar(self._console, label, n_tasks) as show:
            while waiting or running:
                while waiting and len(running) < self._settings.workers:
                    running.append(remote.remote(shared, waiting.pop(0)))
                ended, running = ray.wait(running, timeout=self._settings.poll_s)
                waiting = [] if any(_has_failed(reference) for reference in ended) else waiting
                show(n_tasks - len(missing_ranks(log_dir, n_tasks)))
        refuse_missing(
            label, n_tasks, log_dir,
            f"look into {log_dir}/logs; if they were killed, raise data.executor.ray_memory_gb; then run again: "
            "only these are made",
        )  # fmt: skip

    def _refuse_small_nodes(self, nodes: list[dict[str, Any]]) -> None:
        """A task that no node can hold would wait for ever."""
        held = [node["Resources"].get("memory", 0) for node in nodes if node["Alive"] and "CPU" in node["Resources"]]
        if max(held, default=0) < self._memory_bytes:
            largest = f"{max(held, default=0) / 1e9:.1f}"
            raise user_error(
                "data.executor.ray_memory_gb", self._settings.ray_memory_gb,
                f"is more than any node of the cluster offers to tasks ({largest})", "lower it, or add larger nodes",
            )  # fmt: skip


def _run_rank(executor: LocalPipelineExecutor, rank: int) -> None:
    """In a worker of Ray's: what datatrove's executors all call for one task."""
    executor._run_for_rank(rank)


def _has_failed(reference: Any) -> bool:
    """What it raised stands in its file, where it could write one."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayError:
        return True
    return False
