"""`twofold filter`: judge again with other thresholds, and show what that changes.

Contract: reads measured columns, never a text; refuses where a text would have to be read again. Writes the
new decisions (and with `keep` the documents that they select) and compares them with those that the run folder
pointed to before: documents kept, newly kept and newly dropped, by source, language and reason. Seconds for
a million documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from configs.schema import Recipe
from data_pipeline import tables
from launch.runner import existing, run_recipe
from launch.stages import stages_of
from twofold.artifacts import Artifact, open_artifact
from twofold.errors import user_error

_COLUMNS = ("id", "language", "reason")
_EXAMPLES = 3


@dataclass
class Difference:
    """How the new decisions differ from the previous ones; documents by (source, language), or by reason."""

    newly_kept: Counter[tuple[str, str]] = field(default_factory=Counter)
    newly_dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    kept_in_spite_of: Counter[str] = field(default_factory=Counter)
    dropped_for: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Old or new reason -> ids of a few of its documents."""


def filter_documents(recipe: Recipe, console: Console, keep: bool = False) -> Difference | None:
    """Decide and show; None if there are no previous decisions on the same measurements."""
    _refuse_measuring(recipe)
    former = _former(recipe)
    decided = run_recipe(recipe, console, until="write" if keep else "filter").artifacts["filter"]
    comparable = former is not None and former.manifest.inputs == decided.manifest.inputs
    difference = compare(former, decided) if former and comparable else None
    _show_funnel(decided, former if comparable else None, console)
    if difference:
        _show_reasons("newly dropped, by the rule that drops them", difference.dropped_for, difference, console)
        _show_reasons("newly kept, by what spoke against them", difference.kept_in_spite_of, difference, console)
    return difference


def compare(former: Artifact, decided: Artifact) -> Difference:
    """Row by row: both tables hold the same documents in the same order."""
    found = Difference()
    for source, number, path in tables.task_files(decided.path / "decisions"):
        before = tables.read_table(tables.task_path(former.path / "decisions", source, number), _COLUMNS)
        now = tables.read_table(path, _COLUMNS)
        columns = (before["reason"], now["reason"], now["language"], now["id"])
        for old, new, language, identity in zip(*(column.to_pylist() for column in columns), strict=True):
            if (old is None) == (new is None):
                continue
            changed, reasons = (
                (found.newly_kept, found.kept_in_spite_of) if new is None else (found.newly_dropped, found.dropped_for)
            )
            changed[source, language] += 1
            reasons[old or new] += 1
            some = found.examples.setdefault(old or new, [])
            if len(some) < _EXAMPLES:
                some.append(identity)
    return found


def _refuse_measuring(recipe: Recipe) -> None:
    made = existing(recipe)
    names = [stage.name for stage in stages_of(recipe)]
    missing = [name for name in names[: names.index("filter")] if name not in made]
    if missing:
        raise user_error(
            "twofold filter",
            None,
            f"needs {', '.join(missing)} of exactly this recipe, which must be computed from the texts",
            "run `twofold run RECIPE --until filter` with these overrides",
        )


def _former(recipe: Recipe) -> Artifact | None:
    link = Path(recipe.run_dir) / "filter"
    return open_artifact(link.resolve()) if link.exists() else None


def _show_funnel(decided: Artifact, former: Artifact | None, console: Console) -> None:
    table = Table("", title="documents", title_justify="left")
    for heading in ("read", "kept before", "kept now", "change"):
        table.add_column(heading, justify="right")
    before = _totals(former.counts) if former else {}
    for name, counts in _totals(decided.counts).items():
        old = before.get(name)
        was, change = (f"{old['kept']:,}", f"{counts['kept'] - old['kept']:+,}") if old else ("", "")
        table.add_row(escape(name), f"{counts['read']:,}", was, f"{counts['kept']:,}", change)
    console.print(table)


def _totals(counts: Mapping[str, Any]) -> dict[str, Mapping[str, int]]:
    """Documents read and kept: of each source, of each language, of all."""
    languages: dict[str, Counter[str]] = {}
    for source in counts["sources"].values():
        for language, found in source["languages"].items():
            languages.setdefault(f"in {language}", Counter()).update(read=found["read"], kept=found["kept"])
    return {**counts["sources"], **languages, "all": counts}


def _show_reasons(title: str, counts: Counter[str], difference: Difference, console: Console) -> None:
    if not counts:
        return
    table = Table("reason", "documents", "for example", title=f"{counts.total():,} {title}", title_justify="left")
    for reason, count in counts.most_common():
        table.add_row(escape(reason), f"{count:,}", escape(", ".join(difference.examples[reason])))
    console.print(table)
