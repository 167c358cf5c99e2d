"""Follows a training from outside: the events that it appends, and a progress bar drawn from them.

Contract: reads only `metrics.jsonl` and never affects the training.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_POLL_SECONDS = 0.5


def follow(process: subprocess.Popen[bytes], metrics: Path, hangs: Callable[[], bool]) -> int:
    """Draw the bar until the process ends, or kill it once it `hangs`; return its exit code."""
    bar = Progress(
        TextColumn("  {task.description:<14}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[numbers]}"),
        console=Console(),
    )
    follower = Follower(metrics)
    with bar:
        bar_id = bar.add_task("starting ranks", total=None, numbers="")
        while process.poll() is None:
            for event in follower.new_events():
                _show(bar, bar_id, event)
            if hangs():
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
        for event in follower.new_events():
            _show(bar, bar_id, event)
    return process.returncode


class Follower:
    """Reads the events that the trainer appends; starts over if the file is replaced, as on resume."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._position = -1, 0

    def new_events(self) -> list[dict[str, Any]]:
        """Events whose lines were completed since the last call."""
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            return []
        with stream:
            inode = os.fstat(stream.fileno()).st_ino
            if inode != self._inode:
                self._inode, self._position = inode, 0
            stream.seek(self._position)
            lines = stream.read().split(b"\n")
        whole = lines[:-1]
        self._position += sum(len(line) + 1 for line in whole)
        return [json.loads(line) for line in whole]


def decimal(value: float | None, digits: int) -> str:
    """A metric with that many digits; metrics.jsonl holds null where a value is not finite."""
    return "not finite" if value is None else f"{value:.{digits}f}"


def _show(bar: Progress, bar_id: Any, line: Mapping[str, Any]) -> None:
    if line.get("event") == "start":
        bar.update(bar_id, total=line["total_steps"], description="training")
    elif line.get("event") == "train":
        numbers = f"loss {decimal(line['loss'], 3)} {line['tps']:,.0f} tok/s"
        bar.update(bar_id, completed=line["step"], description=line["phase"], numbers=numbers)
