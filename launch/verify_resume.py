"""`twofold verify-resume`: proof, on the user's own machine, that an interrupted run loses nothing.

Contract: trains a shortened plan of the recipe (every phase, `steps` steps each, the recipe's own model,
data and batch) once without interruption, then again while stopping it after random steps and at every
phase's end, killing a random rank with SIGKILL at a random moment of a step (so within an accumulation
window, too), and damaging the newest checkpoint. Losses, norms, rates, batches, ledger and weights must
be equal bit for bit. Where two ranks or more can run, it trains a third time while the number of ranks
changes at every stop (1 -> 2 -> 1): batches, rates and ledger equal, losses up to the order of float sums.

Moments are drawn from a seed. Folders lie in <run_dir>/verify-resume and are made anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from configs.checks import batch_problem
from configs.files import atomic_path, sha256_of
from configs.manifest import Artifact
from configs.recipe import dump_recipe, parse_recipe
from configs.schema import Recipe
from launch import training
from launch.cluster import commands
from launch.outcomes import TrainingFailed
from launch.preflight import ROOT, choose_device
from launch.run import run_recipe
from pretrain import stage
from pretrain.monitor import METRICS_FILE, read_events

EXACT = ("step", "learning_rate", "tokens", "tokens_by_source", "batch_hash")
"""Equal whatever the number of ranks."""
NUMERIC = ("loss", "z_loss", "gradient_norm")
TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}
"""Largest relative difference of a loss after the number of ranks changed; rounding grows with training."""
_START_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Check:
    """One thing that had to hold."""

    name: str
    passed: bool
    detail: str


class Trials:
    """Starts the trainer on a shortened plan, again and again."""

    def __init__(self, recipe: Recipe, shards: Artifact, tokenizer: Artifact, folder: Path) -> None:
        self.recipe, self.shards, self.tokenizer, self.out = recipe, shards, tokenizer, folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._file = folder / "recipe.yaml"
        with atomic_path(self._file) as path:
            path.write_text(dump_recipe(training.with_absolute_paths(recipe)), encoding="utf-8")

    def start(self, *options: str, ranks: int | None = None) -> subprocess.Popen[bytes]:
        recipe = self.recipe if ranks is None else with_ranks(self.recipe, ranks)
        told = training.arguments(recipe, self._file, self.shards.path, self.tokenizer.path, self.out)
        command = commands.start_command(recipe, training.MODULE, told, self.out)
        with (self.out / "train.log").open("ab") as log:
            return subprocess.Popen(
                [*command, *options], env=commands.environment(recipe, self.out), cwd=ROOT, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def train(self, *options: str, ranks: int | None = None) -> None:
        """Train to the end or to the stop that the options ask for."""
        code = self.start(*options, ranks=ranks).wait()
        if code not in (0, stage.EXIT_CODE_STOPPED):
            tail = (self.out / "train.log").read_text(encoding="utf-8", errors="replace").splitlines()[-30:]
            raise TrainingFailed("\n".join(tail))

    def kill_in_step(self, step: int, fraction: float, chosen: float) -> int:
        """SIGKILL a rank once `step` is behind, some way into the next one; return the steps behind by then."""
        process = self.start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while process.poll() is None and self.done < step and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(fraction * self._step_seconds())
        ranks = _siblings(self.events("start")[-1]["pid"]) if process.poll() is None else []
        if ranks:
            os.kill(ranks[int(chosen * len(ranks))], signal.SIGKILL)
        process.wait()
        return self.done

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in read_events(self.out / METRICS_FILE) if event["event"] == kind]

    @property
    def done(self) -> int:
        return max((event["step"] for event in self.events("train")), default=0)

    def weights(self) -> dict[str, str]:
        return {phase.name: sha256_of(self.out / stage.weights_file(phase.name)) for phase in self.recipe.phases}

    def _step_seconds(self) -> float:
        return float(next((event["step_seconds"] for event in reversed(self.events("train"))), 0.0))


def verify_resume(recipe: Recipe, console: Console, steps: int, seed: int, same_ranks: bool = False) -> bool:
    """Run the trials and print what held; True when everything did."""
    made = run_recipe(recipe, console, until="shards").artifacts
    short = shortened(on_this_machine(recipe), steps)
    root = Path(recipe.run_dir) / "verify-resume"
    total = sum(phase.steps for phase in short.phases)
    console.print(f"[bold]uninterrupted[/bold]  {total} steps")
    whole = Trials(short, made["shards"], made["tokenizer"], root / "uninterrupted")
    whole.train()
    checks = _interrupted(whole, root / "interrupted", random.Random(seed), console)
    if not same_ranks:
        checks += _elastic(whole, root / "elastic", console)
    table = Table("", "what", "", box=None, pad_edge=False)
    for check in checks:
        mark = "[green]equal[/green]" if check.passed else "[bold red]DIFFERS[/bold red]"
        table.add_row(mark, check.name, check.detail)
    console.print(table)
    return all(check.passed for check in checks)


def shortened(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with `steps` steps a phase (or what it has), a checkpoint every third of a phase, W&B off."""
    tree = recipe.model_dump(mode="json")
    for phase, written in zip(tree["phases"], recipe.phases, strict=True):
        phase["tokens"] = min(written.steps, steps) * written.batch
        phase["learning_rate"]["warmup"] = min(written.learning_rate.warmup, phase["tokens"] // 2)
    shortest = min(phase["tokens"] for phase in tree["phases"])
    tree["checkpoints"] = {"every": max(1, shortest // 3), "keep": 3}
    tree["validation"] |= {"every": max(1, shortest // 2)}
    tree["monitor"] |= {"wandb": "off", "log_every_steps": 1}
    return parse_recipe(tree)


def with_ranks(recipe: Recipe, ranks: int) -> Recipe:
    """The recipe for so many ranks on one machine."""
    return training.with_launch(on_this_machine(recipe), cpu_ranks=ranks, gpus_per_node=ranks)


def on_this_machine(recipe: Recipe) -> Recipe:
    """The recipe without its other nodes."""
    return training.with_launch(recipe, nodes=1, min_nodes=None, hostfile=None, launcher="deepspeed")


def compare(whole: Trials, other: Trials, ends: Sequence[str], exactly: bool) -> list[Check]:
    """What must be equal between two finished runs; `ends` says how the other one was treated."""
    ours, theirs = whole.events("train"), other.events("train")
    detail = ", ".join(ends)
    checks = [
        Check(f"{key} of every step", [e[key] for e in ours] == [e[key] for e in theirs], detail) for key in EXACT
    ]
    if exactly:
        checks += [
            Check(f"{key}, bit for bit", [e[key] for e in ours] == [e[key] for e in theirs], "") for key in NUMERIC
        ]
        checks.append(Check("weights at each phase's end, bit for bit", whole.weights() == other.weights(), ""))
        bits = [[e["bits_per_byte"] for e in run.events("validation")] for run in (whole, other)]
        checks.append(Check("bits per byte, bit for bit", bits[0] == bits[1], ""))
    else:
        pairs = [(a["loss"], b["loss"]) for a, b in zip(ours, theirs, strict=False)]
        largest = max((abs(a - b) / abs(a) for a, b in pairs), default=float("inf"))
        limit = TOLERANCE[whole.recipe.engine.precision]
        checks.append(Check("loss", largest <= limit, f"largest relative difference {largest:.1e}, limit {limit:g}"))
    ledgers = [json.loads((run.out / stage.LEDGER_FILE).read_text(encoding="utf-8")) for run in (whole, other)]
    checks.append(Check("ledger", ledgers[0] == ledgers[1], ""))
    return checks


def _interrupted(whole: Trials, folder: Path, draw: random.Random, console: Console) -> list[Check]:
    trials = Trials(whole.recipe, whole.shards, whole.tokenizer, folder)
    ends = []
    first = 0
    for phase in whole.recipe.phases:
        last = first + phase.steps
        stop = draw.randint(first + 1, max(first + 1, last - 2))
        trials.train("--stop-after-step", str(stop))
        ends.append(f"stopped after {stop}")
        killed = trials.kill_in_step(min(stop + 1, last), draw.random(), draw.random())
        ends.append(f"killed in {killed + 1}")
        if last > killed:
            trials.train("--stop-after-step", str(last))
            ends.append(f"stopped at the phase's end, {last}")
        first = last
    ends.append(f"{_damage_newest(folder)} damaged")
    console.print(f"[bold]interrupted[/bold]  {', '.join(ends)}")
    trials.train()
    return compare(whole, trials, ends[:1], exactly=True)


def _elastic(whole: Trials, folder: Path, console: Console) -> list[Check]:
    device, most = choose_device(whole.recipe)
    fits = [
        ranks
        for ranks in (1, 2, 4)
        if (ranks <= max(most, 2) if device == "cpu" else ranks <= most)
        and not any(batch_problem(whole.recipe, phase, ranks, "") for phase in whole.recipe.phases)
    ]
    if len(fits) < 2:
        console.print("[bold]number of ranks[/bold]  not changed: fewer than two ranks fit this machine and batch")
        return []
    total = sum(phase.steps for phase in whole.recipe.phases)
    trials = Trials(whole.recipe, whole.shards, whole.tokenizer, folder)
    way = [fits[0], *fits[1:], fits[0]]
    console.print(f"[bold]number of ranks[/bold]  {' -> '.join(map(str, way))}")
    for number, ranks in enumerate(way[:-1], start=1):
        trials.train("--stop-after-step", str(max(1, total * number // len(way))), ranks=ranks)
    trials.train(ranks=way[-1])
    return compare(whole, trials, [f"ranks {' -> '.join(map(str, way))}"], exactly=False)


def _damage_newest(folder: Path) -> str:
    newest = sorted((folder / stage.CHECKPOINTS_DIR).glob("step-????????"))[-1]
    file = sorted(newest.glob("state/*"))[-1]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return newest.name


def _siblings(pid: int) -> list[int]:
    """All processes with the parent of `pid`, itself among them; none when it has ended."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # one that ends meanwhile
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
    return [other for other, parent in parents.items() if pid in parents and parent == parents[pid]]
