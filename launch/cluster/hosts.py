"""Runs the probe on every host at once: by ssh, or by srun within a Slurm job.

Contract: both ways return one `Answer` per host: what its probe reported, or why there was no report. They take
at most `timeout_s` and a few seconds. ssh is the user's own, which DeepSpeed's launcher uses as well.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from launch.cluster.probe import MARK
from twofold.root import ROOT

_AT_ONCE = 128
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "PasswordAuthentication=no")


@dataclass(frozen=True)
class Answer:
    """One host's report (`said`) or `failure`; `skew_s`: how far its clock is certainly ahead of ours."""

    host: str
    said: dict[str, Any] | None
    failure: str = ""
    skew_s: float = 0.0


def ask_by_ssh(hosts: Sequence[str], spec: dict[str, Any], timeout_s: float) -> list[Answer]:
    """The answers of `hosts`, in their order."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda host: _ssh(host, spec, timeout_s), hosts))


def ask_by_srun(hosts: Sequence[str], spec: dict[str, Any], timeout_s: float) -> list[Answer]:
    """The answers of the job's nodes, in the order of `hosts`."""
    where = [f"--nodes={len(hosts)}", f"--nodelist={','.join(hosts)}", f"--ntasks={len(hosts)}", "--ntasks-per-node=1"]
    command = ["srun", *where, "--overlap", sys.executable, "-m", "launch.cluster.probe", json.dumps(spec)]
    begin = time.time()
    _, out, err = _run(command, timeout_s)
    said = {one["host"]: one for one in _answers(out)}
    reason = _last_line(err) or "srun started nothing there"
    return [_judged(host, said.get(host), reason, begin, time.time()) for host in hosts]


def reachable(hosts: Sequence[str]) -> list[str]:
    """The hosts that ssh can reach now."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        codes = pool.map(lambda host: _run([*_SSH, "--", host, "true"], 30.0)[0], hosts)
        return [host for host, code in zip(hosts, codes, strict=True) if code == 0]


def _ssh(host: str, spec: dict[str, Any], timeout_s: float) -> Answer:
    probe = [sys.executable, "-m", "launch.cluster.probe", json.dumps({**spec, "host": host})]
    begin = time.time()
    code, out, err = _run([*_SSH, "--", host, f"cd {shlex.quote(str(ROOT))} && exec {shlex.join(probe)}"], timeout_s)
    said = _answers(out)
    reason = _last_line(err) or f"exit code {code}"
    return _judged(host, said[0] if said else None, reason, begin, time.time())


def _judged(host: str, said: dict[str, Any] | None, reason: str, begin: float, end: float) -> Answer:
    if said is None:
        return Answer(host, None, reason)
    there = said["time"]
    return Answer(host, said, skew_s=there - end if there > end else min(0.0, there - begin))


def _run(command: Sequence[str], timeout_s: float) -> tuple[int, str, str]:
    """Exit code, standard output and error of a command in the checkout's root."""
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    try:
        found = subprocess.run(command, cwd=ROOT, timeout=timeout_s, check=False, **quiet)
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer within {timeout_s:.0f} s"
    except FileNotFoundError:
        return 127, "", f"{command[0]} is not installed here"
    return found.returncode, found.stdout, found.stderr


def _answers(text: str) -> list[dict[str, Any]]:
    """The probes' reports, without anything that login scripts print."""
    return [json.loads(line[len(MARK) :]) for line in text.splitlines() if line.startswith(MARK)]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
