"""DeepSpeed's hostfile: one line `HOST slots=8` per host.

Contract: `read` returns what DeepSpeed would, or raises a `UserError` with file, line and hint; `fitting_nodes` says
how many of the hosts a recipe can use. No host is contacted.
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

_LINE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._:-]*)\s+slots=(\d+)\s*$")
"""A name cannot begin with a dash, which ssh would read as an option, or hold what a shell acts on."""


@dataclass(frozen=True)
class Host:
    """A host by its name for ssh, and the number of ranks that it may run."""

    name: str
    slots: int


def read(path: Path) -> tuple[Host, ...]:
    """The hosts of a file; comments (#) and empty lines are skipped."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        hint = "name a file with one line `HOST slots=8` per host"
        raise user_error("launch.hostfile", str(path), f"cannot be read ({reason})", hint) from None
    hosts: list[Host] = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0].strip()
        if text:
            hosts.append(_host(path, number, text, hosts))
    if not hosts:
        raise user_error("launch.hostfile", str(path), "lists no hosts", "write one line `HOST slots=8` per host")
    return tuple(hosts)


def write(path: Path, hosts: Sequence[Host]) -> None:
    with atomic_path(path) as target:
        target.write_text("".join(f"{host.name} slots={host.slots}\n" for host in hosts), encoding="utf-8")


def check(hosts: Sequence[Host], nodes: int, ranks_per_node: int, where: str) -> None:
    """Refuse too few hosts, and hosts with too few slots."""
    problems = []
    for host in hosts[:nodes]:
        if host.slots < ranks_per_node:
            hint = "correct the line, or lower launch.gpus_per_node (launch.cpu_ranks without GPUs)"
            fewer = f"is fewer than the {ranks_per_node} ranks per node"
            problems.append(Problem(f"{where}, host {host.name}", f"slots={host.slots}", fewer, hint))
    if len(hosts) < nodes:
        hint = f"add hosts, or override launch.nodes={len(hosts)}"
        problems.append(Problem(where, len(hosts), f"is fewer hosts than launch.nodes {nodes}", hint))
    if problems:
        raise UserError(problems)


def fitting_nodes(recipe: Recipe, available: int, ranks_per_node: int) -> list[int]:
    """The numbers of nodes over which every batch divides, from the largest down to launch.min_nodes."""
    launch = recipe.launch
    return [
        nodes
        for nodes in range(min(available, launch.nodes), (launch.min_nodes or launch.nodes) - 1, -1)
        if not any(batch_problem(recipe, phase, nodes * ranks_per_node, "") for phase in recipe.phases)
    ]


def most_nodes(recipe: Recipe, available: int, ranks_per_node: int) -> int | None:
    """The largest of `fitting_nodes`; None if there is none."""
    return next(iter(fitting_nodes(recipe, available, ranks_per_node)), None)


def _host(path: Path, number: int, text: str, before: Sequence[Host]) -> Host:
    found, line = _LINE.match(text), f"{path}, line {number}"
    if not found or int(found[2]) == 0:
        raise user_error(line, text, "is not `HOST slots=N`", "write for example `node01 slots=8`")
    if found[1] in (host.name for host in before):
        raise user_error(line, found[1], "appears twice", "list each host once, with all its slots")
    return Host(found[1], int(found[2]))
