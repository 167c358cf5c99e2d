"""Faults injected into `twofold run`, over data stages and training: `python -m benchmarks.survival --faults N`.

Contract: fault i of a seed is always the same one (survival_faults.py). A run that meets it is started again, as a
scheduler would, until it ends with 0; then its artifacts (documents, decisions, shards, weights, token counts) and its
curve of losses, norms and bits per byte must be those of an undisturbed run, bit for bit. On the way it may end with
one line that names what is wrong and a hint; the cause is then removed (a damaged file is restored, the disk has space
again). It fails if a result differs, if a traceback or a line without a hint is all that is told, if training goes on
from an earlier step than the newest intact checkpoint, or if it hangs. A damaged byte of a finished artifact costs
hours to find in terabytes: there, a result that differs passes if `twofold verify` names the file.

Every run is a process of its own with real signals, locks and files: the command line, the supervisor and one rank,
forked from a process that has imported torch and DeepSpeed, which takes 17 CPU seconds otherwise. Tasks of data stages
run in the run's process. What is simulated: errors of the file system, raised where Python calls it. What is not met
here: DeepSpeed's launcher and several ranks (tests/launch, tests/pretrain).

Results go to a JSON Lines file as they come; a benchmark that was interrupted goes on with the next fault.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.survival_faults import Fault, damage, draw
from benchmarks.survival_runs import HUNG, RUN_LOG, finish, start, warm
from twofold.files import sha256_of, write_json
from twofold.root import ROOT

_MOST_STARTS = 6
_TOTAL_STEPS = 16
_SCORES = ("step", "loss", "z_loss", "grad_norm", "lr", "tokens", "batch_hash", "bits_per_byte")


@dataclass
class Trial:
    """What became of a run that met a fault."""

    fault: Fault
    codes: list[int]
    told: list[str]
    """The lines that starts ended with, and the file that was damaged."""
    problem: str | None
    """Why the trial fails; None if it passes."""
    seconds: float


class World:
    """A folder with an undisturbed run, and the place for runs that meet faults."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole = folder, folder / "whole"
        self.counts_file = folder / "counts.json"

    def prepare(self) -> None:
        """Make the undisturbed run, once for its data and once for its training, counting its calls."""
        if self.counts_file.exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        counts = {}
        for subject, until in (("pipeline", "shards"), ("trainer", "train")):
            state = self.folder / f"state-{subject}"
            state.mkdir(parents=True)
            if finish(start(self.whole, state, None, until), self.whole) != 0:
                raise RuntimeError((state / RUN_LOG).read_text())
            for path in state.glob("calls-*.json"):
                counts[f"{subject}/{path.stem[6:]}"] = json.loads(path.read_text())
        write_json(self.counts_file, counts)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = json.loads(self.counts_file.read_text())
        return found

    def meet(self, fault: Fault) -> Trial:
        """Let a new run meet the fault."""
        begin = time.monotonic()
        place = self.folder / f"fault-{fault.index}"
        shutil.rmtree(place, ignore_errors=True)
        (place / "state").mkdir(parents=True)
        run_dir = place / "run"
        if fault.subject == "trainer":
            shutil.copytree(self.whole, run_dir, symlinks=True, ignore=_trainings)
        trial = Trial(fault, [], [], None, 0.0)
        trial.problem = self._outcome(trial, run_dir, place / "state")
        trial.seconds = round(time.monotonic() - begin, 2)
        if trial.problem is None:
            shutil.rmtree(place)
        return trial

    def _outcome(self, trial: Trial, run_dir: Path, state: Path) -> str | None:
        fault = trial.fault
        until = "shards" if fault.subject == "pipeline" else "train"
        broken: tuple[Path, bytes] | None = None
        for _ in range(_MOST_STARTS):
            before = _newest_step(run_dir)
            code = finish(start(run_dir, state, fault, until), run_dir)
            trial.codes.append(code)
            log = (state / RUN_LOG).read_text(errors="replace")
            if (state / "second").exists() and "is in use by" not in (state / "second" / RUN_LOG).read_text():
                return "a second run was not refused"
            if code == 0:
                return self._difference(run_dir, fault, broken, before if len(trial.codes) > 1 else 0)
            if code > 0:
                trial.told.append(_told(log))
                if problem := _badly_told(code, log):
                    return problem
            if code == 2 and broken and broken[0].name not in log and broken[0].parent.name not in log:
                return f"{broken[0]} was damaged and is not named"
            if fault.kind == "damage" and broken is None:
                broken = damage(run_dir, fault)
                trial.told.append(f"damaged: {broken[0].relative_to(run_dir)}" if broken else "nothing to damage")
            elif code in (1, 2):
                (state / "cured").touch()
                if broken:
                    broken[0].parent.mkdir(parents=True, exist_ok=True)
                    broken[0].write_bytes(broken[1])
        return f"did not end within {_MOST_STARTS} starts"

    def _difference(self, run_dir: Path, fault: Fault, broken: tuple[Path, bytes] | None, before: int) -> str | None:
        if fault.subject == "trainer" and before and fault.kind != "damage":
            began = [event["step"] for event in _events(run_dir) if event["event"] == "start"]
            if began[-1] < before and began[-1] < _TOTAL_STEPS:
                return f"went on from step {began[-1]}, and the checkpoint of step {before} was there"
        ours, theirs = results(self.whole, fault.subject), results(run_dir, fault.subject)
        if ours == theirs:
            return None
        if broken and fault.detail == "altered":
            state = run_dir.parent / "verify"
            state.mkdir()
            code = finish(start(run_dir, state, None, "verify"), run_dir)
            if code == 2 and broken[0].name in (state / RUN_LOG).read_text():
                return None
        return f"differs in {[key for key in ours if ours[key] != theirs.get(key)][:3]}"


