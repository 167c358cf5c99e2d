"""The commands, each declared in one place: `COMMANDS` of a module in this folder.

Contract: importing these modules costs milliseconds, since `twofold --help` imports all of them; a command's
`run` imports what it needs. A new module here is found by itself.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from configs.schema import Recipe

GROUPS = {
    "data": "Data",
    "tokenizer": "Tokenizer",
    "train": "Training",
    "cluster": "Clusters and capacity",
    "inspect": "Inspection",
}
"""In the order of `twofold --help`."""

Run = Callable[[argparse.Namespace, Console], int | None]


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True)
class Command:
    """One command. Without `needs_recipe`, the words RECIPE and key=value are not read."""

    name: str
    group: str
    help: str
    example: str
    run: Run
    """Returns the exit code; None means 0."""
    arguments: Callable[[argparse.ArgumentParser], object] = _no_arguments
    """Adds arguments; positional ones stand between RECIPE and the overrides."""
    needs_recipe: bool = True

    def add_to(self, parsers: argparse._SubParsersAction[Any]) -> None:
        """Add the command's parser."""
        parser = parsers.add_parser(
            self.name,
            description=self.help,
            epilog=f"example:\n  {self.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        loudness = parser.add_mutually_exclusive_group()
        loudness.add_argument("-q", "--quiet", action="store_true", help="print errors only")
        loudness.add_argument("-v", "--verbose", action="store_true", help="print every logged step of training")
        if self.needs_recipe:
            parser.add_argument("recipe", metavar="RECIPE", help="recipe file, or the name of a shipped one: smoke")
        self.arguments(parser)
        if self.needs_recipe:
            text = "override a recipe field, e.g. phases.domain.tokens=2T"
            parser.add_argument("overrides", metavar="key=value", nargs="*", help=text)
        parser.set_defaults(command=self, **({} if self.needs_recipe else {"overrides": []}))


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Load the recipe that a command's words name."""
    from configs.recipe import load_recipe

    return load_recipe(options.recipe, options.overrides)


def training_recipe_of(options: argparse.Namespace) -> Recipe:
    """`recipe_of`, but a recipe that only prepares data is a `UserError`."""
    from configs.checks import check_trains

    recipe = recipe_of(options)
    check_trains(recipe)
    return recipe


def all_commands() -> list[Command]:
    """Every command, by group and then in the order of its module."""
    found = list(_declared())
    names = [command.name for command in found]
    assert len(names) == len(set(names)), f"two commands share a name: {sorted(names)}"
    order = list(GROUPS)
    return sorted(found, key=lambda command: order.index(command.group))


def _declared() -> Iterator[Command]:
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        yield from importlib.import_module(f"{__name__}.{module}").COMMANDS
