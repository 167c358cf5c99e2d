"""DeepSpeed's hostfile: `HOST slots=8`, a line a host.

Contract: `read` returns what DeepSpeed would, or raises `UserError` naming file, line and hint; `fitting_nodes`
says how many of the hosts a recipe can use. Nothing is asked of any host.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.checks import batch_problem
from configs.schema import Recipe
from twofold.errors import Problem, UserError, user_error
from twofold.files import atomic_path

_LINE = re.compile(r"^(\S+)\s+slots=(\d+)\s*$")


@dataclass(frozen=True)
class Host:
    """A host by the name that ssh knows, and how many ranks it may run."""

    name: str
    slots: int


def read(path: Path) -> tuple[Host, ...]:
    """The hosts of a file; comments (#) and empty lines aside."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise user_error(
            "launch.hostfile", str(path), f"cannot be read ({reason})", "name a file with a line `HOST slots=8` a host"
        ) from None
    hosts: list[Host] = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0].strip()
        if text:
            hosts.append(_host(path, number, text, hosts))
    if not hosts:
        raise user_error("launch.hostfile", str(path), "names no host", "write a line `HOST slots=8` for each")
    return tuple(hosts)


def write(path: Path, hosts: Sequence[Host]) -> None:
    with atomic_path(path) as target:
        target.write_text("".join(f"{host.name} slots={host.slots}\n" for host in hosts), encoding="utf-8")


def check(hosts: Sequence[Host], nodes: int, ranks_per_node: int, where: str) -> None:
    """Refuse too few hosts, and hosts with too few slots."""
    problems = [
        Problem(
            f"{where}, host {host.name}", f"slots={host.slots}", f"is fewer than the {ranks_per_node} ranks a node",
            "correct the line, or lower launch.gpus_per_node (launch.cpu_ranks without GPUs)",
        )
        for host in hosts[:nodes]
        if host.slots < ranks_per_node
    ]  # fmt: skip
    if len(hosts) < nodes:
        problems.append(
            Problem(where, len(hosts), f"names fewer hosts than launch.nodes {nodes}",
                    f"add hosts, or override launch.nodes={len(hosts)}")
        )  # fmt: skip
    if problems:
        raise UserError(problems)


def fitting_nodes(recipe: Recipe, available: int, ranks_per_node: int) -> list[int]:
    """How many of the available nodes every batch divides over, the most first; none below launch.min_nodes."""
    launch = recipe.launch
    return [
        nodes
        for nodes in range(min(available, launch.nodes), (launch.min_nodes or launch.nodes) - 1, -1)
        if not any(batch_problem(recipe, phase, nodes * ranks_per_node, "") for phase in recipe.phases)
    ]


def most_nodes(recipe: Recipe, available: int, ranks_per_node: int) -> int | None:
    """The first of `fitting_nodes`; None where there is none."""
    return next(iter(fitting_nodes(recipe, available, ranks_per_node)), None)


def _host(path: Path, number: int, text: str, before: Sequence[Host]) -> Host:
    found = _LINE.match(text)
    if not found or int(found[2]) == 0:
        raise user_error(f"{path}, line {number}", text, "is not `HOST slots=N`", "write for example `node01 slots=8`")
    if found[1] in (host.name for host in before):
        raise user_error(
            f"{path}, line {number}", found[1], "is named twice", "name each host once, with all its slots"
        )
    return Host(found[1], int(found[2]))
