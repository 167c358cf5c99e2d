"""Starts the trainer, follows it, and restarts it when a rank, a host or a link is lost.

Contract: `train` returns the manifest counts when training has finished. It raises a `UserError` if a rank reported
one, `Interrupted` if training stopped on a signal after saving, and otherwise `TrainingFailed` with the end of the
log once `launch.restarts` restarts in a row have saved no checkpoint. The trainer's output goes to `<out>/train.log`,
over several hosts also to `<out>/logs`; the terminal shows a progress bar, drawn from the trainer's metrics file.

A training that hangs and a launcher that waits for a lost host look the same from here: the ranks' watchdogs
(pretrain/hooks/watchdog.py) end the ranks within `watch.stall_s`; whatever is left of the launcher is killed later.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.recipe import dump_recipe
from configs.schema import Recipe
from configs.units import format_bytes
from launch import lineage, terminal
from launch.cluster import command_lines, hostfile, hosts
from launch.outcomes import Interrupted, TrainingFailed
from launch.planner.goodput import checkpoint_bytes
from launch.preflight import choose_device, fingerprint_checkpoint
from launch.progress import follow
from pretrain import goodput, layout
from pretrain.checkpoints.manifest import committed
from pretrain.hooks.metrics import METRICS_FILE
from pretrain.hooks.stop_signals import SIGNALS
from twofold import lease
from twofold.artifacts import Artifact
from twofold.errors import UserError, user_error
from twofold.exit_codes import EXIT_CODE_STALLED, EXIT_CODE_STOPPED
from twofold.files import atomic_path, read_json
from twofold.root import ROOT
from twofold.stage import Stage

MODULE = "pretrain.start"
LOGS_DIR = "logs"
LOG_FILE = "train.log"
_LOG_LINES_SHOWN = 30
_SILENT_LAUNCHER = 1.5
"""The launcher is killed after this many times watch.stall_s, plus a minute, without a heartbeat."""


def fingerprints(recipe: Recipe) -> Mapping[str, str]:
    """The weights, or the checkpoint of another run, that training starts from, if any."""
    start, run_dir = recipe.model.start_from, Path(recipe.run_dir)
    found = {} if start is None else {"start_from": fingerprint_checkpoint(start, run_dir)}
    return {**found, **lineage.branch_fingerprint(run_dir)}


def build(recipe: Recipe, shards: Artifact, tokenizer: Artifact, out: Path) -> Mapping[str, Any]:
    """Draw the plan's page, then train, from where another training of this run folder allows it."""
    from launch.reports import plan
    from tokenizer.shards import read_index

    state = lineage.adopt(recipe, read_index(shards.path), fingerprints(recipe).get("start_from"), out)
    if state is not None:
        terminal.OUT.print(f"  goes on from step {state.step:,}, which this recipe does not change")
    page = plan.write(recipe, out / "plan.html", plan.supply_of(shards))
    return train(recipe, shards, tokenizer, out, [page])


STAGE = Stage(
    name="train",
    makes="trained weights",
    code_version=layout.CODE_VERSION,
    config=layout.config,
    build=build,
    fingerprints=fingerprints,
    in_recipe=lambda recipe: bool(recipe.phases),
)


def train(
    recipe: Recipe, shards: Artifact, tokenizer: Artifact, out: Path, pages: Sequence[Path] = ()
) -> Mapping[str, Any]:
    """Train to the end of the plan, from the newest checkpoint in `out` if there is one; W&B gets the pages."""
    warn = functools.partial(print, file=sys.stderr)
    # The first rank sees this lease, and saves and ends when this process is gone.
    with lease.hold(out / layout.SUPERVISOR_LEASE, "training", out, warn):
        return _supervised(recipe, shards, tokenizer, out, pages)


def _supervised(
    recipe: Recipe, shards: Artifact, tokenizer: Artifact, out: Path, pages: Sequence[Path]
) -> Mapping[str, Any]:
    if lease.is_held(out / layout.TRAINER_LEASE):
        hint = "wait until it has saved and ended, or end its process"
        raise user_error("training", str(out), "is still being written by ranks of an earlier start", hint)
    check_supply(recipe, shards)
    check_hostfile(recipe)
    _warn_of_little_space(recipe, out)
    inputs = write_inputs(recipe, shards, tokenizer, out)
    if recipe.model.start_from is not None:
        inputs += ["--start-from", fingerprints(recipe)["start_from"]]
    inputs += [word for page in pages for word in ("--attach", str(page.resolve()))]
    (out / layout.STOP_FILE).unlink(missing_ok=True)
    failures, saved, current = 0, newest_checkpoint(out), recipe
    while True:
        code = _train(current, inputs, out)
        failure = _judge(code, out)
        if failure is None:
            shutil.rmtree(out / layout.BEATS_DIR, ignore_errors=True)
            counts: dict[str, Any] = read_json(out / layout.SUMMARY_FILE)
            return counts
        failures = failures + 1 if newest_checkpoint(out) == saved else 1
        saved = newest_checkpoint(out)
        if failures > recipe.launch.restarts:
            raise TrainingFailed(failure)
        _wait_for_the_last_rank(out, _SILENT_LAUNCHER * recipe.watch.stall_s)
        current = on_living_hosts(recipe, out)
        terminal.OUT.print(_restart_message(out, code, failures, recipe, current))


