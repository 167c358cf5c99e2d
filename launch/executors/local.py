"""Tasks as processes on this machine.

Contract: that of `launch.executors`. One pool of worker processes serves all stages of a run, so packages are
imported once. If the system kills a worker (out of memory, say), that is a `UserError`; datatrove's own pool would
wait for it forever. Workers exit within a second after their run has died. Each task's log is
`log_dir/logs/task_*.log`.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from rich.console import Console

from launch.executors.steps import bar, executor_of, gathered, missing_ranks, quieten, run_rank
from twofold.errors import user_error
from twofold.files import atomic_path
from twofold.tasks import Task

_WATCH_SECONDS = 1.0


class LocalRunner:
    """Runs `workers` tasks at a time. A context manager; leaving it ends the workers."""

    def __init__(self, workers: int, console: Console) -> None:
        self._workers = workers
        self._console = console
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> LocalRunner:
        quieten()
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        """See `TaskRunner.run`."""
        task, n_tasks = gathered(task, n_tasks)
        executor = executor_of(task, n_tasks, log_dir)
        missing = missing_ranks(log_dir, n_tasks)
        if not missing:
            return
        done = n_tasks - len(missing)
        with bar(self._console, label, n_tasks) as show:
            show(done)
            # A task may name every file of its stage, so it travels once, not with each rank.
            stored = log_dir.absolute() / "executor.pickle"
            with atomic_path(stored) as partial:
                partial.write_bytes(pickle.dumps(executor))
            version = stored.stat().st_mtime_ns
            futures = [self._started_pool().submit(_run_stored, stored, version, rank) for rank in missing]
            try:
                for future in as_completed(futures):
                    future.result()
                    done += 1
                    show(done)
            except BrokenProcessPool:
                lost = "lost a worker process that the system killed (out of memory?)"
                hint = "lower data.executor.workers or data.extract.task_bytes, then run again"
                raise user_error(label, None, lost, hint) from None
            finally:
                for future in futures:
                    future.cancel()

    def _started_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=multiprocessing.get_context("forkserver"),
                initializer=_begin_worker,
                initargs=(os.getpid(),),
            )
        return self._pool


def _run_stored(executor: Path, version: int, rank: int) -> None:
    """In a worker: run one task of the executor in a file."""
    run_rank(_stored(executor, version), rank)


@functools.lru_cache(maxsize=1)
def _stored(executor: Path, version: int) -> LocalPipelineExecutor:
    """The executor in a file that was last written at `version`."""
    found: LocalPipelineExecutor = pickle.loads(executor.read_bytes())
    return found


def _begin_worker(run_pid: int) -> None:
    """In a new worker: keep the terminal free for the progress bar, and never outlive the run."""
    # datatrove logs to stderr in addition to its task logs.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    # Tokenizers would start a thread for each core in each worker.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with, args=(run_pid,), daemon=True).start()


def _end_with(pid: int) -> None:
    while _is_running(pid):
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _is_running(pid: int) -> bool:
    """Whether the process runs; a killed one may stay listed until its parent has reaped it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in ("Z", "X")
