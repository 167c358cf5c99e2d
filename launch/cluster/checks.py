"""Problems of the hosts, from the facts that each reports.

Contract: pure; every problem names the host, the value and a hint. Packages and code are compared with this
machine, GPUs with those of the other hosts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.schema import Recipe
from configs.units import format_bytes
from launch.cluster.hosts import Answer
from launch.cluster.probe import PACKAGES
from launch.planner.goodput import checkpoint_bytes
from twofold.errors import Problem

LARGEST_SKEW_S = 5.0
"""Clocks further apart make heartbeats and logs misleading."""
_BUSY_MIB = 2048
_LONGEST_SAVE_SHARE = 0.5
"""Largest share of the time between two checkpoints that writing one may take."""
_SHARE_IT = "put it on a file system that all hosts share"
Facts = Mapping[str, Any]
"""What probe.facts returns."""


@dataclass(frozen=True)
class Here:
    """This machine, with which the hosts are compared."""

    python: str
    packages: dict[str, str | None]
    code: str


def problems(recipe: Recipe, here: Here, answers: Sequence[Answer], replies: int, device: str) -> list[Problem]:
    """Everything to fix before ranks start; `replies` is the number of token replies visible on this machine."""
    facts = {answer.host: answer.said for answer in answers if answer.said is not None}
    found: list[Problem] = []
    for answer in answers:
        if answer.said is None:
            found.append(_no_answer(answer))
        else:
            found += _host(recipe, here, f"host {answer.host}", answer.said, answer.skew_s)
            found += _gpus(recipe, f"host {answer.host}", answer.said["gpus"]) if device == "cuda" else ()
    seen = sum(said["token_seen"] for said in facts.values())
    if seen > replies:
        shown = f"shows only {replies} of the {seen} files that the hosts wrote to it"
        found.append(Problem("run_dir", recipe.run_dir, shown, _SHARE_IT))
    found += _unlike_gpus(facts) if device == "cuda" else ()
    found += _disk(recipe, list(facts.values()))
    return found


def _no_answer(answer: Answer) -> Problem:
    host, failure = f"host {answer.host}", answer.failure
    if any(words in failure for words in ("No module named", "No such file", "can't cd")):
        hint = "put the same checkout and environment on this host, at the same path"
        return Problem(host, None, f"cannot run this program: {failure}", hint)
    hint = f"try `ssh {answer.host} true` and check name, key and sshd, or remove the host"
    return Problem(host, None, f"does not answer: {failure}", hint)


def _host(recipe: Recipe, here: Here, host: str, said: Facts, skew_s: float) -> Iterator[Problem]:
    python, code, run_dir = said["python"], said["code"], f"{host}, run_dir"
    if python.split(".")[:2] != here.python.split(".")[:2]:
        yield Problem(host, python, f"differs from this machine's Python {here.python}", "use the same environment")
    for name in PACKAGES:
        version = said["packages"][name]
        if version != here.packages[name]:
            differs = f"differs from this machine's version {here.packages[name]}"
            yield Problem(f"{host}, {name}", version, differs, "install the same versions everywhere (constraints.txt)")
    if code != here.code:
        yield Problem(host, code, f"differs from this machine's code {here.code}", "check out the same commit on both")
    for path in said["missing"]:
        yield Problem(host, path, "does not exist", f"{_SHARE_IT}, at the same path")
    if not said["token_seen"]:
        yield Problem(run_dir, recipe.run_dir, "lacks a file that this machine wrote to it", _SHARE_IT)
    if abs(skew_s) > LARGEST_SKEW_S:
        ahead = "ahead" if skew_s > 0 else "behind"
        yield Problem(host, None, f"has a clock {abs(skew_s):.0f} s {ahead}", "start its time service (chrony, ntp)")
    if said["disk"]:
        hint = "grant the permission, free space, or set another run_dir"
        yield Problem(run_dir, recipe.run_dir, f"is not writable: {said['disk']}", hint)


def _gpus(recipe: Recipe, host: str, gpus: Sequence[Mapping[str, str]]) -> Iterator[Problem]:
    wanted = recipe.launch.gpus_per_node
    if len(gpus) < wanted:
        hint = "run nvidia-smi on it, or remove the host"
        yield Problem(f"{host}, GPUs", len(gpus), f"are fewer than launch.gpus_per_node {wanted}", hint)
    for number, gpu in enumerate(gpus[:wanted]):
        name, errors, used = f"{host}, GPU {number}", gpu["ecc_errors"], gpu["memory_used_mib"]
        if _number(errors) > 0:
            yield Problem(name, errors, "has uncorrected memory errors", "reset or replace it")
        if gpu["hw_slowdown"] == "Active":
            yield Problem(name, None, "is throttled by its hardware (heat or power)", "check its cooling and power")
        if _number(used) > _BUSY_MIB:
            yield Problem(name, f"{used} MiB", "is in use", "end the process that nvidia-smi shows")


def _unlike_gpus(facts: Mapping[str, Facts]) -> Iterator[Problem]:
    names = Counter(gpu["name"] for said in facts.values() for gpu in said["gpus"])
    if len(names) < 2:
        return
    usual = names.most_common(1)[0][0]
    for host, said in facts.items():
        others = ", ".join(sorted({gpu["name"] for gpu in said["gpus"]} - {usual}))
        if others:
            hint = "train on identical GPUs: all wait for the slowest"
            yield Problem(f"host {host}, GPUs", others, f"differ from the {usual} of the other hosts", hint)


def _disk(recipe: Recipe, facts: Sequence[Facts]) -> Iterator[Problem]:
    """Space for the checkpoints that are kept, and time to write one."""
    size = checkpoint_bytes(recipe)
    kept = recipe.checkpoints.keep + len(recipe.phases) + 1
    free = min((said["free_bytes"] for said in facts if said["free_bytes"]), default=None)
    if free is not None and free < kept * size:
        needed = f"has {format_bytes(free)} free, but {kept} checkpoints need {format_bytes(kept * size)}"
        hint = "free space, lower checkpoints.keep, or set another run_dir"
        yield Problem("run_dir", recipe.run_dir, needed, hint)
    speed = sum(said["write_bytes_per_s"] or 0 for said in facts)
    minutes = recipe.checkpoints.every_minutes
    if speed and minutes and size / speed > _LONGEST_SAVE_SHARE * 60 * minutes:
        written = f"writing {format_bytes(size)} takes {size / speed:.0f} s at {format_bytes(round(speed))}/s"
        short = f"is short for a checkpoint: {written}, measured on all hosts at once"
        yield Problem("checkpoints.every_minutes", minutes, short, "raise it, or write to a faster file system")


def _number(text: str) -> float:
    """The number; 0 for `[N/A]`, as for memory without ECC."""
    try:
        return float(text)
    except ValueError:
        return 0.0