def _warn_of_little_space(recipe: Recipe, out: Path) -> None:
    """Say now that the checkpoints to come will not fit, rather than when the disk is full."""
    size = checkpoint_bytes(recipe)
    # Those that are kept, one at the end of each phase, and the one that is being written.
    needed = (recipe.checkpoints.keep + len(recipe.phases) + 1 - len(committed(out / layout.CHECKPOINTS_DIR))) * size
    free = shutil.disk_usage(out).free
    if free < needed:
        text = f"the checkpoints to come need {format_bytes(needed)}, and {out} has {format_bytes(free)} free"
        terminal.OUT.print(f"  [yellow]warning[/yellow]: {text}; free space or lower checkpoints.keep", soft_wrap=True)


def _wait_for_the_last_rank(out: Path, limit_s: float) -> None:
    """A first rank that a launcher left behind on another host is ended by its watchdog."""
    deadline = time.monotonic() + limit_s
    while lease.is_held(out / layout.TRAINER_LEASE) and time.monotonic() < deadline:
        time.sleep(1.0)


def write_inputs(recipe: Recipe, shards: Artifact, tokenizer: Artifact, out: Path) -> list[str]:
    """Write the resolved recipe; return the arguments that each rank is started with."""
    resolved = write_recipe(recipe, out)
    return arguments(recipe, resolved, shards.path, tokenizer.path, out)


def write_recipe(recipe: Recipe, out: Path) -> Path:
    """Write the recipe with absolute paths, since ranks run in the checkout's root; return its path."""
    if recipe.model.start_from is not None:
        start_from = str(Path(recipe.model.start_from).resolve())
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"start_from": start_from})})
    resolved = out / "recipe.yaml"
    with atomic_path(resolved) as path:
        path.write_text(dump_recipe(recipe), encoding="utf-8")
    return resolved


def arguments(recipe: Recipe, resolved: Path, shards: Path, tokenizer: Path, out: Path) -> list[str]:
    """The command-line arguments of pretrain's programs."""
    device, _ = choose_device(recipe)
    named = {"recipe": resolved, "shards": shards, "tokenizer": tokenizer, "out": out}
    return [word for name, path in named.items() for word in (f"--{name}", str(path.resolve()))] + ["--device", device]


def check_supply(recipe: Recipe, shards: Artifact) -> None:
    """Refuse a token budget that the token shards cannot fill, before any device is used."""
    from pretrain.data import plan
    from tokenizer import shards as token_shards

    index = token_shards.read_index(shards.path)
    plan.check_supply(recipe.phases, {name: source.tokens for name, source in index.splits["train"].items()})


def check_hostfile(recipe: Recipe) -> tuple[hostfile.Host, ...]:
    """The hosts of the recipe's hostfile; none without a hostfile."""
    launch = recipe.launch
    if launch.hostfile is None or launch.launcher == "srun":
        return ()
    found = hostfile.read(Path(launch.hostfile))
    hostfile.check(found, launch.nodes, choose_device(recipe)[1], launch.hostfile)
    return found[: launch.nodes]


def on_living_hosts(recipe: Recipe, out: Path) -> Recipe:
    """The recipe for a restart on the hosts that answer; a UserError if they are too few."""
    wanted = check_hostfile(recipe)
    if not wanted:
        return recipe
    living = set(hosts.reachable([host.name for host in wanted]))
    left = [host for host in wanted if host.name in living]
    nodes = hostfile.most_nodes(recipe, len(left), choose_device(recipe)[1])
    if nodes is None:
        lost = ", ".join(host.name for host in wanted if host.name not in living)
        too_few = f"do not answer, and the {len(left)} left are too few (launch.min_nodes {recipe.launch.min_nodes})"
        hint = "bring them back, add others to the hostfile, or set launch.min_nodes, then run the same command"
        raise user_error("training, hosts", lost or None, too_few, hint)
    path = out / "hostfile"
    hostfile.write(path, left[:nodes])
    return with_launch(recipe, nodes=nodes, min_nodes=None, hostfile=str(path))


