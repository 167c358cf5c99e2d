"""metrics.jsonl is exact over restarts, and W&B can fail in any way without stopping anything."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import world
from hypothesis import given
from hypothesis import strategies as st

from pretrain.hooks import metrics
from pretrain.hooks.metrics import Monitor, read_events, wandb_mode


def _monitor(out: Path, resumed: int = 0, wish: str = "off") -> Monitor:
    return Monitor(world.recipe(monitor__wandb=wish), out, resumed, enabled=True)


def _steps(out: Path) -> list[tuple[str, int]]:
    return [(event["event"], event["step"]) for event in read_events(out / "metrics.jsonl")]


def test_lines_after_the_resumed_step_are_cut(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    for step in range(1, 6):
        monitor.event("train", step, loss=1.0 / step)
    monitor.event("validation", 5, bits_per_byte={"news": 1.5})
    monitor.close(0)
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"event": "train", "step": 6, "lo')  # a kill in the middle of a line
    monitor = _monitor(tmp_path, resumed=3)
    monitor.event("train", 4, loss=0.25)
    monitor.close(0)
    assert _steps(tmp_path) == [("train", 1), ("train", 2), ("train", 3), ("train", 4)]


@given(st.data())
def test_only_the_end_is_cut_and_equals_filtering_every_line(data: st.DataObject) -> None:
    """Checkpoints are written for the step that they hold, after lines of later steps."""
    step, lines = 0, []
    for kind in data.draw(st.lists(st.sampled_from(["train", "train", "validation", "checkpoint"]), max_size=30)):
        step += kind == "train"
        said = max(0, step - data.draw(st.integers(0, 3))) if kind == "checkpoint" else step
        lines.append({"event": kind, "step": said, "text": "가" * data.draw(st.integers(0, 40))})
    resumed = data.draw(st.integers(0, step + 1))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BLOCK_BYTES", data.draw(st.integers(1, 400)))
        path = Path(folder) / "metrics.jsonl"
        whole = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        path.write_text(whole + data.draw(st.sampled_from(["", '{"event": "tr', '{"step": 0}'])), encoding="utf-8")
        metrics._cut_after(path, resumed)
        assert read_events(path) == [line for line in lines if line["step"] <= resumed and resumed > 0]


def test_nothing_to_resume_starts_afresh(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    monitor.event("validation", 0, bits_per_byte={"news": 2.0})
    monitor.event("train", 1, loss=1.0)
    monitor.close(0)
    _monitor(tmp_path).close(0)
    assert _steps(tmp_path) == []


def test_each_line_is_readable_as_soon_as_it_is_written(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    monitor.event("train", 1, loss=1.0)
    assert _steps(tmp_path) == [("train", 1)]
    monitor.close(0)


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    monitor.event("train", 1, loss=float("nan"), by={"x": float("inf"), "y": 1.0})
    monitor.close(0)
    (event,) = read_events(tmp_path / "metrics.jsonl")
    assert event["loss"] is None
    assert event["by"] == {"x": None, "y": 1.0}


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    monitor = Monitor(world.recipe(), tmp_path, 0, enabled=False)
    monitor.event("train", 1, loss=1.0)
    monitor.sync()
    monitor.close(0)
    assert list(tmp_path.iterdir()) == []


class _Run:
    """A W&B run that remembers, and fails when told to."""

    def __init__(self, failing: str) -> None:
        self.failing, self.logged, self.finished = failing, [], []

    def log(self, numbers: dict[str, float], step: int) -> None:
        if self.failing == "log":
            raise ConnectionError("no route")
        self.logged.append((step, numbers))

    def finish(self, exit_code: int) -> None:
        if self.failing == "finish":
            raise TimeoutError("too slow")
        self.finished.append(exit_code)


def _fake_wandb(monkeypatch: pytest.MonkeyPatch, failing: str = "") -> SimpleNamespace:
    seen = SimpleNamespace(options=[], run=_Run(failing))

    def init(**options: Any) -> _Run:
        seen.options.append(options)
        if failing == "init":
            raise wandb.errors.CommError("refused")
        return seen.run

    monkeypatch.setattr(wandb, "init", init)
    return seen


def test_wandb_gets_the_numbers_of_training_and_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _fake_wandb(monkeypatch)
    monitor = _monitor(tmp_path, wish="offline")
    monitor.event("start", 0, total_steps=3)
    monitor.event("train", 1, loss=1.5, phase="general", tokens_by_source={"news": 64})
    monitor.event("validation", 1, bits_per_byte={"news": 2.0})
    monitor.close(0)
    assert seen.run.logged == [
        (1, {"train/loss": 1.5, "train/tokens_by_source/news": 64}),
        (1, {"validation/bits_per_byte/news": 2.0}),
    ]
    assert seen.run.finished == [0]


def test_the_run_id_survives_a_restart_and_everything_stays_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _fake_wandb(monkeypatch)
    for resumed in (0, 2):
        _monitor(tmp_path, resumed, wish="offline").close(0)
    first, second = seen.options
    assert first["id"] == second["id"]
    assert second["resume"] == "allow"
    assert second["dir"] == str(tmp_path)
    assert second["mode"] == "offline"


@pytest.mark.parametrize("failing", ["init", "log", "finish"])
def test_a_wandb_failure_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    _fake_wandb(monkeypatch, failing)
    monitor = _monitor(tmp_path, wish="offline")
    for step in (1, 2, 3):
        monitor.event("train", step, loss=1.0)
    monitor.close(0)
    events = read_events(tmp_path / "metrics.jsonl")
    assert [event["step"] for event in events if event["event"] == "train"] == [1, 2, 3]
    (warning,) = [event for event in events if event["event"] == "warning"]
    assert "W&B failed and is now off" in warning["message"]


def test_an_upload_that_does_not_end_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _fake_wandb(monkeypatch)
    gate = threading.Event()
    monkeypatch.setattr(seen.run, "finish", lambda exit_code: gate.wait(20))
    monkeypatch.setattr("pretrain.hooks.metrics._FINISH_TIMEOUT_S", 0.05)
    _monitor(tmp_path, wish="offline").close(0)
    gate.set()
    (warning,) = read_events(tmp_path / "metrics.jsonl")
    assert "did not end" in warning["message"]


def test_the_real_client_offline_leaves_its_files_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    out = tmp_path / "out"
    out.mkdir()
    monitor = _monitor(out, wish="auto")
    page = tmp_path / "plan.html"
    page.write_text("<html>the plan</html>")
    monitor.attach([page])
    monitor.event("train", 1, loss=1.0)
    monitor.close(0)
    assert not [event for event in read_events(out / "metrics.jsonl") if event["event"] == "warning"]
    run_id = (out / "wandb-run-id").read_text()
    (record,) = out.glob("wandb/offline-run-*/*.wandb")
    assert record.name == f"run-{run_id}.wandb"
    deadline = time.monotonic() + 120  # W&B's own process writes it
    while b"plan.html" not in record.read_bytes():
        assert time.monotonic() < deadline, record.read_bytes()
        time.sleep(0.1)


def test_online_only_where_a_key_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_mode("auto") == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_mode("auto") == "online"
    assert wandb_mode("offline") == "offline"
    assert wandb_mode("off") == "disabled"
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "disabled"


def test_a_metrics_line_is_one_json_object(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    monitor.event("warning", 0, message="줄\n바꿈")
    monitor.close(0)
    (line,) = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["message"] == "줄\n바꿈"
