"""Runs of benchmarks/survival.py: the command line, its supervisor and one rank, each in a forked process.

Contract: `warm` is called once, before any run; afterwards `start` forks a `twofold run` and `finish` waits for it.
Forked processes have signals, locks and open files of their own. Tasks of data stages run in the run's process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.failing_calls import failing_calls
from benchmarks.survival_faults import Actor, Fault, Role
from configs.recipe import load_recipe
from twofold.root import ROOT

RECIPE = (
    str(ROOT / "configs" / "smoke.yaml"),
    "phases.general.tokens=8K", "phases.general.global_batch_size=1024", "phases.general.lr_scheduler.warmup=2K",
    "phases.domain.tokens=8K", "phases.domain.global_batch_size=1024", "model.n_layers=1", "model.d_model=32",
    "model.n_heads=2", "model.d_ff=64", "checkpoints.every=2K", "validation.every=4K", "validation.prompts=[]",
    "validation.sequences_per_source=2", "launch.device=cpu", "launch.cpu_ranks=1", "data.executor.workers=1",
    "monitor.wandb=off", "launch.restarts=1",
)  # fmt: skip
RUN_LOG = "run.log"
HUNG = 124
"""Exit code of a run that had to be killed."""
_LIMIT_S = 300.0
_HANGING_RANK_S = 3.0


def warm() -> None:
    """Import what runs need, before any of them is forked."""
    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", COLUMNS="1000")
    from launch import cli, runner

    for name in ("pretrain.train", "pretrain.start", "torch._dynamo", "torch._inductor.compile_fx", "networkx"):
        importlib.import_module(name)
    # Compiled kernels and models are loaded when they are first called.
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(runner, "task_runner", _here):
        if code := cli.main(["run", *RECIPE, "--until", "shards", f"run_dir={folder}/run", "-q"]):
            sys.exit(code)


def start(run_dir: Path, state: Path, fault: Fault | None, until: str) -> int:
    """Start `twofold run` in a process of its own; return its number."""

    def run() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        return _run(run_dir, state, fault, until)

    return _fork(run, state / RUN_LOG)


def _fork(action: Callable[[], int], log: Path) -> int:
    """Run `action` in a forked process with a session of its own, which writes to `log`; return its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        _write_to(log)
        code = action()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(run_dir: Path, state: Path, fault: Fault | None, until: str) -> int:
    from launch import cli, runner, training
    from launch.cluster import command_lines
    from twofold import files

    files._FIRST_WAIT_S, files._PATIENCE_S = 0.001, 0.05
    if fault and fault.kind == "no rank":
        training._SILENT_LAUNCHER = (_HANGING_RANK_S - 60) / load_recipe(RECIPE[0], RECIPE[1:]).watch.stall_s

    def second_run() -> None:
        other = state / "second"
        other.mkdir()
        finish(start(run_dir, other, None, until), run_dir)

    def start_ranks(recipe: Any, command: Sequence[str], out: Path) -> Any:
        environment = command_lines.environment(recipe, out)
        arguments = list(command[command.index(training.MODULE) + 1 :])
        return Forked(lambda: _rank(arguments, environment, actor_of("rank"), run_dir, state), out / "train.log")

    def actor_of(role: Role) -> Actor:
        return Actor(fault, role, state, second_run)

    words = ["verify", *RECIPE] if until == "verify" else ["run", *RECIPE, "--until", until]
    actor = actor_of("run")
    run_dir.mkdir(exist_ok=True)
    with (
        mock.patch.object(runner, "task_runner", _here),
        mock.patch.object(training, "start_ranks", start_ranks),
        failing_calls(run_dir, actor),
    ):
        code = cli.main([*words, f"run_dir={run_dir}"])
    (state / "calls-run.json").write_text(json.dumps(actor.counts))
    return code


def _rank(arguments: Sequence[str], environment: dict[str, str], actor: Actor, run_dir: Path, state: Path) -> int:
    fault = actor._fault
    if fault and fault.kind == "no rank" and not (state / "acted").exists():
        (state / "acted").touch()
        if fault.detail == "hangs":
            time.sleep(_LIMIT_S)
        return int(fault.detail == "ends with 1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ours = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({**environment, **ours})
    sys.argv = ["pretrain.start", *arguments]
    from pretrain import start as program

    with failing_calls(run_dir, actor):
        code = program.main()
    (state / "calls-rank.json").write_text(json.dumps(actor.counts))
    return code


class Forked:
    """A forked process as `subprocess.Popen` shows one."""

    def __init__(self, action: Callable[[], int], log: Path) -> None:
        self.returncode: int | None = None

        def run() -> int:
            os.closerange(3, 4096)  # locks are the parent's: it must lose them when it dies
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            return action()

        self.pid = _fork(run, log)

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class InProcess:
    """Runs tasks in this process, through datatrove's executor with its completion marks."""

    def run(self, label: str, task: Any, n_tasks: int, log_dir: Path) -> None:
        from launch.executors.steps import executor_of, missing_ranks, run_rank

        for rank in missing_ranks(log_dir, n_tasks):
            run_rank(executor_of(task, n_tasks, log_dir), rank)


@contextlib.contextmanager
def _here(*_: object) -> Iterator[InProcess]:
    from launch.executors.steps import quieten

    quieten()
    yield InProcess()


def finish(child: int, run_dir: Path) -> int:
    """The exit code of a run, once its rank has ended as well; HUNG if that takes too long."""
    from pretrain import layout
    from twofold import lease

    end = time.monotonic() + _LIMIT_S
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return HUNG
        time.sleep(0.05)
    while any(lease.is_held(path) for path in run_dir.glob(f"artifacts/train-*/{layout.TRAINER_LEASE}")):
        if time.monotonic() > end:
            return HUNG  # a rank that outlives its supervisor
        time.sleep(0.05)
    return os.waitstatus_to_exitcode(status)


def _write_to(log: Path) -> None:
    """Send what this process says to a file: that of a rank grows, as the supervisor expects."""
    how = os.O_TRUNC if log.name == RUN_LOG else os.O_APPEND
    file = os.open(log, os.O_WRONLY | os.O_CREAT | how, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
