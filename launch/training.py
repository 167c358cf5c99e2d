"""Start `deepspeed --module pretrain.train` and follow it.

Contract: returns the manifest counts when training has finished; raises `UserError` when a rank
reported one, `Interrupted` when training stopped on a signal after saving, `TrainingFailed` with the
end of the log for anything else. The trainer's own output goes to `<out>/train.log`; the terminal
shows one progress bar, drawn from the metrics file that the trainer writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from configs.errors import EXIT_CODE_USER_ERROR, Problem, UserError
from configs.files import atomic_path
from configs.manifest import Artifact
from configs.recipe import dump_recipe
from configs.schema import Recipe
from launch.preflight import ROOT, choose_device
from pretrain.stage import EXIT_CODE_STOPPED

_POLL_SECONDS = 0.5
_LOG_LINES_SHOWN = 30


class TrainingFailed(Exception):
    """The trainer ended with an error of its own; the message holds the end of its log."""


class Interrupted(Exception):
    """Training stopped on a signal, saved, and continues when it is run again."""


def build(recipe: Recipe, shards: Artifact, tokenizer: Artifact, out: Path) -> Mapping[str, Any]:
    """Train to the end of the plan (from the newest checkpoint in `out`, if any)."""
    check_supply(recipe, shards)
    resolved = out / "recipe.yaml"
    with atomic_path(resolved) as path:
        path.write_text(dump_recipe(with_absolute_paths(recipe)), encoding="utf-8")
    command = deepspeed_command(recipe, resolved, shards.path, tokenizer.path, out)
    log, metrics = out / "train.log", out / "metrics.jsonl"
    with log.open("ab") as stream:
        # A session of its own: Ctrl-C in the terminal reaches us alone, and the whole group can be ended.
        process = subprocess.Popen(
            command, env=environment(recipe), cwd=ROOT, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
        )  # fmt: skip
        with _signals_passed_on(process, metrics):
            code = _follow(process, metrics)
    _judge(code, out, log)
    counts: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return counts


def check_supply(recipe: Recipe, shards: Artifact) -> None:
    """Refuse a token budget that the packed sources cannot fill, before any device is busy."""
    from pretrain import plan
    from tokenizer import shards as token_shards

    index = token_shards.read_index(shards.path)
    plan.check_supply(recipe.phases, {name: source.tokens for name, source in index.splits["train"].items()})


def deepspeed_command(recipe: Recipe, resolved: Path, shards: Path, tokenizer: Path, out: Path) -> list[str]:
    """The launcher's command line; it works when typed by hand, too (with PYTHONPATH set)."""
    device, ranks = choose_device(recipe)
    hosts = ["--hostfile", str(recipe.launch.hostfile), "--num_nodes", str(recipe.launch.nodes)]
    return [
        sys.executable, "-m", "deepspeed.launcher.runner",
        *(hosts if recipe.launch.nodes > 1 else ["--master_port", str(_free_port())]),
        "--num_gpus", str(ranks),
        "--module", "pretrain.train",
        "--recipe", str(resolved.resolve()),
        "--shards", str(shards.resolve()),
        "--tokenizer", str(tokenizer.resolve()),
        "--out", str(out.resolve()),
        "--device", device,
    ]  # fmt: skip


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe as the trainer reads it: it runs from the checkout's root, wherever `twofold` was called."""
    if recipe.model.start_from is None:
        return recipe
    absolute = str(Path(recipe.model.start_from).resolve())
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"start_from": absolute})})


def environment(recipe: Recipe) -> dict[str, str]:
    """What the launcher's processes need: the checkout on the path, threads shared among CPU ranks."""
    device, ranks = choose_device(recipe)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
    if device == "cpu":
        threads = max(1, len(os.sched_getaffinity(0)) // ranks)
        environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(threads)}
    return environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _signals_passed_on(process: subprocess.Popen[bytes], metrics: Path) -> Iterator[None]:
    """Ctrl-C and SIGTERM reach the trainer, which saves and ends; we wait for it.

    The signal goes to a rank and not to the launcher, which would leave its ranks behind or lose
    their exit code; one rank is enough, since all ranks stop together.
    """

    def pass_on(_number: int, _frame: Any) -> None:
        rank = _running_rank(metrics)
        if rank is None:
            os.killpg(process.pid, signal.SIGTERM)
        else:
            os.kill(rank, signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _running_rank(metrics: Path) -> int | None:
    """The first rank's process, once it has said that it begins; None before, and when it is gone."""
    starts = [event for event in _Follower(metrics).new_events() if event["event"] == "start"]
    pid = starts[-1]["pid"] if starts else None
    return pid if pid is not None and Path(f"/proc/{pid}").exists() else None


def _follow(process: subprocess.Popen[bytes], metrics: Path) -> int:
    """Draw the bar until the process ends; return its exit code."""
    bar = Progress(
        TextColumn("  {task.description:<14}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[numbers]}"),
        console=Console(),
    )
    follower = _Follower(metrics)
    with bar:
        bar_id = bar.add_task("starting ranks", total=None, numbers="")
        while process.poll() is None:
            for event in follower.new_events():
                _show(bar, bar_id, event)
            time.sleep(_POLL_SECONDS)
        for event in follower.new_events():
            _show(bar, bar_id, event)
    return process.returncode


class _Follower:
    """Reads the events that the trainer appends; begins anew when it replaces the file, as on resume."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._position = -1, 0

    def new_events(self) -> list[dict[str, Any]]:
        """Whole lines written since the last call."""
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            return []
        with stream:
            inode = os.fstat(stream.fileno()).st_ino
            if inode != self._inode:
                self._inode, self._position = inode, 0
            stream.seek(self._position)
            lines = stream.read().split(b"\n")
        whole = lines[:-1]
        self._position += sum(len(line) + 1 for line in whole)
        return [json.loads(line) for line in whole]


def _show(bar: Progress, bar_id: Any, line: Mapping[str, Any]) -> None:
    if line.get("event") == "start":
        bar.update(bar_id, total=line["total_steps"], description="training")
    elif line.get("event") == "train":
        numbers = f"loss {line['loss']:.3f} {line['tokens_per_s']:,.0f} tok/s"
        bar.update(bar_id, completed=line["step"], description=line["phase"], numbers=numbers)


def _judge(code: int, out: Path, log: Path) -> None:
    """Turn the trainer's end into a return or an exception."""
    report = out / "error.json"
    if report.exists():
        problems = json.loads(report.read_text(encoding="utf-8"))["problems"]
        report.unlink()
        raise UserError([Problem(**problem) for problem in problems])
    if (out / "summary.json").exists() and code == 0:
        return
    if code == EXIT_CODE_STOPPED:
        raise Interrupted(f"training stopped and saved its state in {out}; run the same command to go on")
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES_SHOWN:])
    assert code != EXIT_CODE_USER_ERROR or tail, "a user error must leave error.json"
    raise TrainingFailed(f"{tail}\n\ntraining ended with exit code {code}; the whole log is {log}")
