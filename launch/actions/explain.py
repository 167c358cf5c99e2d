"""`twofold explain`: show everything known about one document and why it was kept, dropped or rejected.

Contract: reads the decisions, the recorded line edits and the text of this one document; the excerpt is
masked, control characters and mark-up in it are escaped, and personal information is shown as counts only.
An unknown id is a `UserError` that suggests the closest ids.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from configs.features import FEATURES
from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.features import pii
from data_pipeline.stages import score
from launch.runner import existing
from twofold.artifacts import Artifact
from twofold.errors import user_error

_EXCERPT = 600
"""Code points."""
_COMPARED_IDS = 20_000
Row = dict[str, Any]


def explain(recipe: Recipe, identity: str, console: Console) -> Row:
    """Print it; returns the decision's row, or the reject."""
    made = existing(recipe)
    if "filter" not in made:
        raise user_error("RECIPE", recipe.name, "has no decisions yet", "run `twofold run RECIPE --until filter`")
    place = find(made["filter"].path / "decisions", identity)
    if place is None:
        rejected = next(_rejects(made["extract"].path, identity), None)
        if rejected is None:
            raise _unknown(made["filter"].path / "decisions", identity)
        console.print(
            f"[red]rejected[/red]  {shown(identity)}  {shown(rejected['reason'])} {shown(rejected['detail'])}"
        )
        return rejected
    path, number = place
    with pq.ParquetFile(path) as file:
        row: Row = file.read().slice(number, 1).to_pylist()[0]
        configuration = (file.schema_arrow.metadata or {}).get(b"configuration", b"").decode()
    _show_decision(row, configuration, console)
    _show_rules(recipe, row, console)
    documents = score.documents(made["extract"], made["score"])
    _show_facts(recipe, row, _edits(made["score"], path, identity), console)
    console.print(f"\n[dim]{shown(excerpt(text_of(documents, path, number)))}[/dim]")
    return row


def find(decisions: Path, identity: str) -> tuple[Path, int] | None:
    """File and row of a document; its id begins with its source's name."""
    for source, _, path in tables.task_files(decisions):
        if identity.startswith(f"{source}/"):
            ids = tables.read_table(path, ["id"])["id"].to_pylist()
            if identity in ids:
                return path, ids.index(identity)
    return None


def text_of(made: Artifact, decisions_file: Path, number: int) -> str:
    """The text of the document in the same row of the same task."""
    path = tables.task_path(made.path / "documents", decisions_file.parent.name, int(decisions_file.stem))
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if number < rows:
                return str(file.read_row_group(group, columns=["text"])["text"][number].as_py())
            number -= rows
    raise AssertionError("documents and decisions are row-aligned")


def excerpt(text: str, length: int = _EXCERPT) -> str:
    """The beginning, masked; cut after masking, so that no number is cut in two."""
    masked = pii.mask(text[: 4 * length])
    return masked[:length] + (" …" if len(masked) > length else "")


def shown(value: Any) -> str:
    """Text for the terminal: unprintable characters and rich's mark-up are escaped."""
    text = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in str(value))
    return escape(text)


def _unknown(decisions: Path, identity: str) -> Exception:
    known: list[str] = []
    for source, _, path in tables.task_files(decisions):
        if len(known) < _COMPARED_IDS and (source == identity.split("/")[0] or "/" not in identity):
            known += tables.read_table(path, ["id"])["id"].to_pylist()
    near = difflib.get_close_matches(identity, known[:_COMPARED_IDS], n=3, cutoff=0.5)
    sources = ", ".join(sorted({source for source, _, _ in tables.task_files(decisions)}))
    hint = f"try {', '.join(near)}" if near else f"ids begin with a source's name: {sources}"
    hint += "; rejected records are named SOURCE/FILE#INDEX, as in extract/rejects.jsonl"
    return user_error("DOC_ID", identity, "is neither in the decisions nor among the rejects", hint)


