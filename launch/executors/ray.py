"""Tasks of a running Ray cluster, through datatrove's executor; the only module that imports ray.

Contract: that of `launch.executors`. Ray restarts what it loses with a node; a task that fails by itself
does not stop the others. Workers get this checkout on their path, so it must lie where the nodes see it, as
must the run folder. Ray is an optional dependency: `pip install 'twofold-pretrain[ray]'`.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import TracebackType

from datatrove.executor import RayPipelineExecutor
from rich.console import Console

from configs.data_schema import Executor
from configs.errors import user_error
from configs.tasks import Task
from launch.executors.steps import (
    RunTask,
    bar,
    forget_failures,
    missing_ranks,
    quieten,
    refuse_missing,
    tasks_per_job,
)

_ROOT = Path(__file__).resolve().parent.parent.parent


class RayRunner:
    """At most `workers` tasks at a time on the cluster at `ray_address`."""

    def __init__(self, settings: Executor, console: Console) -> None:
        self._settings, self._console = settings, console

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
                runtime_env={"env_vars": {"PYTHONPATH": str(_ROOT)}},
            )
        except (ConnectionError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise user_error(
                "data.executor.ray_address", self._settings.ray_address, f"is no running Ray cluster ({reason})",
                "start one (`ray start --head`), or correct the address",
            ) from None  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        ray.shutdown()

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        """See `TaskRunner.run`."""
        log_dir = log_dir.absolute()
        executor = RayPipelineExecutor(
            pipeline=[RunTask(task, log_dir)],
            tasks=max(1, n_tasks),
            workers=self._settings.workers,
            logging_dir=str(log_dir),
        )
        missing = missing_ranks(executor, n_tasks)
        if not missing:
            return
        executor.tasks_per_job = tasks_per_job(len(missing), self._settings.workers)
        forget_failures(log_dir)
        # It returns when all tasks have ended, and says nothing meanwhile.
        running = threading.Thread(target=executor.run, daemon=True)
        with bar(self._console, label, n_tasks) as show:
            running.start()
            while running.is_alive():
                running.join(min(0.5, self._settings.poll_s))
                show(n_tasks - len(missing_ranks(executor, n_tasks)))
        refuse_missing(
            executor, label, n_tasks, log_dir,
            f"look into {log_dir}/logs and Ray's dashboard, then run again: only these are made",
        )  # fmt: skip
