"""`twofold status` over run folders in every state."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from configs.recipe import dump_recipe, load_recipe
from launch.actions.status import rows, training_folder
from launch.cli import main
from pretrain import goodput, layout
from pretrain.goodput import CAUSES, Start
from pretrain.hooks.metrics import METRICS_FILE, read_events
from pretrain.hooks.watchdog import Beat, beat_file
from tests.launch.conftest import SMOKE
from twofold.errors import UserError


def _step(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "event": "train", "step": number, "time": time.time(), "tokens": 8192 * number, "phase": "general", "loss": 5.5,
        "grad_norm": 0.7, "lr": 1e-3, "tps": 4096.0, "mfu": None,
        "skipped": False, **changes,
    }  # fmt: skip


def _folder(tmp_path: Path, *events: dict[str, Any], beats: tuple[Beat, ...] = ()) -> Path:
    out = tmp_path / "artifacts" / "train-abc.partial"
    out.mkdir(parents=True)
    (out / "recipe.yaml").write_text(dump_recipe(load_recipe(SMOKE)))
    (out / METRICS_FILE).write_text("".join(json.dumps({"time": time.time(), **event}) + "\n" for event in events))
    for beat in beats:
        beat_file(out, beat.rank).parent.mkdir(exist_ok=True)
        beat_file(out, beat.rank).write_text(json.dumps(asdict(beat)))
    return out


def _starts(out: Path, *starts: Start) -> None:
    for number, start in enumerate(starts, 1):
        path = out / goodput.TIMES_DIR / f"start-{number:06d}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(start)))


def _start(age_s: float, outcome: str = "", **seconds: float) -> Start:
    """A start that was written last `age_s` ago, and spent its time as told."""
    now = time.time_ns() - int(age_s * 1e9)
    spent = {cause.replace("_", " "): int(value * 1e9) for cause, value in seconds.items()}
    return Start(now - sum(spent.values()), now, dict.fromkeys(CAUSES, 0) | spent, outcome=outcome)


def _told(out: Path) -> dict[str, str]:
    return dict(rows(out, read_events(out / METRICS_FILE), time.time()))


def _beat(rank: int, age: float = 0.0, **changes: Any) -> Beat:
    return Beat(rank, f"node{rank}", 100 + rank, time.time() - age, 5, 3, changes.pop("doing", "step"), 0.1, **changes)


def test_a_training_that_runs(tmp_path: Path) -> None:
    out = _folder(tmp_path, {"event": "start", "step": 0}, _step(1), _step(2, skipped=True), beats=(_beat(0), _beat(1)))
    told = _told(training_folder(tmp_path))
    assert told["state"] == "training"
    assert told["progress"].startswith("step 2 of ")
    assert "phase general" in told["progress"]
    assert told["loss"] == "5.5000, grad_norm 0.700, lr 0.001"
    assert told["incidents"] == "1 skipped steps"
    assert told["ranks"] == "2 on 2 hosts"
    (out / layout.STOP_FILE).touch()
    assert _told(out)["state"] == "stopping: asked to save and end"


def test_silent_and_slow_ranks_are_named(tmp_path: Path) -> None:
    slow = [_beat(rank, probe_s=1.0) for rank in range(3)]
    out = _folder(tmp_path, _step(1), beats=(*slow, _beat(3, probe_s=2.5), _beat(4, age=3600.0)))
    told = _told(out)["ranks"]
    assert "silent: 4 on node4" in told
    assert "rank 3 on node3 takes 2.5 times the median (probe_s)" in told
    assert "rank 1 " not in told


@pytest.mark.parametrize(
    ("outcome", "state", "incidents"),
    [
        ("stopped", "stopped on request, 1h 00m ago", "none"),
        ("failed", "failed 1h 00m ago; the log is ", "1 failed"),
        ("stalled", "ended by its watchdog 1h 00m ago; the log is ", "none"),
        ("", "not running: last heartbeat 1h 00m ago; the log is ", "1 killed or crashed"),
    ],
)
def test_a_training_that_does_not_run(tmp_path: Path, outcome: str, state: str, incidents: str) -> None:
    out = _folder(tmp_path, _step(1), _step(2), beats=(_beat(0, age=3600.0),))
    _starts(out, _start(3600, outcome, stepping=60))
    told = _told(out)
    assert told["state"].startswith(state)
    assert told["incidents"] == incidents
    assert "to go" not in told["speed"]


def test_a_training_of_an_earlier_version_that_does_not_run(tmp_path: Path) -> None:
    out = _folder(tmp_path, _step(1), beats=(_beat(0, age=3600.0),))
    told = _told(out)
    assert told["state"] == "not running"
    assert "time" not in told


def test_the_time_of_a_training_that_runs_is_told_by_cause(tmp_path: Path) -> None:
    out = _folder(tmp_path, _step(1), beats=(_beat(0),))
    _starts(out, _start(3600, starting=600), _start(0, starting=600, stepping=1800, waiting_for_data=12))
    told = _told(out)
    # the second start was launched 2,412 s ago: from 3,600 s ago to then nothing ran
    assert told["time"] == (
        "1h 10m since the first launch: stepping 30m 00s (42.9%), starting 20m 00s (28.6%), down 19m 48s (28.3%), "
        "waiting for data 12s (0.3%)"
    )
    assert told["incidents"] == "1 killed or crashed"
    assert "to go" in told["speed"]


def test_a_stall_and_a_finished_training(tmp_path: Path) -> None:
    out = _folder(tmp_path, {"event": "start", "step": 0}, _step(1), {"event": "start", "step": 1}, _step(2))
    _starts(out, _start(3600, "stalled"), _start(60, "done"))
    verdict = out / layout.STALLS_DIR / "step-00000001" / "verdict.json"
    verdict.parent.mkdir(parents=True)
    verdict.write_text(json.dumps({"text": "no heartbeat from rank 1 on node1"}))
    (out / layout.SUMMARY_FILE).write_text("{}")
    told = _told(out)
    assert told["state"] == "finished"
    assert told["incidents"] == "1 stalls; last stall: no heartbeat from rank 1 on node1"


def test_a_training_that_is_starting_is_shown_instead_of_the_finished_one(tmp_path: Path) -> None:
    finished = _folder(tmp_path, _step(1))
    os.utime(finished / "recipe.yaml", (1, 1))
    os.utime(finished / METRICS_FILE, (2, 2))
    starting = tmp_path / "artifacts" / "train-def.partial"
    starting.mkdir()
    (starting / "recipe.yaml").write_text((finished / "recipe.yaml").read_text())
    assert training_folder(tmp_path) == starting
    assert _told(starting)["incidents"] == "none"


def test_a_folder_without_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no training"):
        training_folder(tmp_path)


def test_json_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = _folder(tmp_path, _step(1, loss=None), beats=(_beat(0, age=3600.0),))
    _starts(out, _start(60, "failed", stepping=30))
    assert main(["status", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["train"]["loss"], found["train"]["step"]) == (None, 1)
    assert found["seconds"]["stepping"] == 30
    assert found["incidents"]["failed"] == 1
    assert found["checkpoint"] is None
