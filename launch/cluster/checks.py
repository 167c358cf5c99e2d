"""What is wrong with the hosts, from what each says of itself.

Contract: pure; every problem names the host, what it found and the hint. The first host that answers is
what the others are compared with, packages and code with this machine, whose command line was typed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from configs.schema import Recipe
from configs.units import format_bytes
from launch.cluster.hosts import Answer
from launch.cluster.probe import PACKAGES
from pretrain.model.sizes import n_parameters
from twofold.errors import Problem

LARGEST_SKEW_S = 5.0
"""Clocks further apart make heartbeats and logs misleading."""
_STATE_BYTES = 12
"""A parameter in a checkpoint: float32 weight and two moments."""
_BUSY_MIB = 2048
_LONGEST_SAVE_SHARE = 0.5
"""Of the time between two checkpoints that writing one may take."""


@dataclass(frozen=True)
class Here:
    """What the hosts are compared with."""

    python: str
    packages: dict[str, str | None]
    code: str


def problems(recipe: Recipe, here: Here, answers: Sequence[Answer], replies: int, device: str) -> list[Problem]:
    """Everything to fix before ranks are started; `replies` are the token replies that this machine sees."""
    found: list[Problem] = []
    for answer in answers:
        found += _silent(answer) if answer.said is None else _one(recipe, here, answer, device)
    speaking = [answer for answer in answers if answer.said]
    seen = sum(answer.said["token_seen"] for answer in speaking if answer.said)
    if seen > replies:
        found.append(
            Problem("run_dir", recipe.run_dir, f"shows {replies} of the {seen} files that the hosts wrote into it",
                    "put it on a file system that all hosts share")
        )  # fmt: skip
    found += _unlike_gpus(speaking) if device == "cuda" else ()
    found += _disk(recipe, speaking)
    return found


def _silent(answer: Answer) -> list[Problem]:
    missing = "No module named" in answer.failure or "No such file" in answer.failure or "can't cd" in answer.failure
    if missing:
        hint = "put the same checkout and environment on this host, at the same path"
        return [Problem(f"host {answer.host}", None, f"has not this program: {answer.failure}", hint)]
    hint = f"try `ssh {answer.host} true`: name, key and sshd must be right; or take the host out"
    return [Problem(f"host {answer.host}", None, f"does not answer: {answer.failure}", hint)]


def _one(recipe: Recipe, here: Here, answer: Answer, device: str) -> Iterator[Problem]:
    said, host = answer.said, f"host {answer.host}"
    assert said is not None
    if said["python"].split(".")[:2] != here.python.split(".")[:2]:
        yield Problem(host, said["python"], f"has another Python than the {here.python} here", "use one environment")
    for name in PACKAGES:
        if said["packages"][name] != here.packages[name]:
            yield Problem(
                f"{host}, {name}", said["packages"][name], f"is not the {here.packages[name]} of this machine",
                "install the same versions everywhere (constraints.txt)",
            )  # fmt: skip
    if said["code"] != here.code:
        yield Problem(host, said["code"], f"has other code than {here.code} here", "bring both checkouts to one commit")
    for path in said["missing"]:
        yield Problem(host, path, "is not there", "put it on a file system that all hosts share, at the same path")
    if not said["token_seen"]:
        yield Problem(
            f"{host}, run_dir", recipe.run_dir, "does not show a file that this machine wrote into it",
            "put it on a file system that all hosts share",
        )  # fmt: skip
    if abs(answer.skew_s) > LARGEST_SKEW_S:
        ahead = "ahead" if answer.skew_s > 0 else "behind"
        yield Problem(
            host, None, f"has a clock {abs(answer.skew_s):.0f} s {ahead}", "start its time service (chrony, ntp)"
        )
    if said["disk"]:
        yield Problem(f"{host}, run_dir", recipe.run_dir, f"cannot be written: {said['disk']}",
                      "grant the permission, free space, or set another run_dir")  # fmt: skip
    if device == "cuda":
        yield from _gpus(recipe, host, said["gpus"])


def _gpus(recipe: Recipe, host: str, gpus: Sequence[dict[str, str]]) -> Iterator[Problem]:
    wanted = recipe.launch.gpus_per_node
    if len(gpus) < wanted:
        yield Problem(f"{host}, GPUs", len(gpus), f"are fewer than launch.gpus_per_node {wanted}",
                      "look at nvidia-smi there, or take the host out")  # fmt: skip
    for number, gpu in enumerate(gpus[:wanted]):
        where = f"{host}, GPU {number}"
        if _number(gpu["ecc_errors"]) > 0:
            yield Problem(where, gpu["ecc_errors"], "has uncorrected memory errors", "reset or replace it")
        if gpu["hw_slowdown"] == "Active":
            yield Problem(
                where, None, "is slowed down by its hardware (heat or power)", "look to its cooling and power"
            )
        if _number(gpu["memory_used_mib"]) > _BUSY_MIB:
            yield Problem(where, f"{gpu['memory_used_mib']} MiB", "is in use", "end the process that nvidia-smi shows")


def _unlike_gpus(speaking: Sequence[Answer]) -> Iterator[Problem]:
    names = Counter(gpu["name"] for answer in speaking if answer.said for gpu in answer.said["gpus"])
    if len(names) > 1:
        usual = names.most_common(1)[0][0]
        for answer in speaking:
            others = {gpu["name"] for gpu in (answer.said or {})["gpus"]} - {usual}
            if others:
                yield Problem(f"host {answer.host}, GPUs", ", ".join(sorted(others)), f"are not {usual} as elsewhere",
                              "train on equal GPUs: all wait for the slowest")  # fmt: skip


def _disk(recipe: Recipe, speaking: Sequence[Answer]) -> Iterator[Problem]:
    """Room for the checkpoints that are kept, and time to write one."""
    state = _STATE_BYTES * n_parameters(recipe.model, recipe.tokenizer.vocab_size)
    kept = recipe.checkpoints.keep + len(recipe.phases) + 1
    free = min(
        (answer.said["free_bytes"] for answer in speaking if answer.said and answer.said["free_bytes"]), default=None
    )
    if free is not None and free < kept * state:
        yield Problem(
            "run_dir", recipe.run_dir,
            f"has {format_bytes(free)} free, less than the {format_bytes(kept * state)} of {kept} checkpoints",
            "free space, lower checkpoints.keep, or set another run_dir",
        )  # fmt: skip
    speeds = [
        answer.said["write_bytes_per_s"] for answer in speaking if answer.said and answer.said["write_bytes_per_s"]
    ]
    minutes = recipe.checkpoints.every_minutes
    if speeds and minutes:
        seconds = state / sum(speeds)
        if seconds > _LONGEST_SAVE_SHARE * 60 * minutes:
            yield Problem(
                "checkpoints.every_minutes", minutes,
                f"is little for a checkpoint of {format_bytes(state)} at {format_bytes(round(sum(speeds)))} a second, "
                f"measured from all hosts at once ({seconds:.0f} s)",
                "raise it, or write to a faster file system",
            )  # fmt: skip


def _number(text: str) -> float:
    """`[N/A]`, as for memory without ECC, counts as 0."""
    try:
        return float(text)
    except ValueError:
        return 0.0