def with_launch(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with changed fields in its section `launch`."""
    return recipe.model_copy(update={"launch": recipe.launch.model_copy(update=changes)})


def run_quietly(recipe: Recipe, command: Sequence[str], out: Path) -> int:
    """Start ranks and wait for their end without a progress bar; return the exit code."""
    with _started(recipe, command, out) as (process, hangs):
        while process.poll() is None:
            if hangs():
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.2)
        return process.returncode


def _train(recipe: Recipe, inputs: list[str], out: Path) -> int:
    """Start the trainer once and wait for its end; return the exit code."""
    logs = out / LOGS_DIR
    if command_lines.is_spread(recipe):
        logs.mkdir(exist_ok=True)
    command = command_lines.start_command(recipe, MODULE, inputs, logs)
    goodput.launched(out)
    with _started(recipe, command, out) as (process, hangs), _signals_passed_on(out):
        return follow(process, out / METRICS_FILE, hangs)


def start_ranks(recipe: Recipe, command: Sequence[str], out: Path) -> subprocess.Popen[bytes]:
    """Start the launcher in a session of its own: Ctrl-C reaches only us, and we can end its whole process group."""
    environment = command_lines.environment(recipe, out)
    with (out / LOG_FILE).open("ab") as log:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        return subprocess.Popen(list(command), env=environment, cwd=ROOT, start_new_session=True, **streams)


@contextlib.contextmanager
def _started(
    recipe: Recipe, command: Sequence[str], out: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], bool]]]:
    """Yield the launcher's process and whether its ranks have been silent for too long; end all of it afterwards."""
    shutil.rmtree(out / layout.BEATS_DIR, ignore_errors=True)
    newest = time.time()
    limit = _SILENT_LAUNCHER * recipe.watch.stall_s + 60

    def hangs() -> bool:
        nonlocal newest  # ranks remove their beats when training is done
        beats = [modified(path) for path in (out / layout.BEATS_DIR).glob("rank-*.json")]
        newest = max([newest, *beats])
        return time.time() - newest > limit

    process = start_ranks(recipe, command, out)
    try:
        yield process, hangs
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        (out / layout.ENVIRONMENT_FILE).unlink(missing_ok=True)


def modified(path: Path) -> float:
    """The time of the last change; now, for a file that was just replaced."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


@contextlib.contextmanager
def _signals_passed_on(out: Path) -> Iterator[None]:
    """On Ctrl-C, SIGTERM, SIGUSR1 and a hang-up, ask the trainer to save and end through a file that all hosts see.

    The launcher gets none of these signals: it would leave its ranks behind or lose their exit code.
    """

    def pass_on(_number: int, _frame: Any) -> None:
        (out / layout.STOP_FILE).touch()

    # nohup ignores hang-ups, and so do we then
    listened = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in listened}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def newest_checkpoint(out: Path) -> str:
    """The name of the newest complete checkpoint; "" if there is none."""
    found = committed(out / layout.CHECKPOINTS_DIR)
    return found[-1].name if found else ""


def _judge(code: int, out: Path) -> str | None:
    """None if training has finished, else a description of the failure; raises for a user's error or a stop."""
    raise_reported(out)
    if (out / layout.SUMMARY_FILE).exists() and code == 0:
        return None
    # The summary decides as well: the launcher returns only the largest of the ranks' exit codes.
    if code == EXIT_CODE_STOPPED:
        raise Interrupted(f"training stopped and saved its state in {out}; run the same command to resume")
    return f"{log_end(out)}\n\ntraining ended with exit code {code}; the full log is {out / LOG_FILE}"


def raise_reported(out: Path) -> None:
    """Raise the error that a rank wrote for the user, and remove its file."""
    report = out / layout.ERROR_FILE
    if report.exists():
        error = UserError.from_json(read_json(report)["problems"])
        report.unlink()
        raise error


def log_end(out: Path) -> str:
    """The last lines of the first log with a traceback, among ranks' own logs and the common one."""
    logs = sorted((out / LOGS_DIR).glob("*rank*.log"), key=lambda path: path.stat().st_mtime)
    found = [path for path in [*logs[-64:], out / LOG_FILE] if path.exists()]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in found]
    telling = next((text for text in texts if "Traceback (most recent" in text), texts[-1] if texts else "")
    return "\n".join(telling.splitlines()[-_LOG_LINES_SHOWN:])


def _restart_message(out: Path, code: int, failures: int, recipe: Recipe, current: Recipe) -> str:
    verdicts = sorted((out / layout.STALLS_DIR).glob("*/verdict.json"), key=lambda path: path.stat().st_mtime)
    why = f"exit code {code}"
    if code == EXIT_CODE_STALLED and verdicts:
        why = json.loads(verdicts[-1].read_text(encoding="utf-8"))["text"]
    nodes, wanted = current.launch.nodes, recipe.launch.nodes
    fewer = f", on {nodes} of {wanted} nodes" if nodes < wanted else ""
    return f"  [yellow]training ended[/yellow]: {why}; restart {failures} of {recipe.launch.restarts}{fewer}"
