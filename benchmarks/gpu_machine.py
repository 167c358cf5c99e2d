"""On a bare CUDA machine without a network: install carried wheels, then measure, train or test.

    python3 -m benchmarks.gpu_machine --wheels DIR --out OUT bench [--part peaks …] [--layers N]
    python3 -m benchmarks.gpu_machine --wheels DIR --out OUT train --data FILE.tar.xz [key=value …]
    python3 -m benchmarks.gpu_machine --wheels DIR --out OUT smoke
    python3 -m benchmarks.gpu_machine --wheels DIR --out OUT tests [pytest's arguments]

    bench   benchmarks.train_gpu -> OUT/train_gpu.json; `--earlier FILE` goes on with that of another call
    train   a recipe's phases on packed shards -> OUT/metrics.jsonl; the archive holds the folders `shards` and
            `tokenizer` (docs/performance.md says how it is made)
    smoke   the shipped sample from documents to report, then the proof that a resumed run equals an unbroken one
    tests   pytest

Contract: only Python and torch need to be there. Wheels go into a folder of their own, ahead of what is
installed; nothing outside it and OUT is written. Ends within `--minutes`, with the last lines of each log on the
terminal, and with the first exit code that was not 0. OUT holds few and small files: figures and logs, no weights.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHOWN_BYTES = 4000
SAVING_SECONDS = 45
"""A training that is stopped may take this long to save."""


class Machine:
    """Runs commands with the carried packages, until the time is over."""

    def __init__(self, wheels: Path | None, out: Path, minutes: float) -> None:
        self.out, self.work = out, Path(tempfile.mkdtemp(prefix="twofold-"))
        self._deadline = time.monotonic() + 60 * minutes
        self.site = self.work / "site"
        out.mkdir(parents=True, exist_ok=True)
        if wheels is not None:
            self._install(wheels)

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def _install(self, wheels: Path) -> None:
        files = sorted(map(str, wheels.glob("*.whl")))
        options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(self.site)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *files], check=True)

    def run(self, name: str, command: Sequence[str], spare_s: float = 0.0, **variables: str) -> int:
        """The command's exit code; asked to stop `spare_s` before the end, then killed. Its log is OUT/NAME.log.

        `variables` are added to its environment.
        """
        paths = [str(self.site), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore::FutureWarning",
            **variables,
        }
        log = self.out / f"{name}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)
            code = _wait(process, self.seconds_left - spare_s, spare_s)
        print(f"== {name}: {code}\n{log.read_bytes()[-SHOWN_BYTES:].decode('utf-8', errors='replace')}", flush=True)
        return code

    def keep(self, *files: Path) -> None:
        """Copy what is there into OUT."""
        for file in files:
            if file.exists():
                shutil.copyfile(file, self.out / file.name)


def _wait(process: subprocess.Popen[bytes], seconds: float, spare_s: float) -> int:
    """Its exit code, or that of being stopped."""
    for number, limit in ((signal.SIGTERM, max(1.0, seconds)), (signal.SIGKILL, max(1.0, spare_s))):
        try:
            return process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
    return process.wait()


def bench(machine: Machine, options: argparse.Namespace) -> int:
    if options.earlier:
        shutil.copyfile(options.earlier, machine.out / "train_gpu.json")
    minutes = str(machine.seconds_left / 60 - 0.3)
    out = str(machine.out / "train_gpu.json")
    command = [sys.executable, "-m", "benchmarks.train_gpu", "--json", out, "--minutes", minutes]
    return machine.run("bench", [*command, "--device", options.device, *options.rest])


def train(machine: Machine, options: argparse.Namespace) -> int:
    """One rank of pretrain.start without a launcher; stopped in time, it saves and ends with 75."""
    data, trained, recipe = (machine.work / name for name in ("data", "train", "recipe.yaml"))
    with tarfile.open(options.data) as archive:
        archive.extractall(data, filter="data")
    trained.mkdir()
    _resolve(machine, options.recipe, ["monitor.wandb=off", *options.rest], recipe)
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    command = [
        sys.executable, "-m", "pretrain.start", "--recipe", str(recipe), "--shards", str(data / "shards"),
        "--tokenizer", str(data / "tokenizer"), "--out", str(trained), "--device", options.device,
    ]  # fmt: skip
    code = machine.run("train", command, SAVING_SECONDS, DS_ACCELERATOR=options.device, **alone)
    machine.keep(*(trained / name for name in ("metrics.jsonl", "summary.json", "token_counts.json", "error.json")))
    return code


def _resolve(machine: Machine, recipe: Path, overrides: Sequence[str], resolved: Path) -> None:
    sys.path.insert(0, str(machine.site))  # what reading a recipe needs was carried
    from configs.recipe import dump_recipe, load_recipe

    resolved.write_text(dump_recipe(load_recipe(recipe, overrides)), encoding="utf-8")


def smoke(machine: Machine, options: argparse.Namespace) -> int:
    run_dir = machine.work / "smoke"
    settings = ["configs/smoke.yaml", f"run_dir={run_dir}", "monitor.wandb=off", *options.rest]
    code = machine.run("smoke", [sys.executable, "-m", "launch.cli", "run", *settings])
    machine.keep(run_dir / "report" / "report.html", run_dir / "train" / "metrics.jsonl")
    return code or machine.run(
        "resume-test", [sys.executable, "-m", "launch.cli", "resume-test", *settings, "engine.deterministic=true"]
    )


def tests(machine: Machine, options: argparse.Namespace) -> int:
    return machine.run("tests", [sys.executable, "-m", "pytest", *options.rest])


JOBS = {"bench": bench, "train": train, "smoke": smoke, "tests": tests}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmarks.gpu_machine", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install, each with what it needs")
    parser.add_argument("--out", type=Path, required=True, help="results and logs")
    parser.add_argument("--minutes", type=float, default=9.0, help="end within so long (default 9)")
    parser.add_argument("--earlier", type=Path, help="bench: go on with this file of an earlier call")
    parser.add_argument("--data", type=Path, help="train: archive of shards and tokenizer")
    parser.add_argument("--recipe", type=Path, default=ROOT / "configs" / "gpu_150m.yaml", help="train: what to train")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="bench and train: where (default cuda)"
    )
    parser.add_argument("job", choices=list(JOBS))
    options, rest = parser.parse_known_args(arguments)
    if options.job == "train" and options.data is None:
        parser.error("train needs --data")
    machine = Machine(options.wheels, options.out.resolve(), options.minutes)
    try:
        return JOBS[options.job](machine, argparse.Namespace(**vars(options), rest=rest))
    finally:
        shutil.rmtree(machine.work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
