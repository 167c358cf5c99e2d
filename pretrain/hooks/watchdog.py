"""Every rank's heartbeat, and the watchdog that ends a training that has stopped moving.

Contract: the main thread calls `at(step, doing)` wherever it makes progress, which costs nanoseconds. One thread
writes `beats/rank-00000.json` every `beat_s` (temporary file and rename; a file system that hangs blocks this thread
alone). Another looks at the clock: after `stall_s` without progress it writes the stacks of all threads to the rank's
log and to `stalls/step-00000012/`, waits for the other ranks to do the same, writes who is dead or behind
(`verdict.json`, the same on every rank), and ends the process with EXIT_CODE_STALLED, on which launchers restart. If
Python itself is stuck (a C call that never releases the interpreter), a timer in C does so half a limit later.

All ranks pass the same sequence of marks, since they take the same branches. So the others wait for the rank with
the fewest marks, and a rank whose beat has stopped is dead or cut off.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.launch_schema import Watch as Settings
from pretrain.goodput import Ledger
from pretrain.layout import BEATS_DIR, STALLS_DIR
from twofold.exit_codes import EXIT_CODE_STALLED

_LONGEST_GRACE_S = 15.0
"""How long a stalled rank waits for the stacks of the others."""
_WRITING_S = 5.0
"""How long writing them may take."""
_MISSED_BEATS = 4
"""A rank that is so many beats behind the newest one is dead or cut off."""


@dataclass(frozen=True)
class Beat:
    """The last state that one rank reported."""

    rank: int
    host: str
    pid: int
    time: float
    """When it was written: seconds since 1970, by the host's clock."""
    marks: int
    step: int
    doing: str
    since_s: float
    """Since the last mark."""
    probe_s: float | None = None
    """Seconds for a fixed piece of work that this rank does alone (timing.py)."""
    data_wait_s: float | None = None
    """Seconds that the newest step waited for its batch, or has waited for it so far."""


