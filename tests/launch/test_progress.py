"""What a training prints while it runs, drawn from the events that it writes."""

from __future__ import annotations

import errno
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.failing_calls import Once, failing_calls
from configs.recipe import dump_recipe, load_recipe
from launch import progress, terminal
from launch.actions.status import numbers as status_numbers
from launch.actions.status import rows
from launch.progress import Display, Follower, event_line, format_seconds
from pretrain.hooks.metrics import finite
from pretrain.hooks.wandb_mirror import numbers
from tests.launch.conftest import SMOKE

RECIPE = dump_recipe(load_recipe(SMOKE))

START = {"event": "start", "step": 0, "total_steps": 175, "total_tokens": 1750, "world_size": 2, "device": "cpu"}


def train(step: int, loss: float = 4.912, **fields: Any) -> dict[str, Any]:
    line = {"event": "train", "step": step, "phase": "general", "loss": loss, "lr": 4e-3, "tps": 12.5, "skipped": False}
    return finite({**line, "verdict": "ok", "tokens": 10 * step, **fields})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def display(clock: Clock, output: io.StringIO) -> Display:
    return Display(Console(file=output, width=60), clock)


def test_outside_a_terminal_a_line_appears_every_few_seconds(
    display: Display, clock: Clock, output: io.StringIO
) -> None:
    with display:
        display.show([START])
        for step in range(1, 121):
            clock.now += 0.5
            display.show([train(step)])
    lines = output.getvalue().splitlines()
    assert lines[1] == "  starting: 175 steps, 1.75K tokens, 2 ranks (cpu)"
    steps = [line for line in lines if "step " in line and "loss" in line]
    assert len(steps) == 12, "one every five seconds of a minute"
    assert steps[-1] == "  step 120/175 (general)  loss 4.912  lr 4.00e-03  12 tok/s  eta 44s"


def test_the_last_step_is_always_printed(display: Display, output: io.StringIO) -> None:
    with display:
        display.show([START, train(1), train(2)])
    assert "step 2/175" in output.getvalue().splitlines()[-1]


def test_a_long_start_is_announced(display: Display, clock: Clock, output: io.StringIO) -> None:
    with display:
        for clock.now in (30.0, 61.0, 90.0, 122.0):
            display.show([])
    lines = output.getvalue().splitlines()
    assert "starting ranks" in lines[0]
    assert [line.strip() for line in lines[1:]] == ["still starting, 1m 01s so far", "still starting, 2m 02s so far"]


@pytest.mark.parametrize(("loss", "shown"), [(4.25, "loss 4.250"), (float("nan"), "loss not finite")])
def test_every_loss_that_training_can_log_is_shown(
    display: Display, output: io.StringIO, loss: float, shown: str
) -> None:
    """A skipped step may have a loss that is not finite, which metrics.jsonl holds as null."""
    with display:
        display.show([START, train(3, loss)])
    assert shown in output.getvalue()


EVENTS: dict[str, dict[str, Any]] = {
    "train": train(
        3,
        z_loss=0.5,
        grad_norm=1.0,
        mfu=0.5,
        mfu_causal=0.4,
        data_loading_pct=1.0,
        step_seconds=0.5,
        seconds=9.0,
        memory_bytes=5,
        tokens_by_source={"news": 64},
    ),
    "validation": {
        "phase": "general",
        "tokens": 30,
        "bits_per_byte": {"news": 2.0, "law": 1.0},
        "samples": [],
        "elapsed_seconds": 0.5,
    },
    "checkpoint": {
        "path": "checkpoints/step-00000003",
        "reason": "tokens",
        "pause_seconds": 0.1,
        "elapsed_seconds": 0.2,
    },
    "straggler": {"rank": 1, "host": "node1", "measure": "probe_s", "seconds": 2.0, "median_seconds": 1.0},
    "rollback": {"at_step": 5, "first_skipped": 4, "last_skipped": 5, "checkpoint": "step-00000003"},
    "skipped_after_rollback": {"tokens": 30},
    "warning": {"message": "W&B"},
    "stall": {"message": "rank 1"},
    "start": START,
    "stop": {},
    "end": {},
}
FLOATS = sorted({name for fields in EVENTS.values() for name, value in fields.items() if isinstance(value, float)})


@given(st.sets(st.sampled_from(FLOATS)), st.sets(st.sampled_from(["news", "law"])))
def test_every_number_of_every_event_may_be_missing(missing: set[str], sources: set[str]) -> None:
    """What is not finite is null in metrics.jsonl; the bar, the lines, status and W&B show what there is."""
    events = [
        {
            "event": kind,
            "step": 3,
            "time": time.time() + 1,
            **{name: None if name in missing else value for name, value in fields.items()},
        }
        for kind, fields in EVENTS.items()
    ]
    bits = next(event["bits_per_byte"] for event in events if event["event"] == "validation")
    events[1]["bits_per_byte"] = {name: None if name in sources else value for name, value in bits.items()}
    for is_terminal in (False, True):
        with Display(Console(file=io.StringIO(), width=100, force_terminal=is_terminal)) as display:
            display.show(events)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "recipe.yaml").write_text(RECIPE)
        told = dict(rows(Path(folder), events, time.time()))
        as_json = json.loads(json.dumps(status_numbers(Path(folder), events, time.time()), allow_nan=False))
    assert as_json["train"] == events[0]
    assert as_json["validation"]["bits_per_byte"] == events[1]["bits_per_byte"]
    assert ("not finite" in told["loss"]) == bool({"loss", "grad_norm", "lr"} & missing)
    assert ("not finite" in told["bits per byte"]) == bool(sources)
    assert not [value for event in events for value in numbers(event, "x").values() if value is None]


