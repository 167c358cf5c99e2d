"""Start the trainer, follow it, and start it again when a rank, a host or a link is lost.

Contract: `train` returns the manifest counts when training has finished; raises `UserError` when a rank
reported one, `Interrupted` when training stopped on a signal after saving, `TrainingFailed` with the
end of the log for anything else, once `launch.restarts` in a row made no new checkpoint. The trainer's own
output goes to `<out>/train.log`, over several hosts to `<out>/logs`, too; the terminal shows one progress
bar, drawn from the metrics file that the trainer writes.

A training that ends by itself, and one whose launcher waits for a host that is gone, look the same from
here: the watchdogs of the ranks (pretrain/hooks/watchdog.py) end them within `watch.stall_s`, and some time after it
whatever is left of the launcher is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from configs.recipe import dump_recipe
from configs.schema import Recipe
from launch.cluster import command_lines, hostfile, hosts
from launch.outcomes import Interrupted, TrainingFailed
from launch.preflight import choose_device, fingerprint_checkpoint
from launch.progress import follow
from pretrain import layout
from pretrain.hooks.metrics import METRICS_FILE
from twofold.artifacts import Artifact
from twofold.errors import Problem, UserError, user_error
from twofold.exit_codes import EXIT_CODE_STALLED, EXIT_CODE_STOPPED
from twofold.files import atomic_path
from twofold.root import ROOT
from twofold.stage import Stage

MODULE = "pretrain.train"
LOGS_DIR = "logs"
_LOG_LINES_SHOWN = 30
_SILENT_LAUNCHER = 1.5
"""Times watch.stall_s, and a minute, without a heartbeat after which a launcher is given up."""


def fingerprints(recipe: Recipe) -> Mapping[str, str]:
    """The checkpoint that training starts from, if any."""
    start = recipe.model.start_from
    return {} if start is None else {"start_from": fingerprint_checkpoint(start)}


def build(recipe: Recipe, shards: Artifact, tokenizer: Artifact, out: Path) -> Mapping[str, Any]:
    """Draw the plan's page, then train."""
    from launch.reports import plan

    page = plan.write(recipe, out / "plan.html", plan.supply_of(shards))
    return train(recipe, shards, tokenizer, out, [page])


STAGE = Stage(
    name="train",
    makes="trained weights",
    code_version=layout.CODE_VERSION,
    config=layout.config,
    build=build,
    fingerprints=fingerprints,
)


def train(
    recipe: Recipe, shards: Artifact, tokenizer: Artifact, out: Path, pages: Sequence[Path] = ()
) -> Mapping[str, Any]:
    """Train to the end of the plan (from the newest checkpoint in `out`, if any); W&B gets the pages."""
    check_supply(recipe, shards)
    check_hostfile(recipe)
    inputs = write_inputs(recipe, shards, tokenizer, out)
    inputs += [word for page in pages for word in ("--attach", str(page.resolve()))]
    (out / layout.STOP_FILE).unlink(missing_ok=True)
    failures, saved = 0, _newest_checkpoint(out)
    now: Recipe | None = recipe
    while True:
        assert now is not None
        code = _train(now, inputs, out)
        failure = _judge(code, out)
        if failure is None:
            shutil.rmtree(out / layout.BEATS_DIR, ignore_errors=True)
            counts: dict[str, Any] = json.loads((out / layout.SUMMARY_FILE).read_text(encoding="utf-8"))
            return counts
        failures = failures + 1 if _newest_checkpoint(out) == saved else 1
        saved = _newest_checkpoint(out)
        now = on_living_hosts(recipe, out) if failures <= recipe.launch.restarts else None
        if now is None:
            raise TrainingFailed(failure)
        Console().print(_told(out, code, failures, recipe, now))


def write_inputs(recipe: Recipe, shards: Artifact, tokenizer: Artifact, out: Path) -> list[str]:
    """Write the resolved recipe; the arguments that a rank is started with."""
    resolved = out / "recipe.yaml"
    with atomic_path(resolved) as path:
        path.write_text(dump_recipe(with_absolute_paths(recipe)), encoding="utf-8")
    return arguments(recipe, resolved, shards.path, tokenizer.path, out)


def arguments(recipe: Recipe, resolved: Path, shards: Path, tokenizer: Path, out: Path) -> list[str]:
    """What pretrain's programs are told."""
    device, _ = choose_device(recipe)
    named = {"recipe": resolved, "shards": shards, "tokenizer": tokenizer, "out": out}
    return [word for name, path in named.items() for word in (f"--{name}", str(path.resolve()))] + ["--device", device]


def check_supply(recipe: Recipe, shards: Artifact) -> None:
    """Refuse a token budget that the packed sources cannot fill, before any device is busy."""
    from pretrain.data import plan
    from tokenizer import shards as token_shards

    index = token_shards.read_index(shards.path)
    plan.check_supply(recipe.phases, {name: source.tokens for name, source in index.splits["train"].items()})


def check_hostfile(recipe: Recipe) -> tuple[hostfile.Host, ...]:
    """The hosts of the recipe's hostfile, none without one."""
    launch = recipe.launch
    if launch.hostfile is None or launch.launcher == "srun":
        return ()
    found = hostfile.read(Path(launch.hostfile))
    hostfile.check(found, launch.nodes, choose_device(recipe)[1], launch.hostfile)
    return found[: launch.nodes]


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe as the trainer reads it: it runs from the checkout's root, wherever `twofold` was called."""
    if recipe.model.start_from is None:
        return recipe
    absolute = str(Path(recipe.model.start_from).resolve())
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"start_from": absolute})})


