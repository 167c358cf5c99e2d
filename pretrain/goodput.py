"""Where the time of a run goes: every second since its first start has one cause.

    times/start-000001.json    what one start of the trainer spent its time on, rewritten with every heartbeat

Contract: the first rank's marks (hooks/watchdog.py) fill a `Ledger`; `account` adds up the files of all starts. All
times are whole nanoseconds, so causes add up exactly. Within a start they are measured by a clock that never jumps;
between starts by the difference of wall clocks, which counts as `down` and never as less than nothing. Steps,
validations and waits that a later start or a rollback went back behind count as `repeated work`. A killed process
loses the time since its last heartbeat to `down`. No torch.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

TIMES_DIR = "times"
_LAUNCHED_FILE = ".launched"
"""Holds when the ranks that are starting were launched."""
WORK = ("stepping", "waiting for data", "validating")
"""Causes that count as repeated work if training goes back behind them."""
CAUSES = (*WORK, "saving checkpoints", "starting", "repeated work", "stalled", "down")
_CAUSE_OF = {
    "data": "waiting for data",
    "gradients": "stepping",
    "agreement": "stepping",
    "update": "stepping",
    "validation": "validating",
    "checkpoint": "saving checkpoints",
    "commit": "saving checkpoints",
    "phase weights": "saving checkpoints",
    "rollback": "repeated work",
}
"""Mark of the watchdog -> cause; any other mark belongs to the start."""


@dataclass(frozen=True)
class Lap:
    """A step to which training can return, and the time of each cause in `WORK` that this start had spent at it."""

    step: int
    spent: tuple[int, ...] = (0,) * len(WORK)


@dataclass(frozen=True)
class Start:
    """One start of the trainer."""

    launched: int
    """Wall clock, nanoseconds since 1970, as `time` is."""
    time: int
    """When this was written; the process was alive then."""
    spent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    """Nanoseconds by cause."""
    doing: str = "starting"
    """The cause of what it was doing when this was written."""
    laps: tuple[Lap, ...] = ()
    """The step that it resumed from, then each checkpoint."""
    outcome: str = ""
    """`done`, `stopped` (on request), `failed` or `stalled`; empty while it runs, and if it was killed."""

    def returned_to(self, step: int) -> Start:
        """The same time, with the work that was done after `step` as repeated work."""
        laps = tuple(lap for lap in self.laps if lap.step <= step)
        reached = laps[-1] if laps else Lap(step)
        lost = {cause: self.spent[cause] - kept for cause, kept in zip(WORK, reached.spent, strict=True)}
        spent = {cause: ns - lost.get(cause, 0) for cause, ns in self.spent.items()}
        return replace(self, laps=laps, spent=spent | {"repeated work": spent["repeated work"] + sum(lost.values())})


def account(starts: Sequence[Start], now: int, alive_ns: int) -> dict[str, int]:
    """Nanoseconds by cause from the first launch to `now`, or to the end of a training that is done.

    A process whose last heartbeat is not older than `alive_ns` still does what it did. Time between the end of a
    training and an extension of its plan is not counted.
    """
    total = dict.fromkeys(CAUSES, 0)
    counted: list[Start] = []
    for start in starts:
        if counted and counted[-1].outcome != "done":
            total["down"] += max(0, start.launched - counted[-1].time)
        if start.laps:
            counted = [one.returned_to(start.laps[0].step) for one in counted]
        counted.append(start)
    if counted and counted[-1].outcome != "done":
        last, since = counted[-1], max(0, now - counted[-1].time)
        total[last.doing if since <= alive_ns and not last.outcome else "down"] += since
    for start in counted:
        for cause, ns in start.spent.items():
            total[cause] += ns
    return total


def read(out: Path) -> list[Start]:
    """All starts of a training folder, in order; the time of one whose file is damaged counts as `down`."""
    found = []
    for path in _files(out):
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
            raw = json.loads(path.read_text(encoding="utf-8"))
            laps = tuple(Lap(lap["step"], tuple(lap["spent"])) for lap in raw.pop("laps"))
            spent = {cause: int(raw["spent"][cause]) for cause in CAUSES}
            found.append(Start(**{**raw, "laps": laps, "spent": spent}))
    return found


def _files(out: Path) -> list[Path]:
    return sorted((out / TIMES_DIR).glob("start-*.json"))


def launched(out: Path) -> None:
    """Note that ranks are being launched now."""
    with contextlib.suppress(OSError):  # the ranks report a full disk
        (out / _LAUNCHED_FILE).write_text(str(time.time_ns()), encoding="ascii")


class Ledger:
    """What this process spends its time on: the main thread marks, the heartbeat writes."""

    def __init__(self, out: Path) -> None:
        now, note = time.time_ns(), out / _LAUNCHED_FILE
        begun = now
        with contextlib.suppress(OSError, ValueError):
            begun = min(now, int(note.read_text(encoding="ascii")))
            note.unlink()
        self._path = out / TIMES_DIR / f"start-{len(_files(out)) + 1:06d}.json"
        self._start = Start(begun, now)
        self._start.spent["starting"] = now - begun
        self._clock = time.monotonic_ns()
        self._lock = threading.Lock()

    def mark(self, doing: str) -> None:
        """From now on the main thread does this."""
        with self._lock:
            self._spend()
            self._start = replace(self._start, doing=_CAUSE_OF.get(doing, "starting"))

    def saved(self, step: int) -> None:
        """A checkpoint of this step holds the work so far."""
        with self._lock:
            self._spend()
            lap = Lap(step, tuple(self._start.spent[cause] for cause in WORK))
            self._start = replace(self._start, laps=(*self._start.laps, lap))

    def resumed(self, step: int) -> None:
        """Training resumes from this step, at the start or after a rollback."""
        with self._lock:
            self._spend()
            start = self._start.returned_to(step)
            self._start = replace(start, laps=start.laps or (Lap(step),))

    def write(self, outcome: str = "") -> None:
        """Write the file; with an outcome, for the last time. What a stalled process waited for is no work."""
        with self._lock:
            stalled = outcome == "stalled"
            self._spend("stalled" if stalled else self._start.doing)
            self._start = replace(self._start, outcome=outcome or self._start.outcome)
            text = json.dumps(asdict(self._start))
        partial = self._path.with_suffix(".partial")
        with contextlib.suppress(OSError):  # the trainer reports a full disk
            partial.parent.mkdir(exist_ok=True)
            partial.write_text(text, encoding="utf-8")
            partial.replace(self._path)

    def _spend(self, cause: str = "") -> None:
        clock, wall = time.monotonic_ns(), time.time_ns()
        self._start.spent[cause or self._start.doing] += clock - self._clock
        self._clock = clock
        self._start = replace(self._start, time=wall)