class Watch:
    """The heartbeat and the watchdog of this process, for a `with` block.

    Once `outcome` is `done`, the beat's file is removed. The ledger, on the first rank of a training, is told every
    mark and written with every beat.
    """

    def __init__(self, settings: Settings, out: Path, rank: int, size: int, ledger: Ledger | None = None) -> None:
        self._settings, self._out, self._rank, self._size = settings, out, rank, size
        self._marks, self._step, self._doing, self._moved = 0, 0, "start", time.monotonic()
        self._measured: dict[str, float] = {}
        self._closed = threading.Event()
        self._ledger = ledger
        self.outcome = "failed"
        """How the process ends, unless somebody says otherwise."""
        self._stragglers: list[dict[str, Any]] = []
        (out / BEATS_DIR).mkdir(parents=True, exist_ok=True)
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._beat_on, self._guard)]
        for thread in self._threads:
            thread.start()

    def at(self, step: int, doing: str) -> None:
        """Mark progress of the main thread; `step` counts from 1."""
        self._step, self._doing, self._moved = step, doing, time.monotonic()
        self._marks += 1
        if self._ledger is not None:
            self._ledger.mark(doing)

    def resumed(self, step: int) -> None:
        """Training goes on from this step, at its start or after a rollback."""
        if self._ledger is not None:
            self._ledger.resumed(step)

    def saved(self, step: int) -> None:
        """A checkpoint holds what was trained up to this step."""
        if self._ledger is not None:
            self._ledger.saved(step)

    def note(self, outcome: str = "") -> None:
        """Write where the time went; an outcome is the process's last word."""
        if self._ledger is not None:
            self._ledger.write(outcome)

    def measured(self, **seconds: float) -> None:
        """Set numbers of this rank's beats: `probe_s`, `data_wait_s`."""
        self._measured |= seconds

    def stragglers(self) -> list[dict[str, Any]]:
        """New stragglers since the last call, on rank 0 only; reads no file."""
        found, self._stragglers = self._stragglers, []
        return found

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching; the last beat of a training that is not done stays."""
        self._closed.set()
        for thread in self._threads:
            thread.join(self._settings.beat_s)
        faulthandler.cancel_dump_traceback_later()
        self._doing = "ended"
        self._write()
        self.note(self.outcome)
        if self.outcome == "done":
            with contextlib.suppress(OSError):  # the folder goes with the last beat in it
                beat_file(self._out, self._rank).unlink()
                (self._out / BEATS_DIR).rmdir()

    def _beat(self) -> Beat:
        since = time.monotonic() - self._moved
        measured = dict(self._measured)
        if self._doing == "data":  # the newest step's wait is not over
            measured["data_wait_s"] = round(since, 3)
        return Beat(
            rank=self._rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            time=time.time(),
            marks=self._marks,
            step=self._step,
            doing=self._doing,
            since_s=round(since, 3),
            **measured,
        )

    def _write(self) -> None:
        path = beat_file(self._out, self._rank)
        partial = path.with_suffix(".partial")
        with contextlib.suppress(OSError):  # the trainer reports a full disk, not its heartbeat
            partial.write_text(json.dumps(asdict(self._beat())), encoding="utf-8")
            partial.replace(path)

    def _beat_on(self) -> None:
        reported: set[int] = set()
        while not self._closed.is_set():
            self._write()
            self.note()
            if self._rank == 0:
                found = find_stragglers(read_beats(self._out), self._settings.straggler_factor)
                self._stragglers += [one for one in found if one["rank"] not in reported]
                reported = {one["rank"] for one in found}
            self._closed.wait(self._settings.beat_s)

    def _guard(self) -> None:
        limit = self._settings.stall_s
        while not self._closed.wait(min(limit / 20, 5.0)):
            # This thread, which needs the interpreter, postpones the timer; once both are stuck, the timer fires.
            faulthandler.dump_traceback_later(1.5 * limit + self._grace + _WRITING_S, exit=True)
            if time.monotonic() - self._moved > limit:
                self._end()

    @property
    def _grace(self) -> float:
        return min(_LONGEST_GRACE_S, self._settings.stall_s / 2)

    def _end(self) -> None:
        """Write where every thread is and who is missing; never returns."""
        where = f"at step {self._step}, {self._doing}"
        print(f"rank {self._rank}: no progress in {self._settings.stall_s:g} s {where}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        writing = threading.Thread(target=self._write_stall, daemon=True)
        writing.start()
        writing.join(self._grace + _WRITING_S)  # the file system may be what hangs
        os._exit(EXIT_CODE_STALLED)

    def _write_stall(self) -> None:
        self._write()
        self.note("stalled")
        folder = self._out / STALLS_DIR / f"step-{self._step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"rank-{self._rank:05d}.txt").open("w", encoding="utf-8") as stacks:
            faulthandler.dump_traceback(stacks, all_threads=True)
        _dump_flight_recorder(folder / f"nccl-{self._rank:05d}.pickle")
        time.sleep(self._grace)
        verdict = judge(read_beats(self._out), self._size, self._settings.beat_s)
        partial = folder / f".verdict-{self._rank}"
        partial.write_text(json.dumps(verdict, indent=2), encoding="utf-8")
        partial.replace(folder / "verdict.json")
        print(f"rank {self._rank}: {verdict['text']}", file=sys.stderr, flush=True)


def beat_file(out: Path, rank: int) -> Path:
    return out / BEATS_DIR / f"rank-{rank:05d}.json"


def read_beats(out: Path) -> list[Beat]:
    """The last beat of every rank that has written one."""
    beats = []
    for path in sorted((out / BEATS_DIR).glob("rank-*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            beats.append(Beat(**json.loads(path.read_text(encoding="utf-8"))))
    return beats


def unreported_stalls(out: Path) -> list[str]:
    """What the watchdogs of earlier starts found; each finding is returned once."""
    found = []
    for verdict in sorted((out / STALLS_DIR).glob("*/verdict.json"), key=lambda path: path.stat().st_mtime):
        reported = verdict.with_name("reported")
        if not reported.exists() or reported.stat().st_mtime < verdict.stat().st_mtime:
            found.append(f"{verdict.parent.name}: {json.loads(verdict.read_text(encoding='utf-8'))['text']}")
            reported.touch()
    return found


def judge(beats: Sequence[Beat], size: int, beat_s: float) -> dict[str, Any]:
    """Who holds up the others, from the last beats of `size` ranks: the dead ranks, else those behind."""
    beats = [beat for beat in beats if beat.rank < size]
    newest = max((beat.time for beat in beats), default=0.0)
    silent = [beat for beat in beats if newest - beat.time > _MISSED_BEATS * beat_s]
    missing = sorted(set(range(size)) - {beat.rank for beat in beats})
    alive = [beat for beat in beats if beat not in silent]
    most = max((beat.marks for beat in alive), default=0)
    behind = [beat for beat in alive if beat.marks < most]
    return {
        "dead": [{"rank": beat.rank, "host": beat.host, "silent_s": round(newest - beat.time, 1)} for beat in silent],
        "never_started": missing,
        "behind": [{"rank": b.rank, "host": b.host, "step": b.step, "doing": b.doing} for b in behind],
        "text": _summary(silent, missing, behind, alive),
    }


def _summary(silent: Sequence[Beat], missing: Sequence[int], behind: Sequence[Beat], alive: Sequence[Beat]) -> str:
    if silent:
        return f"no heartbeat from {_names(silent)}: dead, or cut off from the run folder"
    if missing:
        return f"rank {', '.join(map(str, missing))} never started"
    if behind:
        where = "; ".join(f"step {beat.step}, {beat.doing}" for beat in behind[:3])
        return f"all ranks wait for {_names(behind)} (at {where})"
    where = f"step {alive[0].step}, {alive[0].doing}" if alive else "nowhere"
    return f"all ranks are alive and at one place ({where}): a link is cut, or this takes longer than watch.stall_s"


def _names(beats: Sequence[Beat]) -> str:
    shown = ", ".join(f"rank {beat.rank} on {beat.host}" for beat in beats[:8])
    return shown + (f" and {len(beats) - 8} more" if len(beats) > 8 else "")


def find_stragglers(beats: Sequence[Beat], factor: float) -> list[dict[str, Any]]:
    """Ranks whose own work takes more than `factor` times the median, by measurement."""
    found = []
    for name, least in (("probe_s", 0.0), ("data_wait_s", 0.1)):
        values: Mapping[int, float] = {b.rank: getattr(b, name) for b in beats if getattr(b, name) is not None}
        if len(values) < 2:
            continue
        median = statistics.median(values.values())
        found += [
            {"rank": b.rank, "host": b.host, "measure": name, "seconds": values[b.rank], "median_seconds": median}
            for b in beats
            if b.rank in values and values[b.rank] > max(factor * median, least)
        ]
    return found


def _dump_flight_recorder(path: Path) -> None:
    """Write NCCL's last collectives if it keeps them (TORCH_NCCL_TRACE_BUFFER_SIZE), for `torchfrtrace`."""
    if "torch" not in sys.modules:
        return
    with contextlib.suppress(ImportError, AttributeError, RuntimeError):
        from torch._C import _distributed_c10d

        if trace := _distributed_c10d._dump_nccl_trace():  # type: ignore[attr-defined]
            path.write_bytes(trace)
