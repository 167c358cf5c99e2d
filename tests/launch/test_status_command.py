"""`twofold status` over run folders in every state."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from configs.recipe import dump_recipe, load_recipe
from launch.actions.status import rows, training_folder
from pretrain import layout
from pretrain.hooks.metrics import METRICS_FILE, read_events
from pretrain.hooks.watchdog import Beat, beat_file, read_beats
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


def _told(out: Path) -> dict[str, str]:
    return dict(rows(out, read_events(out / METRICS_FILE), read_beats(out), time.time()))


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
    ("last", "state"),
    [({"event": "stop", "step": 2}, "stopped and saved"), (_step(2), "not running: no heartbeat; last word `train`")],
)
def test_a_training_that_does_not_run(tmp_path: Path, last: dict[str, Any], state: str) -> None:
    assert _told(_folder(tmp_path, _step(1), last, beats=(_beat(0, age=3600.0),)))["state"].startswith(state)


def test_a_stall_and_a_finished_training(tmp_path: Path) -> None:
    out = _folder(tmp_path, {"event": "start", "step": 0}, _step(1), {"event": "start", "step": 1}, _step(2))
    verdict = out / layout.STALLS_DIR / "step-00000001" / "verdict.json"
    verdict.parent.mkdir(parents=True)
    verdict.write_text(json.dumps({"text": "no heartbeat from rank 1 on node1"}))
    (out / layout.SUMMARY_FILE).write_text("{}")
    told = _told(out)
    assert told["state"] == "finished"
    assert told["incidents"] == "1 restarts, 1 stalls; last stall: no heartbeat from rank 1 on node1"


def test_a_folder_without_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no training"):
        training_folder(tmp_path)
