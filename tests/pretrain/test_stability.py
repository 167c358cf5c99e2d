"""Poisoned data and broken gradients in real two-rank runs: skipped, rolled back, told, never followed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import world
from safetensors.torch import load_file

from pretrain import goodput, layout
from twofold.exit_codes import EXIT_CODE_STOPPED

pytestmark = pytest.mark.e2e

CALM = {
    "phases__0__tokens": 40 * 256,
    "phases__0__lr_scheduler": {"schedule": "constant", "lr": 1e-2, "warmup": 512},
    "phases__1__tokens": 512,
    "phases__1__lr_scheduler__jump": True,
    "phases__0__max_epochs": 30,
    "phases__1__max_epochs": 30,
    "engine__precision": "fp32",
    "checkpoints__every": 8 * 256,
    "checkpoints__keep": 6,
    "validation__every": 1_000_000,
}


def _run(root: Path, tokenizer: Path, poisoned: list[int], **changes: Any) -> world.Run:
    recipe = world.recipe(**{**CALM, **changes})
    shards = world.write_shards(root / "shards", tokens=dict.fromkeys(world.SOURCES, 30_000))
    world.poison(shards, recipe, poisoned)
    return world.Run(root, recipe, shards, tokenizer)


def test_one_poisoned_step_is_skipped_and_told(tmp_path: Path, tokenizer_dir: Path) -> None:
    run = _run(tmp_path, tokenizer_dir, [30], stability={"rolling_interval_length": 32, "rollback_after": 3})
    assert run.train() == 0, run.log
    events = run.events("train")
    assert [event["step"] for event in events if event["skipped"]] == [31]
    assert events[30]["verdict"] == "spike"
    assert not run.events("rollback")
    assert events[31]["loss"] < events[30]["loss"] - 0.5
    incident = json.loads((run.out / layout.INCIDENTS_DIR / "step-00000031.json").read_text())
    assert incident["loss"] > incident["loss_limit"] or incident["grad_norm"] > incident["grad_norm_limit"]
    counts = json.loads((run.out / layout.TOKEN_COUNTS_FILE).read_text())
    assert sum(counts["by_phase"]["general"].values()) == 39 * 256
    assert sum(counts["skipped"]["general"].values()) == 256


def test_skipping_that_does_not_help_becomes_a_rollback_that_survives_a_stop(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    bad = list(range(26, 30))
    settings = {"rolling_interval_length": 32, "rollback_after": 3}
    run = _run(tmp_path / "a", tokenizer_dir, bad, stability=settings)
    assert run.train() == 0, run.log
    (rollback,) = run.events("rollback")
    # Steps 27, 28 and 29 (from 1) are bad; three before them are skipped, too.
    assert (rollback["step"], rollback["first_skipped"], rollback["last_skipped"]) == (16, 24, 29)
    assert [event["step"] for event in run.events("skipped_after_rollback")] == list(range(24, 30))
    steps = [event["step"] for event in run.events("train")]
    assert steps == [step for step in range(1, 42) if step not in range(24, 30)]
    assert [event["step"] for event in run.events("train") if event["skipped"]] == [30]
    report = json.loads((run.out / layout.INCIDENTS_DIR / "rollback-00000029.json").read_text())
    assert report == {"returned_to_step": 16, "first_skipped": 24, "last_skipped": 29}
    (start,) = goodput.read(run.out)
    assert start.spent["repeated work"] > 0
    assert [lap.step for lap in start.laps] == sorted({lap.step for lap in start.laps})

    other = _run(tmp_path / "b", tokenizer_dir, bad, stability=settings)
    for stop in (20, 26, 33):
        assert other.train("--stop-after-step", str(stop)) == EXIT_CODE_STOPPED, other.log
    assert other.train() == 0, other.log
    assert other.curve() == run.curve()
    for phase in ("general", "domain"):
        weights, others = (load_file(one.out / layout.weights_file(phase)) for one in (run, other))
        assert all(torch.equal(weights[name], value) for name, value in others.items())
    counts = [json.loads((one.out / layout.TOKEN_COUNTS_FILE).read_text()) for one in (run, other)]
    assert counts[0] == counts[1]
    assert sum(counts[0]["by_phase"]["general"].values()) == 33 * 256


def test_a_run_that_keeps_spiking_gives_up_with_a_hint(tmp_path: Path, tokenizer_dir: Path) -> None:
    run = _run(
        tmp_path,
        tokenizer_dir,
        list(range(24, 40)),
        stability={"rolling_interval_length": 32, "rollback_after": 2, "attempts": 1},
    )
    assert run.train() == 2, run.log
    (problem,) = json.loads((run.out / layout.ERROR_FILE).read_text())["problems"]
    assert problem["problem"] == "still has spikes after 1 rollbacks"
    assert "phases.general.lr_scheduler.lr" in problem["hint"]
    assert "Traceback" not in run.log


def test_a_gradient_that_is_nan_on_one_rank_is_skipped_by_all(
    tmp_path: Path, tokenizer_dir: Path, shards_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "nan:4,10")
    run = world.Run(tmp_path, world.recipe(), shards_dir, tokenizer_dir)
    assert run.train(module="faulty_train") == 0, run.log
    events = run.events("train")
    assert [event["step"] for event in events if event["skipped"]] == [4, 10]
    assert [event["grad_norm"] for event in events if event["skipped"]] == [None, None]
    assert events[3]["verdict"] == "not finite"
    assert all(torch.isfinite(value).all() for value in load_file(run.out / layout.weights_file("domain")).values())
    counts = json.loads((run.out / layout.TOKEN_COUNTS_FILE).read_text())
    assert sum(counts["skipped"]["general"].values()) == 256
    assert sum(counts["skipped"]["domain"].values()) == 512
    shutil.rmtree(run.out)


def _no_rank_is_left(run: world.Run) -> bool:
    name = str(run.recipe_file).encode()
    return not [path for path in Path("/proc").glob("[0-9]*/cmdline") if name in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_rank_killed_while_it_saves_leaves_the_checkpoint_before_and_the_run_goes_on(
    tmp_path: Path, tokenizer_dir: Path, shards_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "die:2")
    run = world.Run(tmp_path, world.recipe(), shards_dir, tokenizer_dir)
    assert run.train(module="faulty_train") not in (0, EXIT_CODE_STOPPED)
    assert _no_rank_is_left(run)
    folders = sorted(path.name for path in (run.out / layout.CHECKPOINTS_DIR).iterdir())
    assert folders == ["step-00000004", "step-00000008.partial"]
    assert run.train() == 0, run.log
    assert [event["step"] for event in run.events("start")] == [0, 4]
    assert [event["step"] for event in run.events("train")] == list(range(1, 15))
    assert not list((run.out / layout.CHECKPOINTS_DIR).glob("*.partial"))
    first, second = goodput.read(run.out)
    assert (first.laps[0].step, second.laps[0].step, second.outcome) == (0, 4, "done")
    spent = goodput.account([first, second], second.time, 0)
    assert sum(spent.values()) == pytest.approx(second.time - first.launched, abs=50e6), "to 50 ms"
    assert all(spent[cause] > 0 for cause in ("stepping", "starting", "validating", "saving checkpoints", "down"))
    assert spent["repeated work"] > 0, "steps 5 to 8 were trained twice"


def test_no_rank_waits_for_one_that_failed(
    tmp_path: Path, tokenizer_dir: Path, shards_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "fail:3")
    run = world.Run(tmp_path, world.recipe(), shards_dir, tokenizer_dir)
    assert run.train(module="faulty_train") != 0
    assert _no_rank_is_left(run)
    (problem,) = json.loads((run.out / layout.ERROR_FILE).read_text())["problems"]
    assert problem["hint"] == "mount the data on this host"