def on_living_hosts(recipe: Recipe, out: Path) -> Recipe | None:
    """The recipe for a restart: on all hosts, or on those that answer, as far as it allows; None when too few."""
    wanted = check_hostfile(recipe)
    if not wanted:
        return recipe
    living = set(hosts.reachable([host.name for host in wanted]))
    left = [host for host in wanted if host.name in living]
    nodes = hostfile.most_nodes(recipe, len(left), choose_device(recipe)[1])
    if nodes is None:
        lost = ", ".join(host.name for host in wanted if host.name not in living)
        raise user_error(
            "training, hosts", lost or None,
            f"do not answer, and the {len(left)} left are too few (launch.min_nodes {recipe.launch.min_nodes})",
            "bring them back, take others into the hostfile, or set launch.min_nodes, then run the same command",
        )  # fmt: skip
    path = out / "hostfile"
    hostfile.write(path, left[:nodes])
    return with_launch(recipe, nodes=nodes, min_nodes=None, hostfile=str(path))


def with_launch(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with other words in its section `launch`."""
    return recipe.model_copy(update={"launch": recipe.launch.model_copy(update=changes)})


def run_quietly(recipe: Recipe, command: Sequence[str], out: Path) -> int:
    """Start ranks and wait for their end without a bar; the exit code."""
    with _started(recipe, command, out) as (process, hangs):
        while process.poll() is None:
            if hangs():
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.2)
        return process.returncode


def _train(recipe: Recipe, inputs: list[str], out: Path) -> int:
    """Start the trainer once and wait for its end; the exit code."""
    logs = out / LOGS_DIR
    if command_lines.is_spread(recipe):
        logs.mkdir(exist_ok=True)
    command = command_lines.start_command(recipe, MODULE, inputs, logs)
    with _started(recipe, command, out) as (process, hangs), _signals_passed_on(out):
        return follow(process, out / METRICS_FILE, hangs)


@contextlib.contextmanager
def _started(
    recipe: Recipe, command: Sequence[str], out: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], bool]]]:
    """The launcher's process, and whether its ranks have been silent for too long; nothing of it outlives the block."""
    shutil.rmtree(out / layout.BEATS_DIR, ignore_errors=True)
    begin = time.time()
    limit = _SILENT_LAUNCHER * recipe.watch.stall_s + 60

    def hangs() -> bool:
        beats = [_modified(path) for path in (out / layout.BEATS_DIR).glob("rank-*.json")]
        return time.time() - max([begin, *beats]) > limit

    with (out / "train.log").open("ab") as stream:
        # A session of its own: Ctrl-C in the terminal reaches us alone, and the whole group can be ended.
        process = subprocess.Popen(
            list(command), env=command_lines.environment(recipe, out), cwd=ROOT, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
        )  # fmt: skip
        try:
            yield process, hangs
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # replaced at this moment
        return time.time()


@contextlib.contextmanager
def _signals_passed_on(out: Path) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGUSR1 ask the trainer to save and end, by a file that any host sees; we wait for it.

    The launcher gets none of them: it would leave its ranks behind or lose their exit code.
    """

    def pass_on(_number: int, _frame: Any) -> None:
        (out / layout.STOP_FILE).touch()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _newest_checkpoint(out: Path) -> str:
    return max((path.name for path in (out / layout.CHECKPOINTS_DIR).glob("step-????????")), default="")


def _judge(code: int, out: Path) -> str | None:
    """None when training is done; an exception for a user's error or a stop; else what is known of the failure."""
    raise_reported(out)
    if (out / layout.SUMMARY_FILE).exists() and code == 0:
        return None
    # Of several ranks' codes a launcher keeps the largest; the file says which kind of end it was.
    if code == EXIT_CODE_STOPPED:
        raise Interrupted(f"training stopped and saved its state in {out}; run the same command to resume")
    return f"{log_end(out)}\n\ntraining ended with exit code {code}; the whole log is {out / 'train.log'}"


def raise_reported(out: Path) -> None:
    """Raise what a rank wrote for the user, and forget it."""
    report = out / layout.ERROR_FILE
    if report.exists():
        problems = json.loads(report.read_text(encoding="utf-8"))["problems"]
        report.unlink()
        raise UserError([Problem(**problem) for problem in problems])


def log_end(out: Path) -> str:
    """The last lines of the log; of a rank's own log where one has a traceback."""
    logs = sorted((out / LOGS_DIR).glob("*rank*.log"), key=lambda path: path.stat().st_mtime)
    texts = [
        path.read_text(encoding="utf-8", errors="replace") for path in [*logs[-64:], out / "train.log"] if path.exists()
    ]
    telling = next((text for text in texts if "Traceback (most recent" in text), texts[-1] if texts else "")
    return "\n".join(telling.splitlines()[-_LOG_LINES_SHOWN:])


def _told(out: Path, code: int, failures: int, recipe: Recipe, now: Recipe) -> str:
    verdicts = sorted((out / layout.STALLS_DIR).glob("*/verdict.json"), key=lambda path: path.stat().st_mtime)
    why = f"exit code {code}"
    if code == EXIT_CODE_STALLED and verdicts:
        why = json.loads(verdicts[-1].read_text(encoding="utf-8"))["text"]
    nodes = f", on {now.launch.nodes} of {recipe.launch.nodes} nodes" if now.launch.nodes < recipe.launch.nodes else ""
    return f"  [yellow]training ended[/yellow]: {why}; restart {failures} of {recipe.launch.restarts}{nodes}"
