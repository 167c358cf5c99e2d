"""`twofold clean`: list and remove artifacts that a recipe no longer uses.

Contract: nothing is removed without `--yes`. Trainings, finished or not, are neither listed nor removed without
`--trainings`, and then only after an answer at the keyboard: a changed recipe uses another training, and the one
before may have taken months. A run folder that does not exist is not created.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from rich.console import Console

from configs.schema import Recipe
from configs.units import format_bytes
from launch.preflight import only_run
from launch.runner import unused
from twofold.errors import user_error

_TRAINING = re.compile(r"(replaced-\d+-)?train-.*")


def clean(recipe: Recipe, yes: bool, trainings: bool, console: Console) -> None:
    """List the unused artifacts, of which trainings are asked for by themselves; with `yes`, remove them."""
    run_dir = Path(recipe.run_dir)
    if not run_dir.is_dir():
        raise user_error("run_dir", recipe.run_dir, "does not exist", "check the path; there is nothing to clean")
    with only_run(run_dir):
        trained, others = _divided(unused(recipe))
        _list(others, console)
        if yes:
            _remove(others)
        console.print(f"{len(others)} unused" + ("" if yes or not others else "; `--yes` removes them"))
        if trained and trainings:
            _list(trained, console)
            removed = yes and _is_confirmed(len(trained), console)
            if removed:
                _remove(trained)
            console.print(f"{len(trained)} trainings of other recipes, {'removed' if removed else 'kept'}")
        elif trained:
            console.print(f"{len(trained)} trainings of other recipes are kept; `--trainings` lists them")


def _divided(folders: list[Path]) -> tuple[list[Path], list[Path]]:
    """Trainings and other artifacts."""
    trained = [folder for folder in folders if _TRAINING.fullmatch(folder.name)]
    return trained, [folder for folder in folders if folder not in trained]


def _list(folders: list[Path], console: Console) -> None:
    for folder in folders:
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        console.print(f"  {folder}  {format_bytes(size)}", soft_wrap=True)


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)


def _is_confirmed(count: int, console: Console) -> bool:
    """Whether the user answers at the keyboard; without one, the answer is no."""
    try:
        answer = console.input(f"Remove {count} trainings for good? Type `remove {count}`: ")
    except EOFError:
        return False
    return answer.strip() == f"remove {count}"
