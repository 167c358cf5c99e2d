"""Follows a training from outside: the events that it appends, as a progress bar or as lines of text.

Contract: reads only `metrics.jsonl` and never affects the training. In a terminal a bar moves; elsewhere (nohup, CI,
`tail -f`) a line appears every few seconds. Validations, checkpoints and incidents get a line of their own in both.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from configs.units import format_count
from launch import terminal
from twofold.files import is_passing

_POLL_SECONDS = 0.5
_LINE_SECONDS = 5.0
"""Between two step lines outside of a terminal."""
_WAITING_SECONDS = 60.0
"""Between two lines that say that the ranks are still starting."""
_RECENT_STEPS = 20
"""Logged steps that speed and remaining time are taken from."""
_INCIDENTS = ("rollback", "skipped_after_rollback", "warning", "straggler", "stall")

Event = Mapping[str, Any]


def follow(process: subprocess.Popen[bytes], metrics: Path, hangs: Callable[[], bool]) -> int:
    """Show progress until the process ends, or kill it once it `hangs`; return its exit code."""
    follower = Follower(metrics)
    with Display(terminal.OUT) as display:
        while process.poll() is None:
            display.show(follower.new_events())
            if hangs():
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
        display.show(follower.new_events())
    return process.returncode


class Follower:
    """Reads the events that the trainer appends; starts over if the lines read so far were cut, as on resume."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position, self._last = 0, b""

    def new_events(self) -> list[dict[str, Any]]:
        """Events whose lines were completed since the last call."""
        try:
            return self._read()
        except OSError as error:
            if isinstance(error, FileNotFoundError) or is_passing(error):
                return []  # they are read the next time
            raise

    def _read(self) -> list[dict[str, Any]]:
        with self._path.open("rb") as stream:
            # A start cuts the lines of steps that it will make again, in place; lines differ at least in their time.
            stream.seek(self._position - len(self._last))
            if stream.read(len(self._last)) != self._last:
                self._position, self._last = stream.seek(0), b""
            lines = stream.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        self._position += sum(map(len, whole))
        self._last = whole[-1] if whole else self._last
        return [json.loads(line) for line in whole]


class Display:
    """Prints events on a console: a context manager, so that a bar is always taken down."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._began = self._line_at = self._waited_at = clock()
        self._total_steps, self._total_tokens = 0, 0
        self._steps: deque[Event] = deque(maxlen=_RECENT_STEPS)
        self._printed_step = 0
        self._bar: Progress | None = None
        self._opened = time.time()
        """Older events are from earlier starts and are not printed again."""

    def __enter__(self) -> Display:
        if self._console.is_terminal and not self._console.quiet:
            self._bar = _bar(self._console)
            self._bar.add_task("starting ranks", total=None, numbers="")
            self._bar.start()
        else:
            self._print("starting ranks (importing packages takes up to a minute)")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._steps and self._steps[-1]["step"] != self._printed_step:
            self._print(self.step_line())

    def show(self, events: list[dict[str, Any]]) -> None:
        """Take in new events and print what is due."""
        for event in events:
            self._take(event)
        if self._bar is None:
            self._print_due_line()
        elif self._steps:
            step = self._steps[-1]
            numbers = self._numbers()
            self._bar.update(self._bar.task_ids[0], completed=step["step"], description=step["phase"], numbers=numbers)

    def step_line(self) -> str:
        """`step 120/175  loss 4.91  lr 4e-03  12.3K tok/s  eta 41s` of the newest step."""
        step = self._steps[-1]
        total = f"/{self._total_steps:,}" if self._total_steps else ""
        return f"step {step['step']:,}{total} ({step['phase']})  {self._numbers()}"

    def _take(self, event: Event) -> None:
        kind, is_new = event["event"], event.get("time", self._opened) >= self._opened
        if kind == "start":
            self._total_steps, self._total_tokens = event["total_steps"], event["total_tokens"]
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], total=self._total_steps, description="training")
            if is_new:
                self._print(_start_line(event))
        elif kind == "train":
            self._steps.append(event)
            if is_new and (terminal.verbose() or event["skipped"]):
                self._printed_step = event["step"]
                self._print(self.step_line() + (f"  update skipped: {event['verdict']}" if event["skipped"] else ""))
        elif is_new and (line := event_line(event)):
            self._print(line)

    def _print_due_line(self) -> None:
        now = self._clock()
        if not self._steps:
            if now - self._waited_at >= _WAITING_SECONDS:
                self._waited_at = now
                self._print(f"still starting, {format_seconds(now - self._began)} so far")
        elif now - self._line_at >= _LINE_SECONDS and self._steps[-1]["step"] != self._printed_step:
            self._line_at, self._printed_step = now, self._steps[-1]["step"]
            self._print(self.step_line())

    def _numbers(self) -> str:
        step = self._steps[-1]
        speed = statistics.median(one["tps"] for one in self._steps)
        left = max(0, self._total_tokens - step["tokens"]) / speed if speed else 0.0
        shown = [f"loss {decimal(step['loss'], 3)}", f"lr {step['lr']:.2e}", f"{format_count(speed)} tok/s"]
        return "  ".join([*shown, f"eta {format_seconds(left)}"] if self._total_tokens else shown)

    def _print(self, line: str) -> None:
        self._console.print(f"  {escape(line)}", soft_wrap=True)


def event_line(event: Event) -> str:
    """The line of an event that is not a step; "" if it has none."""
    kind, step = event["event"], event["step"]
    if kind == "validation":
        bits = ", ".join(f"{name} {decimal(value, 3)}" for name, value in event["bits_per_byte"].items())
        return f"validation at step {step:,}: bits per byte {bits}"
    if kind == "checkpoint":
        return f"checkpoint at step {step:,}: {event['path']} ({event['reason']})"
    if kind in _INCIDENTS:
        fields = {key: value for key, value in event.items() if key not in ("event", "step", "time")}
        text = fields.pop("message", None) or ", ".join(f"{key} {value}" for key, value in fields.items())
        return f"{kind.replace('_', ' ')} at step {step:,}: {text}"
    return ""


def decimal(value: float | None, digits: int) -> str:
    """A metric with that many digits; metrics.jsonl holds null where a value is not finite."""
    return "not finite" if value is None else f"{value:.{digits}f}"


def format_seconds(seconds: float) -> str:
    """A duration in its two largest units: 41s, 3m 05s, 2h 10m, 17d 4h."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest}s"
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours < 48 else f"{hours // 24}d {hours % 24}h"


def _start_line(event: Event) -> str:
    begins = f"resuming after step {event['step']:,}" if event["step"] else "starting"
    ranks = f"{event['world_size']} ranks ({event['device']})"
    return f"{begins}: {event['total_steps']:,} steps, {format_count(event['total_tokens'])} tokens, {ranks}"


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description:<14}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[numbers]}"),
        console=console,
    )
