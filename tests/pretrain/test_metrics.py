"""metrics.jsonl is exact over restarts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import world
from hypothesis import given
from hypothesis import strategies as st

from pretrain.hooks import metrics
from pretrain.hooks.metrics import Monitor, read_events


def _monitor(out: Path, resumed: int = 0) -> Monitor:
    return Monitor(world.recipe(), out, resumed, enabled=True)


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
        lines.append({"event": kind, "step": said, "time": len(lines), "text": "가" * data.draw(st.integers(0, 40))})
    resumed = data.draw(st.integers(0, step + 1))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BLOCK_BYTES", data.draw(st.integers(1, 400)))
        path = Path(folder) / "metrics.jsonl"
        whole = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        path.write_text(whole + data.draw(st.sampled_from(["", '{"event": "tr', '{"step": 0}'])), encoding="utf-8")
        metrics._cut_after(path, resumed)
        assert list(read_events(path)) == [line for line in lines if line["step"] <= resumed and resumed > 0]


def test_a_kill_while_lines_are_cut_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """A kill leaves any part of the writes: the copy behind the end, the copy in its place, and the cut."""
    path = tmp_path / "metrics.jsonl"
    events = [("train", 1), ("train", 2), ("validation", 2), ("train", 3), ("checkpoint", 2), ("train", 4)]
    lines = [json.dumps({"event": kind, "step": step}).encode() + b"\n" for kind, step in events]
    kept = [line for line, (_, step) in zip(lines, events, strict=True) if step <= 2]
    whole, moved = b"".join(lines), b"".join(kept[2:])
    begin = len(lines[0] + lines[1])
    copied = [whole + moved[:written] for written in range(len(moved) + 1)]
    placed = [(whole[:begin] + moved[:written] + whole[begin + written :]) + moved for written in range(len(moved) + 1)]
    for left in [*copied, *placed]:
        path.write_bytes(left)
        metrics._cut_after(path, 2)
        assert sorted(path.read_bytes().splitlines(keepends=True)) == sorted(kept)


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


def test_a_metrics_line_is_one_json_object(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    monitor.event("warning", 0, message="줄\n바꿈")
    monitor.close(0)
    (line,) = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["message"] == "줄\n바꿈"