def _trainings(folder: str, names: list[str]) -> set[str]:
    """What a copy of the undisturbed run leaves out."""
    at_top = Path(folder).name in ("whole", "artifacts")
    return {name for name in names if at_top and (name == "train" or name.startswith("train-"))}


def results(run_dir: Path, subject: str) -> dict[str, Any]:
    """What must be equal: hashes of the files of the artifacts, and the curve of training."""
    found: dict[str, Any] = {}
    for link in sorted(path for path in run_dir.iterdir() if path.is_symlink() and path.name != "train"):
        entries = json.loads((link / "manifest.json").read_text())["files"]
        found |= {f"{link.name}/{entry['path']}": sha256_of(link / entry["path"]) for entry in entries}
    if subject == "trainer":
        for path in (*sorted((run_dir / "train" / "weights").iterdir()), run_dir / "train" / "token_counts.json"):
            found[path.name] = sha256_of(path)
        scored = [event for event in _events(run_dir) if event["event"] in ("train", "validation")]
        found["curve"] = [[event["event"], *(event.get(name) for name in _SCORES)] for event in scored]
    else:
        found = {key: value for key, value in found.items() if not key.startswith("train/")}
    return found


def _events(run_dir: Path) -> list[dict[str, Any]]:
    from pretrain.hooks.metrics import METRICS_FILE, read_events

    return [event for path in run_dir.glob(f"train/{METRICS_FILE}") for event in read_events(path)]


def _newest_step(run_dir: Path) -> int:
    from pretrain.checkpoints.manifest import committed, step_of

    found = [step_of(path) for folder in run_dir.glob("artifacts/train-*/checkpoints") for path in committed(folder)]
    return max(found, default=0)


def _told(log: str) -> str:
    """The end of what a start said, without escapes."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Hint:" in line), lines[-1] if lines else "")[:400]


def _badly_told(code: int, log: str) -> str | None:
    """Why the way in which a start ended is no answer to a user."""
    if code == HUNG:
        return "hung"
    if code == 2 and not re.search(r"error: .+: .+ Hint: .+", log):
        return "exit code 2 without a line that gives a hint"
    if code == 1 and "training failed" not in log and not re.search(r"error: .+: .+ Hint: .+", log):
        return f"a traceback: {_told(log)}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="python -m benchmarks.survival", description=__doc__.splitlines()[0])
    options.add_argument("--faults", type=int, default=1000, help="meet faults 0 .. N-1 of the seed")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--only", type=int, nargs="*", help="meet these faults only, again")
    options.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "twofold-survival")
    options.add_argument("--minutes", type=float, default=1e9, help="begin no fault after this time")
    options.add_argument("--json", type=Path, metavar="OUT", help="write a summary here")
    given = options.parse_args(arguments)
    warm()
    os.chdir(ROOT)
    world = World(given.work / f"seed-{given.seed}")
    world.prepare()
    trials_file = world.folder / "trials.jsonl"
    done = {trial["fault"]["index"]: trial for trial in _read(trials_file)}
    end = time.monotonic() + 60 * given.minutes
    for index in given.only or (n for n in range(given.faults) if n not in done):
        if time.monotonic() > end:
            break
        trial = world.meet(draw(given.seed, index, world.counts))
        done[index] = asdict(trial)
        with trials_file.open("a") as file:
            file.write(json.dumps(done[index]) + "\n")
        fault = trial.fault
        what = f"{fault.subject} {fault.kind} {fault.detail} ({fault.role}, call {fault.call})"
        print(
            f"{index:5} {'FAILS' if trial.problem else 'ok':5} {what}: {trial.codes} {trial.problem or ''}", flush=True
        )
    summary = summarize(list(done.values()), given.seed)
    print(json.dumps(summary["outcomes"], indent=2))
    if given.json:
        write_json(given.json, summary)
    return int(bool(summary["failed"]))


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summarize(trials: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Counts of outcomes by subject and kind, and every trial that failed."""
    counts: dict[str, Counter[str]] = {}
    for trial in trials:
        name = f"{trial['fault']['subject']}, {trial['fault']['kind']}"
        told = "told, then the same" if 1 in trial["codes"] or 2 in trial["codes"] else "the same"
        counts.setdefault(name, Counter())["failed" if trial["problem"] else told] += 1
    return {
        "benchmark": "survival",
        "seed": seed,
        "faults": len(trials),
        "failed": [trial for trial in trials if trial["problem"]],
        "outcomes": {name: dict(counts[name]) for name in sorted(counts)},
        "machine": common.machine(),
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    sys.exit(main())
