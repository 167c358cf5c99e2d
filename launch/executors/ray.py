"""Tasks on a running Ray cluster; the only module that imports ray.

Contract: that of `launch.executors`. Each task is a Ray task with one CPU and `ray_memory_gb` of memory, at most
`workers` at a time, and runs datatrove's executor (log, statistics, completion mark). datatrove's own loop is not
used: it opens a process pool inside each Ray task, which runs more tasks at once than requested and waits forever
for one that the system killed. Ray restarts a task up to three times if its node or process is lost. Workers get
this checkout on their path, so nodes must share it and the run folder. Ray is an optional dependency:
`pip install 'twofold-pretrain[ray]'`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rich.console import Console

from configs.data_schema import Executor
from launch.executors.steps import (
    bar,
    executor_of,
    forget_failures,
    gathered,
    missing_ranks,
    quieten,
    refuse_missing,
    run_rank,
)
from twofold.errors import UserError, user_error
from twofold.root import ROOT
from twofold.tasks import Task

_RETRIES = 3


class RayRunner:
    """Runs at most `workers` tasks at a time on the cluster at `ray_address`."""

    def __init__(self, settings: Executor, console: Console) -> None:
        self._settings, self._console = settings, console
        self._memory_bytes = int(settings.ray_memory_gb * 1e9)

    def __enter__(self) -> RayRunner:
        quieten()
        try:
            import ray
        except ImportError:
            hint = "pip install 'twofold-pretrain[ray]', or set data.executor.kind=local"
            raise user_error("data.executor.kind", "ray", "needs the package ray", hint) from None
        address, environment = self._settings.ray_address, {"env_vars": {"PYTHONPATH": str(ROOT)}}
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment)
        except (ConnectionError, ValueError) as error:
            problem = f"is not a running Ray cluster ({str(error).splitlines()[0]})"
            hint = "start one (`ray start --head`), or correct the address"
            raise user_error("data.executor.ray_address", address, problem, hint) from None
        nodes: Any = ray.nodes
        try:
            self._refuse_small_nodes(nodes())
        except UserError:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Ray ends all tasks of this process."""
        import ray

        ray.shutdown()

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        """See `TaskRunner.run`."""
        import ray

        log_dir = log_dir.absolute()
        task, n_tasks = gathered(task, n_tasks)
        waiting = missing_ranks(log_dir, n_tasks)
        if not waiting:
            return
        forget_failures(log_dir)
        shared = ray.put(executor_of(task, n_tasks, log_dir))
        remote = ray.remote(run_rank).options(num_cpus=1, memory=self._memory_bytes, max_retries=_RETRIES)
        running: list[Any] = []
        done = n_tasks - len(waiting)
        with bar(self._console, label, n_tasks) as show:
            while waiting or running:
                while waiting and len(running) < self._settings.workers:
                    running.append(remote.remote(shared, waiting.pop(0)))
                ended, running = ray.wait(running, timeout=self._settings.poll_s)
                failed = sum(_has_failed(reference) for reference in ended)
                waiting = [] if failed else waiting
                done += len(ended) - failed
                show(done)
        hint = f"see {log_dir}/logs; if tasks were killed, raise data.executor.ray_memory_gb; then run again"
        refuse_missing(label, n_tasks, log_dir, f"{hint}: only the missing tasks are run")

    def _refuse_small_nodes(self, nodes: list[dict[str, Any]]) -> None:
        """A task that fits on no node would wait forever."""
        alive = [node["Resources"] for node in nodes if node["Alive"]]
        largest = max((resources.get("memory", 0) for resources in alive if "CPU" in resources), default=0)
        if largest < self._memory_bytes:
            problem = f"is more than any node of the cluster offers to tasks ({largest / 1e9:.1f})"
            hint = "lower it, or add larger nodes"
            raise user_error("data.executor.ray_memory_gb", self._settings.ray_memory_gb, problem, hint)


def _has_failed(reference: Any) -> bool:
    """Whether the task failed; its error is in its failure file if it could write one."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayError:
        return True
    return False
