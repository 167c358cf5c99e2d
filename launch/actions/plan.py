"""`twofold plan`: show what a recipe will do, step by step.

Contract: needs neither data nor GPU; where this recipe's token shards exist, passes over each source are
shown, too, and a supply that cannot fill the plan is an error, as at the start of training. Prints a table
a phase and writes one page (launch/reports/plan.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from configs.schema import Recipe
from launch.reports.plan import mixture_rows, phase_row, supply_of, write
from launch.runner import existing
from pretrain.data.plan import check_supply
from twofold.artifacts import Artifact

_SHOWN = ("phase", "tokens", "steps", "batch", "length", "learning rate")
"""Of a phase, in the terminal."""


def plan(recipe: Recipe, out: Path | None, console: Console) -> Path:
    """Print and draw the plan; return the page."""
    shards = _shards(recipe)
    supply = supply_of(shards) if shards else {}
    if supply:
        check_supply(recipe.phases, supply)
    console.print(table([phase_row(recipe, number) for number in range(len(recipe.phases))], _SHOWN))
    console.print(table(mixture_rows(recipe, supply)))
    return write(recipe, out or Path(recipe.run_dir) / "plan.html", supply)


def table(rows: Sequence[Mapping[str, str]], names: Sequence[str] | None = None) -> Table:
    names = names or list(rows[0])
    table = Table(*(Column(name, no_wrap=True) for name in names), box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def _shards(recipe: Recipe) -> Artifact | None:
    """The recipe's token shards, where every input is here and they are made."""
    from data_pipeline.readers import sources

    return existing(recipe).get("shards") if all(map(sources.exists, recipe.sources.values())) else None
