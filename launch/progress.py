"""Follows a training from outside: the events that it appends, as a progress bar or as lines of text.

Contract: reads only `metrics.jsonl` and never affects the training. In a terminal a bar moves; elsewhere (nohup, CI,
`tail -f`) a line appears every few seconds. Validations, checkpoints and incidents get a line of their own in both.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from configs.units import format_count
from launch import terminal
from pretrain.hooks.metrics import as_event
from twofold.files import is_passing

_POLL_SECONDS = 0.5
_LINE_SECONDS = 5.0
"""Between two step lines outside of a terminal."""
_WAITING_SECONDS = 60.0
"""Between two lines that say that the ranks are still starting."""
_TAIL_BYTES = 1 << 20
"""Of a file that is there already, which is enough for the newest steps."""
_REMEMBERED_BYTES = 256
"""Before the place up to which a file was read: they tell whether its end was cut and written again."""
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
    """Reads the events that the trainer appends, whatever it cuts or replaces meanwhile.

    Begins near the end of a long file. Lines that were read stay where they are, unless a rollback cuts them: then the
    lines before the place are others, and reading resumes behind the newest event that was returned.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._position, self._before = -1, 0, b""
        self._newest = 0.0

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
            status = os.fstat(stream.fileno())
            stream.seek(self._position - len(self._before))
            is_cut = status.st_ino != self._inode or stream.read(len(self._before)) != self._before
            if is_cut:
                self._inode, self._position = status.st_ino, max(0, status.st_size - _TAIL_BYTES)
                self._before = b""
                stream.seek(self._position)
            raw = stream.read()
        whole = raw[: raw.rfind(b"\n") + 1]
        if whole:
            self._position += len(whole)
            self._before = whole[-_REMEMBERED_BYTES:]
        found = [event for event in map(as_event, whole.splitlines()) if event]
        if is_cut:
            found = [event for event in found if event["time"] > self._newest]
        self._newest = max([self._newest, *(event["time"] for event in found)])
        return found


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
        shown = [f"loss {number(step['loss'], '.3f')}", f"lr {number(step['lr'], '.2e')}"]
        if speed := median_speed(self._steps):
            shown.append(f"{format_count(speed)} tok/s")
            left = max(0, self._total_tokens - step["tokens"]) / speed
            shown += [f"eta {format_seconds(left)}"] if self._total_tokens else []
        return "  ".join(shown)

    def _print(self, line: str) -> None:
        self._console.print(f"  {escape(line)}", soft_wrap=True)


def event_line(event: Event) -> str:
    """The line of an event that is not a step; "" if it has none."""
    kind, step = event["event"], event["step"]
    if kind == "validation":
        bits = ", ".join(f"{name} {number(value, '.3f')}" for name, value in event["bits_per_byte"].items())
        return f"validation at step {step:,}: bits per byte {bits}"
    if kind == "checkpoint":
        return f"checkpoint at step {step:,}: {event['path']} ({event['reason']})"
    if kind in _INCIDENTS:
        fields = {key: value for key, value in event.items() if key not in ("event", "step", "time")}
        text = fields.pop("message", None) or ", ".join(f"{key} {value}" for key, value in fields.items())
        return f"{kind.replace('_', ' ')} at step {step:,}: {text}"
    return ""


def number(value: float | None, spec: str) -> str:
    """A metric in that format; metrics.jsonl holds null where a value is not finite."""
    return "not finite" if value is None else format(value, spec)


def median_speed(steps: Iterable[Event]) -> float | None:
    """Tokens per second; None if no step has a finite speed."""
    known = [step["tps"] for step in steps if step["tps"]]
    return statistics.median(known) if known else None


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
