"""`twofold preflight`: check everything before an allocation is spent.

Contract: changes nothing but scratch files in the run folder, takes a minute; with `dry_run` ranks are started
on all hosts, for the time of two steps. Prints a line a check and raises one `UserError` with every problem.
Checks that need the token shards are left out, and said to be, while those are not made.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from configs.schema import Recipe
from configs.units import format_bytes
from launch import training
from launch.cluster import checks, command_lines, hosts, probe
from launch.preflight import check_package_roots, check_training_fits, choose_device
from launch.runner import existing
from pretrain import layout
from pretrain.engine.ds_config import deepspeed_config
from pretrain.engine.ds_lint import lint
from pretrain.hooks import wandb_mirror
from twofold.artifacts import Artifact
from twofold.errors import Problem, UserError, user_error
from twofold.files import disk_errors, size_of

DRY_RUN = "pretrain.profiling.dry_run"
SLOW_LINK = 0.7
"""Share of the median below which a link between two hosts is named."""
_PROBE_TIMEOUT_S = 180.0
_WRITE_BYTES = 256 << 20


class Checklist:
    """Runs checks one after another; a failing one does not hide the next."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.problems: list[Problem] = []

    def check(self, name: str, action: Callable[[], str | Sequence[Problem]]) -> bool:
        """Whether `action` found nothing wrong: it returns what to print, or problems, or raises `UserError`."""
        try:
            said = action()
        except UserError as error:
            said = error.problems
        if isinstance(said, str):
            self._console.print(f"  [green]good[/green]  {name:<14} {escape(said)}", soft_wrap=True)
            return True
        self._console.print(f"  [red]BAD [/red]  {name:<14} {len(said)} to fix")
        self.problems += said
        return False

    def leave_out(self, name: str, why: str) -> None:
        self._console.print(f"  [dim]–     {name:<14} {escape(why)}[/dim]")


def preflight(recipe: Recipe, console: Console, dry_run: bool = True) -> None:
    """Check everything; raise `UserError` with all that is to be fixed."""
    checklist = Checklist(console)
    checklist.check("packages", _packages)
    checklist.check("recipe", lambda: _recipe(recipe))
    made: dict[str, Artifact] = {}
    checklist.check("artifacts", lambda: _artifacts(recipe, made))
    ready = checklist.check("hosts", lambda: _hosts(recipe, made))
    checklist.check("W&B", lambda: _wandb(recipe))
    if not dry_run or "shards" not in made:
        checklist.leave_out("dry run", "not requested" if not dry_run else "the token shards are not built yet")
    elif ready:
        checklist.check("dry run", lambda: _dry_run(recipe, made))
    if checklist.problems:
        raise UserError(checklist.problems)


def _packages() -> str:
    check_package_roots()
    return "all come from this installation"


def _recipe(recipe: Recipe) -> str:
    check_training_fits(recipe)
    training.check_hostfile(recipe)
    device, ranks = choose_device(recipe)
    cautions = lint(deepspeed_config(recipe, ranks, device), recipe.engine.deepspeed).cautions
    told = "; ".join(str(caution) for caution in cautions)
    return f"{recipe.launch.nodes} nodes x {ranks} ranks on {device}" + (f"; CAUTION {told}" if told else "")


def _artifacts(recipe: Recipe, made: dict[str, Artifact]) -> str | list[Problem]:
    """Which stages are there, each file at the size of its manifest; bytes are for `twofold verify`."""
    made |= existing(recipe)
    problems = []
    for artifact in made.values():
        for entry in artifact.manifest.files:
            path = artifact.path / entry.path
            size = size_of(path)
            if size != entry.bytes:
                hint = f"restore it, or remove the folder {artifact.path} and run again"
                problems.append(Problem(str(path), size, f"is not the {entry.bytes} bytes of its manifest", hint))
    if not problems and "shards" in made:
        training.check_supply(recipe, made["shards"])
    return problems or (f"{len(made)} stages built, the last {list(made)[-1]}" if made else "none built yet")


def _hosts(recipe: Recipe, made: dict[str, Artifact]) -> str | list[Problem]:
    """Probe every host."""
    run_dir = Path(recipe.run_dir).resolve()
    with disk_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        token = run_dir / f".preflight-{os.getpid()}"
        secret = secrets.token_hex(8)
        token.write_text(secret)
    spec = {
        "paths": [str(artifact.path.resolve()) for name, artifact in made.items() if name in ("shards", "tokenizer")],
        "token": str(token),
        "secret": secret,
        "scratch": str(run_dir),
        "write_bytes": _WRITE_BYTES,
    }
    try:
        answers = _asked(recipe, spec)
        replies = len(list(run_dir.glob(f"{token.name}.*")))
    finally:
        for path in run_dir.glob(f"{token.name}*"):
            path.unlink(missing_ok=True)
    device, _ = choose_device(recipe)
    here = checks.Here(
        platform.python_version(), {name: probe.version(name) for name in probe.PACKAGES}, probe.code_digest()
    )
    found = checks.problems(recipe, here, answers, replies, device)
    if found:
        return found
    slowest = min(answer.said["write_bytes_per_s"] for answer in answers if answer.said)
    speed = format_bytes(round(slowest))
    return f"{len(answers)} answer with the same code and versions; the slowest writes {speed} per second"


