"""`twofold resume-test` proves a resume, and sees one that is broken."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from configs.recipe import load_recipe
from launch.actions import resume_test
from launch.resume_trials import Trials, compare, ranks_of, shortened, with_ranks
from tests.launch.conftest import SMOKE, TINY_TRAINING, twofold


def test_the_plan_is_shortened_and_nothing_else() -> None:
    recipe = load_recipe(SMOKE)
    short = shortened(recipe, 8)
    assert [phase.steps for phase in short.phases] == [8, 8]
    assert short.model == recipe.model
    assert [phase.mixture for phase in short.phases] == [phase.mixture for phase in recipe.phases]
    assert short.monitor.wandb == "off"
    assert with_ranks(short, 4).launch.cpu_ranks == 4


@pytest.mark.parametrize(("met", "told"), [(True, "killed after step 12"), (False, "not killed (training had ended)")])
def test_a_kill_that_meets_nobody_does_not_count(met: bool, told: str) -> None:
    trials = SimpleNamespace(kill_at=lambda *_: met, done=12)
    assert resume_test._kill(cast(Trials, trials), 12, random.Random(0)) == told


def _finished(folder: Path, **changes: Any) -> Trials:
    """A finished run of two steps, as its files say."""
    (folder / "weights").mkdir(parents=True)
    event = {
        "event": "train",
        "lr": 1e-3,
        "tokens": 64,
        "tokens_by_source": {"a": 64},
        "batch_hash": "ab",
        "loss": 3.0,
        "z_loss": 9.0,
        "grad_norm": 1.0,
    }
    rows = [{**event, "step": 1}, {**event, "step": 2, **{k: v for k, v in changes.items() if k in event}}]
    rows.append({"event": "validation", "step": 2, "bits_per_byte": {"a": changes.get("bits", 2.0)}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "token_counts.json").write_text(json.dumps({"by_phase": changes.get("token counts", {"one": {"a": 64}})}))
    (folder / "weights" / "one.safetensors").write_bytes(changes.get("weights", b"w"))
    trials = Trials.__new__(Trials)
    trials.out = folder
    trials.recipe = SimpleNamespace(  # type: ignore[assignment]
        phases=[SimpleNamespace(name="one")], engine=SimpleNamespace(precision="fp32")
    )
    return trials


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({}, []),
        ({"loss": 3.0000002}, ["loss, bit for bit"]),
        ({"grad_norm": 1.1}, ["grad_norm, bit for bit"]),
        ({"batch_hash": "cd"}, ["batch_hash of every step"]),
        ({"lr": 2e-3}, ["lr of every step"]),
        ({"weights": b"v"}, ["weights at each phase's end, bit for bit"]),
        ({"bits": 2.1}, ["bits per byte, bit for bit"]),
        ({"token counts": {"one": {"a": 63}}}, ["token counts"]),
    ],
)
def test_every_difference_is_seen(tmp_path: Path, change: dict[str, Any], seen: list[str]) -> None:
    whole, other = _finished(tmp_path / "a"), _finished(tmp_path / "b", **change)
    assert [check.name for check in compare(whole, other, [], exactly=True) if not check.passed] == seen


@pytest.mark.parametrize(("loss", "passed"), [(3.002, True), (3.1, False)])
def test_after_another_number_of_ranks_losses_may_differ_by_rounding_only(
    tmp_path: Path, loss: float, passed: bool
) -> None:
    whole, other = _finished(tmp_path / "a"), _finished(tmp_path / "b", loss=loss)
    assert all(check.passed for check in compare(whole, other, [], exactly=False)) == passed


def test_ranks_are_the_trainers_of_one_launcher(tmp_path: Path) -> None:
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "train.py").write_text("import time; time.sleep(30)")
    start = f"{sys.executable} -m pretrain.start & {sys.executable} -m pretrain.start --module x & sleep 30 & wait"
    launchers = [subprocess.Popen(["bash", "-c", start], cwd=tmp_path, start_new_session=True) for _ in range(2)]
    try:
        found = []
        for _ in range(200):
            found = [ranks_of(launcher.pid) for launcher in launchers]
            if [len(ranks) for ranks in found] == [2, 2]:
                break
            time.sleep(0.05)
        assert [len(ranks) for ranks in found] == [2, 2]
        assert not set(found[0]) & set(found[1])
        assert not {launcher.pid for launcher in launchers} & {pid for ranks in found for pid in ranks}
    finally:
        for launcher in launchers:
            os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait()


@pytest.mark.e2e
def test_a_real_run_resumes_bit_for_bit(packed_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(packed_run, run_dir, symlinks=True)
    arguments = (f"run_dir={run_dir}", *TINY_TRAINING, "--steps", "6", "--same-ranks", "--kills", "1")
    code, out, err = twofold("resume-test", str(SMOKE), *arguments)
    assert code == 0, out + err
    assert "DIFFERS" not in out
    for fact in ("stopped after", "killed after step", "stopped at the phase's end", "damaged"):
        assert fact in out.replace("\n", " "), fact
    for fact in (
        "each kill hit a rank",
        "each start resumes from the newest checkpoint",
        "steps done again",
        "no process is left",
    ):
        assert fact in out, fact