def _rejects(extracted: Path, identity: str) -> Iterator[Row]:
    """Rejected inputs have no id of their own: `source/file#index`, or `source/file` for the whole file."""
    with (extracted / "rejects.jsonl").open(encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            name = f"{row['source']}/{row['file']}"
            if identity in (name, f"{name}#{row['index']}"):
                yield row


def _edits(scored: Artifact, decisions_file: Path, identity: str) -> Counter[str]:
    """Rule -> lines of the document that it dropped or cut."""
    path = tables.task_path(scored.path / "edits", decisions_file.parent.name, int(decisions_file.stem))
    if not path.exists():
        return Counter()
    rows = tables.read_table(path, ["id", "rule"], where=[("id", "==", identity)])
    return Counter(rows["rule"].to_pylist())


def _show_decision(row: Row, configuration: str, console: Console) -> None:
    colour = "green" if row["decision"] == "kept" else "red"
    console.print(f"[bold {colour}]{row['decision']}[/bold {colour}]  {shown(row['id'])}")
    for reason in row["reasons"]:
        console.print(f"  [red]{shown(reason)}[/red]")
    place = f"{row['destination']}, {row['split']}" if row["split"] else "nowhere"
    console.print(f"  [dim]goes to {shown(place)}; judged by configuration {configuration[:12]}[/dim]")


def _show_rules(recipe: Recipe, row: Row, console: Console) -> None:
    """Failed ones first, then in the order of configs/features.py."""
    profile: Mapping[str, Any] = getattr(recipe.data.rules, row["language"], {})
    table = Table("rule", "value", "min", "max", "", title=f"rules for {row['language']}", title_justify="left")
    judged = []
    for feature in (name for name in FEATURES if name in profile):
        bound, value = profile[feature], row[feature]
        fails = (bound.min is not None and value < bound.min) or (bound.max is not None and value > bound.max)
        limits = ["" if limit is None else f"{limit:g}" for limit in (bound.min, bound.max)]
        judged.append((not fails, [feature, f"{value:.6g}", *limits, "[red]fails[/red]" if fails else "passes"]))
    for _, cells in sorted(judged, key=lambda item: item[0]):
        table.add_row(*cells)
    console.print(table)


def _show_facts(recipe: Recipe, row: Row, edits: Counter[str], console: Console) -> None:
    personal = {kind: row[f"pii_{kind}"] for kind in pii.TYPES if row[f"pii_{kind}"]}
    scored = ["language", *(name for name in ("quality", "toxicity") if name in recipe.data.classifiers.configured)]
    facts = {
        "source": f"{row['source']} ({row['domain']}, {row['kind']})",
        "where": f"{row['file']}, record {row['index']}",
        "address": row["url"],
        "license": row["license"],
        "size": f"{row['bytes']:,} bytes",
        "scores": ", ".join(f"{name}_score {row[f'{name}_score']:.4g}" for name in scored),
        "domain seen": f"{row['domain_label']} ({row['domain_score']:.3f})" if row["domain_label"] else None,
        "duplicates": _duplicates(row),
        "benchmarks": _benchmarks(row),
        "personal": ", ".join(f"{kind} {count}" for kind, count in personal.items())
        + (f": {row['personal_information']}" if personal else ""),
        "lines edited": ", ".join(f"{rule} {count}" for rule, count in edits.most_common()),
    }
    for name, value in facts.items():
        if value:
            console.print(f"  [bold]{name:<13}[/bold] {shown(value)}", soft_wrap=True)


def _duplicates(row: Row) -> str | None:
    if row["cluster"] is None:
        return None
    similarity = row["duplicate_similarity"]
    near = f" (similarity {similarity:.2f})" if similarity is not None else ""
    kept = (
        f"; {row['duplicate_of']} is kept{near}"
        if row["duplicate_of"]
        else "; this one is kept"
        if row["split"]
        else ""
    )
    return f"one of {row['cluster_size']} linked documents{kept}"


def _benchmarks(row: Row) -> str | None:
    if not row["contamination_matches"]:
        return None
    names = ", ".join(row["benchmarks"])
    return f"{row['contamination_share']:.1%} of it is in {names}, first in {row['benchmark_item']}"