def _asked(recipe: Recipe, spec: dict[str, Any]) -> list[hosts.Answer]:
    if recipe.launch.launcher == "srun":
        _check_allocation(recipe)
        return hosts.ask_by_srun(command_lines.slurm_hosts()[: recipe.launch.nodes], spec, _PROBE_TIMEOUT_S)
    named = [host.name for host in training.check_hostfile(recipe)]
    if not named:
        return [hosts.Answer("this machine", probe.facts(spec))]
    return hosts.ask_by_ssh(named, spec, _PROBE_TIMEOUT_S)


def _check_allocation(recipe: Recipe) -> None:
    """Refuse a job that is about to end."""
    job, lead = os.environ.get("SLURM_JOB_ID", ""), recipe.launch.slurm.save_lead_s if recipe.launch.slurm else 0
    found = subprocess.run(
        ["squeue", "--noheader", "--jobs", job, "--format=%L"], capture_output=True, text=True, check=False
    )
    left = _seconds(found.stdout.strip())
    if found.returncode or not found.stdout.strip():
        raise user_error("slurm job", job, "is no longer queued: its allocation has expired", "submit a new one")
    if left is not None and left < 2 * lead:
        raise user_error(
            "slurm job",
            job,
            f"ends in {left} s, twice launch.slurm.save_lead_s is {2 * lead}",
            "submit a new one with a longer launch.slurm.time",
        )


def _seconds(text: str) -> int | None:
    """Slurm's days-hours:minutes:seconds; None for UNLIMITED and the like."""
    days, _, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in parts):
        return None
    seconds = sum(int(part) * 60**place for place, part in enumerate(reversed(parts)))
    return int(days or 0) * 86_400 + int(seconds)


def _wandb(recipe: Recipe) -> str:
    mode = wandb_mirror.wandb_mode(recipe.monitor.wandb)
    if mode == "online":
        wandb_mirror.check_key()
    return mode


def _dry_run(recipe: Recipe, made: dict[str, Artifact]) -> str | list[Problem]:
    """Start all ranks for a moment: links, then one step at full shape."""
    out = Path(recipe.run_dir) / "preflight"
    out.mkdir(parents=True, exist_ok=True)
    for name in (layout.DRY_RUN_FILE, layout.ERROR_FILE):
        (out / name).unlink(missing_ok=True)
    (out / training.LOGS_DIR).mkdir(exist_ok=True)
    told = training.write_inputs(recipe, made["shards"], made["tokenizer"], out)
    command = command_lines.start_command(recipe, DRY_RUN, told, out / training.LOGS_DIR)
    begin = time.monotonic()
    code = training.run_quietly(recipe, command, out)
    training.raise_reported(out)
    if code or not (out / layout.DRY_RUN_FILE).exists():
        said = training.log_end(out)
        hint = f"read {out / 'train.log'}"
        return [Problem("dry run", code, f"failed on the ranks: …{said[-400:]}", hint)]
    found = json.loads((out / layout.DRY_RUN_FILE).read_text(encoding="utf-8"))
    slow = slow_links(recipe, found)
    step = found["step"]
    return slow or (
        f"{time.monotonic() - begin:.0f} s; slowest link {_speed(found)}, one micro-batch and update "
        f"{step['micro_batch_seconds']:.2f} s, peak memory {format_bytes(step['memory_bytes'])}"
    )


def slow_links(recipe: Recipe, found: dict[str, Any]) -> list[Problem]:
    """Pairs of hosts far below the median of all, by the names of the hostfile."""
    names = [host.name for host in training.check_hostfile(recipe)] or found["hosts"]
    speeds = [link["bytes_per_s"] for link in found["links"]]
    median = statistics.median(speeds) if speeds else 0.0
    return [
        Problem(
            f"link {names[link['nodes'][0]]} – {names[link['nodes'][1]]}",
            None,
            f"moves {format_bytes(round(link['bytes_per_s']))} per second; the median of all pairs is "
            f"{format_bytes(round(median))}",
            "check the host that the slow links have in common (cable, switch port, NIC), or remove it",
        )
        for link in found["links"]
        if link["bytes_per_s"] < SLOW_LINK * median
    ]


def _speed(found: dict[str, Any]) -> str:
    speeds = [link["bytes_per_s"] for link in found["links"]]
    return f"{format_bytes(round(min(speeds)))} a second" if speeds else "none to measure"
