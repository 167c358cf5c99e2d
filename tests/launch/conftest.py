"""Runs of the real command line, and a small recipe over the shipped sample."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pretrain import world

SMOKE = ROOT / "configs" / "smoke.yaml"
TINY_TRAINING = (
    "phases.general.tokens=12K", "phases.general.global_batch_size=2048", "phases.general.lr_scheduler.warmup=4K",
    "phases.domain.tokens=12K", "phases.domain.global_batch_size=2048", "model.n_layers=2", "model.d_model=64",
    "model.d_ff=128", "checkpoints.every=6K", "validation.every=12K", "validation.sequences_per_source=4",
    "launch.device=cpu", "export.new_tokens=8",
)  # fmt: skip

STALL_S = 20
CLUSTER_PLAN = (
    *TINY_TRAINING, "phases.general.tokens=100K", "phases.domain.tokens=100K", "checkpoints.every=10K",
    "validation.every=100K", f"watch={{stall_s: {STALL_S}, beat_s: 0.5}}",
)  # fmt: skip
"""What is trained over two hosts and on Slurm."""


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start `twofold …` as a user would, from the checkout's root."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "launch.cli", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def twofold(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `twofold …`."""
    process = start(*arguments)
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


def artifact_hashes(run_dir: Path) -> dict[str, str]:
    """File -> hash, over the artifacts that the run folder's links point to."""
    import json

    found = {}
    for link in sorted(path for path in run_dir.iterdir() if path.is_symlink()):
        manifest = json.loads((link / "manifest.json").read_text())
        found |= {f"{link.name}/{entry['path']}": entry["sha256"] for entry in manifest["files"]}
    return found


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one of the test processes makes while the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = common / name
    with (common / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            folder.mkdir()
            try:
                make(folder / "run")
            except BaseException:
                shutil.rmtree(folder)
                raise
    return folder / "run"


@pytest.fixture(scope="session")
def packed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the smoke recipe up to the shards; tests copy it, and do not change it."""

    def make(run_dir: Path) -> None:
        code, _, err = twofold("run", str(SMOKE), f"run_dir={run_dir}", "--until", "shards")
        assert code == 0, err

    return made_once(tmp_path_factory, "packed", make)


@pytest.fixture(scope="session")
def finished_run(packed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke recipe with a tiny training, to the end; tests copy it, and do not change it."""

    def make(run_dir: Path) -> None:
        shutil.copytree(packed_run, run_dir, symlinks=True)
        code, out, err = twofold("run", str(SMOKE), f"run_dir={run_dir}", *TINY_TRAINING)
        assert code == 0, out + err
        assert "3 stages built, 9 cached" in out
        for place in ("report/report.html", "export/model", "train/metrics.jsonl", "tokenizer/tokenizer.json"):
            assert str(run_dir / place) in out
            assert (run_dir / place).exists()

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture(scope="session")
def one_host(packed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks on one host, undisturbed: what training over hosts and Slurm must equal."""

    def make(run_dir: Path) -> None:
        shutil.copytree(packed_run, run_dir, symlinks=True)
        code, out, err = twofold("run", str(SMOKE), f"run_dir={run_dir}", *CLUSTER_PLAN, "--until", "train")
        assert code == 0, out + err

    return made_once(tmp_path_factory, "one-host", make)


@pytest.fixture(scope="session")
def shards_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.write_token_bytes(tmp_path_factory.mktemp("tokenizer"))
