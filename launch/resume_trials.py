"""Trains a recipe on a shortened plan that is stopped and killed repeatedly, and compares the results.

Contract: `Trials` owns a folder, which it empties first; every start uses the real launcher on this machine.
`compare` checks what must be equal between two finished trainings. The caller chooses the moments of kills.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from configs.recipe import parse_recipe
from configs.schema import Recipe
from launch import training
from launch.cluster import command_lines
from launch.outcomes import TrainingFailed
from pretrain import layout
from pretrain.hooks.metrics import METRICS_FILE, read_events
from twofold.artifacts import Artifact
from twofold.exit_codes import EXIT_CODE_STOPPED
from twofold.files import sha256_of

EXACT = ("step", "lr", "tokens", "tokens_by_source", "batch_hash")
"""Equal for any number of ranks."""
NUMERIC = ("loss", "z_loss", "grad_norm")
TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}
"""Largest relative difference of a loss after a change of the number of ranks; rounding grows with training."""
_START_TIMEOUT_S = 600.0
_START_S = 5.0
"""How long after its first rank appears a start may be killed."""
Moment = Literal["start", "step", "save"]
"""While ranks start; during the step after a given one; while a checkpoint is written."""


@dataclass(frozen=True)
class Check:
    """One comparison and its result."""

    name: str
    passed: bool
    detail: str


class Trials:
    """Starts the trainer repeatedly on a shortened plan."""

    def __init__(self, recipe: Recipe, shards: Artifact, tokenizer: Artifact, folder: Path) -> None:
        self.recipe, self.shards, self.tokenizer, self.out = recipe, shards, tokenizer, folder
        self.left_behind: list[int] = []
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._file = training.write_recipe(recipe, folder)

    def start(self, *options: str, ranks: int | None = None) -> subprocess.Popen[bytes]:
        recipe = self.recipe if ranks is None else with_ranks(self.recipe, ranks)
        arguments = training.arguments(recipe, self._file, self.shards.path, self.tokenizer.path, self.out)
        command = command_lines.start_command(recipe, training.MODULE, arguments, self.out)
        return training.start_ranks(recipe, [*command, *options], self.out)

    def train(self, *options: str, ranks: int | None = None) -> None:
        """Train to the end, or to the stop that the options request."""
        code = self.start(*options, ranks=ranks).wait()
        if code not in (0, EXIT_CODE_STOPPED):
            raise TrainingFailed(training.log_end(self.out))

    def kill_at(self, moment: Moment, step: int, fraction: float, chosen: float) -> bool:
        """Start, SIGKILL a rank at a moment, and wait until all have ended; return whether there was a rank to kill.

        `chosen` (0 to 1) selects the rank, `fraction` (0 to 1) is how far into the moment it is killed; after `step`
        completed steps at the latest.
        """
        began = time.time()
        process = self.start()

        def is_due() -> bool:
            if moment == "start":
                return bool(ranks_of(process.pid))
            if not any(event["time"] > began for event in self.events("start")[-1:]):
                return False  # the events may still be those of an earlier start
            # Committed meanwhile: no longer being saved, so its time must not count as now.
            saving = (path for path in (self.out / layout.CHECKPOINTS_DIR).glob("*.partial") if path.exists())
            return (moment == "save" and any(training.modified(path) > began for path in saving)) or self.done >= step

        while process.poll() is None and not is_due() and time.time() < began + _START_TIMEOUT_S:
            time.sleep(0.001)
        time.sleep(fraction * (_START_S if moment == "start" else self._step_seconds()))
        ranks = ranks_of(process.pid)
        if ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(ranks[int(chosen * len(ranks))], signal.SIGKILL)
        code = process.wait()
        self.left_behind += ranks_of(process.pid)
        return bool(ranks) and code != 0

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in read_events(self.out / METRICS_FILE) if event["event"] == kind]

    @property
    def done(self) -> int:
        return max((event["step"] for event in self.events("train")), default=0)

    def newest_checkpoint(self) -> int:
        """The step of the newest complete checkpoint; 0 if there is none."""
        return int(training.newest_checkpoint(self.out).removeprefix("step-") or 0)

    def weights(self) -> dict[str, str]:
        return {phase.name: sha256_of(self.out / layout.weights_file(phase.name)) for phase in self.recipe.phases}

    def _step_seconds(self) -> float:
        return float(next((event["step_seconds"] for event in reversed(self.events("train"))), 0.0))


def shortened(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with at most `steps` steps per phase, a checkpoint every third of a phase and W&B off."""
    tree = recipe.model_dump(mode="json")
    for phase, written in zip(tree["phases"], recipe.phases, strict=True):
        phase["tokens"] = min(written.steps, steps) * written.global_batch_size
        phase["lr_scheduler"]["warmup"] = min(written.lr_scheduler.warmup, phase["tokens"] // 2)
    shortest = min(phase["tokens"] for phase in tree["phases"])
    tree["checkpoints"] = {"every": max(1, shortest // 3), "keep": 3}
    tree["validation"] |= {"every": max(1, shortest // 2)}
    tree["monitor"] |= {"wandb": "off", "log_every_steps": 1}
    return parse_recipe(tree)


def with_ranks(recipe: Recipe, ranks: int) -> Recipe:
    """The recipe with `ranks` ranks on this machine."""
    return training.with_launch(on_this_machine(recipe), cpu_ranks=ranks, gpus_per_node=ranks)


def on_this_machine(recipe: Recipe) -> Recipe:
    """The recipe on this machine only."""
    return training.with_launch(recipe, nodes=1, min_nodes=None, hostfile=None, launcher="deepspeed")


def compare(whole: Trials, other: Trials, ends: Sequence[str], exactly: bool) -> list[Check]:
    """Everything that must be equal between two finished trainings; `ends` describes the other one's interruptions."""
    ours, theirs = whole.events("train"), other.events("train")
    detail = ", ".join(ends)

    def same(key: str) -> bool:
        return [event[key] for event in ours] == [event[key] for event in theirs]

    checks = [Check(f"{key} of every step", same(key), detail) for key in EXACT]
    if exactly:
        checks += [Check(f"{key}, bit for bit", same(key), "") for key in NUMERIC]
        checks.append(Check("weights at each phase's end, bit for bit", whole.weights() == other.weights(), ""))
        bits = [[e["bits_per_byte"] for e in run.events("validation")] for run in (whole, other)]
        checks.append(Check("bits per byte, bit for bit", bits[0] == bits[1], ""))
    else:
        pairs = [(a["loss"], b["loss"]) for a, b in zip(ours, theirs, strict=False)]
        largest = max((abs(a - b) / abs(a) for a, b in pairs), default=float("inf"))
        limit = TOLERANCE[whole.recipe.engine.precision]
        checks.append(Check("loss", largest <= limit, f"largest relative difference {largest:.1e}, limit {limit:g}"))
    counts = [json.loads((run.out / layout.TOKEN_COUNTS_FILE).read_text(encoding="utf-8")) for run in (whole, other)]
    checks.append(Check("token counts", counts[0] == counts[1], ""))
    return checks


def ranks_of(session: int) -> list[int]:
    """The processes of `pretrain.start` in a launcher's session, in order of their start."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended meanwhile
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if int(fields[3]) == session and (b"-m", training.MODULE.encode()) in itertools.pairwise(words):
                found.append((int(fields[19]), int(folder.name)))
    return [pid for _, pid in sorted(found)]