class File:
    """A metrics file that a trainer writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self.time = 0

    def line(self, step: int) -> bytes:
        self.time += 1
        return json.dumps({"event": "train", "step": step, "time": self.time}).encode() + b"\n"


@given(st.data())
def test_what_is_appended_is_seen_once_whatever_is_cut(data: st.DataObject) -> None:
    """A rollback cuts the end of the file in place; the next poll may find it shorter, or longer again."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "_REMEMBERED_BYTES", data.draw(st.integers(20, 200)))
        file = File(Path(folder) / "metrics.jsonl")
        follower, lines, seen, expected = Follower(file.path), [], [], []
        for action in data.draw(st.lists(st.sampled_from(["append", "append", "half", "cut", "poll"]), max_size=30)):
            if action == "append":
                lines.append(file.line(len(lines)))
                expected.append(file.time)
            elif action == "cut" and lines:
                kept = data.draw(st.integers(0, len(lines)))
                lost = {json.loads(line)["time"] for line in lines[kept:]} - set(seen)
                expected = [at for at in expected if at not in lost]
                lines = lines[:kept]
            half = b'{"event": "tr' if action == "half" else b""
            file.path.write_bytes(b"".join(lines) + half)
            if action == "poll":
                seen += [event["time"] for event in follower.new_events()]
        seen += [event["time"] for event in follower.new_events()]
        assert seen == expected


def test_a_long_file_is_followed_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_TAIL_BYTES", 200)
    file = File(tmp_path / "metrics.jsonl")
    file.path.write_bytes(b"".join(file.line(step) for step in range(1000)))
    steps = [event["step"] for event in Follower(file.path).new_events()]
    assert steps == list(range(1000 - len(steps), 1000))
    assert 0 < len(steps) < 6


def test_a_skipped_update_is_printed_at_once(display: Display, output: io.StringIO) -> None:
    display.show([START, train(3, skipped=True, verdict="spike")])
    assert "update skipped: spike" in output.getvalue()


def test_events_of_earlier_starts_are_not_printed_again(display: Display, output: io.StringIO) -> None:
    old = time.time() - 60
    checkpoint = {"event": "checkpoint", "step": 5, "path": "checkpoints/step-00000005", "reason": "tokens"}
    display.show([{**START, "time": old}, {**checkpoint, "time": old}])
    assert output.getvalue() == ""
    display.show([{**checkpoint, "time": time.time() + 1}])
    assert output.getvalue() == "  checkpoint at step 5: checkpoints/step-00000005 (tokens)\n"


def test_what_happens_besides_steps_has_a_line() -> None:
    validation = {"event": "validation", "step": 25, "bits_per_byte": {"ko-web": 2.5, "law": None}}
    assert event_line(validation) == "validation at step 25: bits per byte ko-web 2.500, law not finite"
    assert (
        event_line({"event": "warning", "step": 3, "time": 1, "message": "W&B failed"})
        == "warning at step 3: W&B failed"
    )
    rollback = {"event": "rollback", "step": 8, "time": 1, "at_step": 12, "checkpoint": "step-00000008"}
    assert event_line(rollback) == "rollback at step 8: at_step 12, checkpoint step-00000008"
    assert event_line({"event": "end", "step": 175}) == ""


def test_verbose_prints_every_logged_step(
    display: Display, output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_verbose", True)
    display.show([START, train(1), train(2)])
    assert output.getvalue().count("loss") == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (41, "41s"), (185, "3m 05s"), (7_800, "2h 10m"), (1_483_200, "17d 4h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_terminal_has_a_bar_that_shows_the_newest_step(output: io.StringIO, clock: Clock) -> None:
    with Display(Console(file=output, width=100, force_terminal=True), clock) as display:
        display.show([START, train(1), train(2, 4.5)])
    shown = output.getvalue().rpartition("general")[2]
    assert "2/175" in shown
    assert "loss 4.500" in shown


def test_a_file_that_cannot_be_read_for_a_moment_is_read_the_next_time(tmp_path: Path) -> None:
    file = File(tmp_path / "metrics.jsonl")
    follower = Follower(file.path)
    file.path.write_bytes(file.line(1))
    with failing_calls(tmp_path, Once(errno.ESTALE, range(1, 2))):
        assert follower.new_events() == []
    assert [event["step"] for event in follower.new_events()] == [1]
