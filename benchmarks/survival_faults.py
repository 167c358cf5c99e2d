"""The faults of benchmarks/survival.py: drawn from a seed, and what each does inside a process.

Contract: `draw(seed, index, calls)` is pure. A fault acts at one file-system call of one process, the run itself or
the rank that it starts; `Actor` counts these calls and acts when the fault's is reached. Markers in a state folder
tell later processes of the same run whether a fault has acted and whether its cause is gone.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from benchmarks.failing_calls import CALLS, READS, WRITES

Role = Literal["run", "rank"]
Subject = Literal["pipeline", "trainer"]
PASSING = ("ESTALE", "EIO", "ETIMEDOUT", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN")
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
KINDS: Mapping[str, int] = {
    "kill": 5, "signal": 3, "pause": 1, "failure": 3, "outage": 3, "full disk": 3, "torn listing": 2, "clock": 1,
    "damage": 6, "no rank": 1, "second run": 1,
}  # fmt: skip
"""Kind of fault -> how often it is drawn."""
_PAUSE_S = 0.3
_CLOCK_JUMPS_S = (-86_400.0, -3.0, 3_600.0, 1e7)


@dataclass(frozen=True)
class Fault:
    """What happens, to which process, at which of its calls."""

    index: int
    subject: Subject
    kind: str
    role: Role
    call: int
    """Counted from 1 among those of `calls`."""
    calls: tuple[str, ...]
    detail: str
    """A signal's or an error's name, a jump in seconds, a way to damage a file, how a rank does not start."""
    choice: float
    """From 0 to 1: which file is damaged, or which name a listing lacks."""


def draw(seed: int, index: int, counts: Mapping[str, Mapping[str, int]]) -> Fault:
    """Fault number `index`; `counts`: for `subject/role`, how often an undisturbed run makes each call."""
    dice = random.Random(f"{seed}/{index}")
    subject: Subject = dice.choice(("pipeline", "trainer", "trainer"))
    kind = dice.choices(list(KINDS), list(KINDS.values()))[0]
    if kind == "no rank":
        subject = "trainer"
    role: Role = "run" if subject == "pipeline" else dice.choice(("run", "rank", "rank"))
    calls = {"failure": READS, "outage": READS, "full disk": WRITES, "torn listing": ("listdir",)}.get(kind, CALLS)
    details = {
        "signal": SIGNALS, "failure": PASSING, "outage": PASSING, "clock": tuple(map(str, _CLOCK_JUMPS_S)),
        "damage": ("removed", "cut", "altered"), "no rank": ("ends with 0", "ends with 1", "hangs"),
    }  # fmt: skip
    detail = dice.choice(details.get(kind, ("",)))
    total = sum(counts[f"{subject}/{role}"].get(call, 0) for call in calls)
    return Fault(index, subject, kind, role, dice.randint(1, max(1, total)), calls, detail, dice.random())


class Actor:
    """A `Decide` of benchmarks/failing_calls.py: acts at the fault's call, and counts all calls."""

    def __init__(self, fault: Fault | None, role: Role, state: Path, second_run: Callable[[], None]) -> None:
        self.counts = dict.fromkeys(CALLS, 0)
        self._fault = fault if fault and fault.role == role else None
        self._state, self._second_run, self._seen = state, second_run, 0

    def __call__(self, call: str, path: str) -> Callable[[Any], Any] | None:
        self.counts[call] += 1
        fault = self._fault
        if fault is None or call not in fault.calls or (self._state / "cured").exists():
            return None
        self._seen += 1
        lasts = fault.kind in ("outage", "full disk")
        if self._seen < fault.call or (not lasts and self._seen >= fault.call + 3):
            return None
        if fault.kind != "failure" and not lasts and (self._state / "acted").exists():
            return None
        (self._state / "acted").touch()
        return self._act(fault, path)

    def _act(self, fault: Fault, path: str) -> Callable[[Any], Any] | None:
        if fault.kind == "damage" and fault.role == "rank":
            os.kill(os.getppid(), signal.SIGKILL)  # else its supervisor would start another rank before the damage
        if fault.kind in ("kill", "damage"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.kind == "signal":
            os.kill(os.getpid(), getattr(signal, fault.detail))
        elif fault.kind == "pause":
            _pause()
        elif fault.kind in ("failure", "outage"):
            raise OSError(getattr(errno, fault.detail), os.strerror(getattr(errno, fault.detail)), path)
        elif fault.kind == "full disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        elif fault.kind == "clock":
            _jump(float(fault.detail))
        elif fault.kind == "torn listing":
            return lambda names: [name for n, name in enumerate(sorted(names)) if n != int(fault.choice * len(names))]
        elif fault.kind == "second run":
            self._second_run()
        return None


def damage(run_dir: Path, fault: Fault) -> tuple[Path, bytes] | None:
    """Damage one file that an interrupted run has left; the file and what it held, or None if there is none."""
    files = sorted(path for path in run_dir.rglob("*") if path.is_file() and not path.is_symlink())
    kinds: dict[str, list[Path]] = {}
    for path in files:
        kind = "".join(letter for letter in path.relative_to(run_dir).as_posix() if not letter.isdigit())
        kinds.setdefault(kind, []).append(path)
    if not kinds:
        return None
    # By kind first: there are many more shards and completion marks than manifests.
    place = fault.choice * len(kinds)
    alike = kinds[sorted(kinds)[int(place)]]
    path = alike[int((place - int(place)) * len(alike))]
    held = path.read_bytes()
    if fault.detail == "removed":
        path.unlink()
    elif fault.detail == "cut":
        path.write_bytes(held[: len(held) // 2])
    else:
        middle = len(held) // 2
        path.write_bytes(held[:middle] + bytes(byte ^ 1 for byte in held[middle : middle + 1]) + held[middle + 1 :])
    return path, held


def _jump(seconds: float) -> None:
    """Set this process's clock forward or back."""
    real = time.time

    def jumped() -> float:
        return real() + seconds

    mock.patch.object(time, "time", jumped).start()


def _pause() -> None:
    """Stop this process; a child lets it go on."""
    here = os.getpid()
    if os.fork() == 0:
        time.sleep(_PAUSE_S)
        os.kill(here, signal.SIGCONT)
        os._exit(0)
    os.kill(here, signal.SIGSTOP)
    os.wait()
