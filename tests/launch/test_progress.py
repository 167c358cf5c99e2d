"""What a training prints while it runs, drawn from the events that it writes."""

from __future__ import annotations

import errno
import io
import os
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.failing_calls import Once, failing_calls
from launch import terminal
from launch.progress import Display, Follower, event_line, format_seconds
from pretrain.hooks.metrics import finite

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


def test_lines_that_a_start_cut_are_read_anew(tmp_path: Path) -> None:
    """In place, and though more has been written since than was cut."""
    metrics = tmp_path / "metrics.jsonl"
    follower = Follower(metrics)
    assert follower.new_events() == []
    metrics.write_text('{"step": 1}\n{"step": 2, "time": 5}\n{"st')
    assert follower.new_events() == [{"step": 1}, {"step": 2, "time": 5}]
    with metrics.open("r+") as file:
        file.truncate(len('{"step": 1}\n'))
        file.seek(0, os.SEEK_END)
        file.write('{"step": 2, "time": 600}\n{"step": 3}\n')
    assert follower.new_events() == [{"step": 1}, {"step": 2, "time": 600}, {"step": 3}]
    assert follower.new_events() == []
    with metrics.open("a") as file:
        file.write('{"step": 4}\n')
    with failing_calls(tmp_path, Once(errno.ESTALE, range(1, 2))):
        assert follower.new_events() == []
    assert follower.new_events() == [{"step": 4}]
