"""Documents -> the same documents with single lines dropped and runs cut short; every edit is recorded.

Contract: writes, a file for each of extract's, with the same rows in the same order,

    documents/<source>/<task:05d>.parquet   extract's columns; only `text` differs
    edits/<source>/<task:05d>.parquet       one row an edited line, `EDITS`, in the order of rows and lines

A line goes for the first of the recipe's rules that it breaks (measuring/line_rules.py), else because it,
or its whole paragraph, stands in at least `repeated_in_documents` different documents of its source
(data_pipeline/stages/repeated_lines.py). Such parts go from every document, the first included: what stands on fifty
pages belongs to none of them, and which page comes first is chance (C4 keeps one copy of a repeated
span). But a document of which most is repeated is a copy, not a page with a frame: it is left whole, for
dedup to judge, so that many near copies cannot empty each other. Where a line goes, a blank line that
would then follow another goes too; it is no edit of its own. Documents of kind `code` stay as they are.
A document that loses all its lines stays, empty. `edited(text, edits)` makes the new text from extract's
and the recorded edits, so each can be explained. Cost: 20 to 40 MB/s a core for both readings of the
text; memory one row group, and the hashes of repeated parts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from configs.data_schema import Lines
from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.features import line_rules
from data_pipeline.stages import extract, repeated_lines
from twofold.artifacts import Artifact
from twofold.files import atomic_path, write_json
from twofold.stage import Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 1
"""Raise it also when measuring/lexicons.py's spam terms change."""

REPEATED = "repeated_in_documents"
SHORTENED = "shorten_runs"
EDITS = pa.schema(
    [
        ("id", pa.string()),
        ("row", pa.int64()),
        ("line", pa.int64()),
        ("rule", pa.string()),
        ("removed_characters", pa.int64()),
        ("line_hash", pa.uint64()),
    ]
)
"""`row` within the task's file, `line` within extract's text (both from 0), and xxh3-64 of that line's UTF-8."""
_COPY_SHARE = 0.8
"""Of a document's characters; with more in repeated parts it is a copy, which dedup judges."""


class Edit(NamedTuple):
    """What is done to one line: it goes, or (`shorten_runs`) its runs do."""

    line: int
    rule: str
    removed_characters: int


def config(recipe: Recipe) -> dict[str, Any]:
    """All of `data.lines` decides the texts; documents are an input."""
    assert recipe.data.lines is not None, "the stage is in the chain only where the recipe has data.lines"
    return {"lines": recipe.data.lines.model_dump(mode="json")}


def build(recipe: Recipe, extract: Artifact, out: Path, work: Path, runner: TaskRunner) -> Mapping[str, Any]:
    """Find what is repeated, then edit every file; returns documents, edits and characters by rule and source."""
    settings = recipe.data.lines
    assert settings is not None
    documents = extract.path / "documents"
    found: repeated_lines.Repeated | None = None
    if settings.repeated_in_documents is not None:
        fewest, fewest_bytes = settings.repeated_in_documents, settings.repeated_min_bytes
        found = repeated_lines.find(documents, work, fewest, fewest_bytes, runner)
    task = _EditLines(settings, documents, found, out, work / "counts")
    files = tables.task_files(documents)
    runner.run("edit lines", task, len(files), work / "edit-lines")
    return _gathered(task, files)


STAGE = Stage(
    name="lines",
    makes="documents with lines edited",
    code_version=CODE_VERSION,
    config=config,
    build=build,
    in_recipe=lambda recipe: recipe.data.lines is not None,
)


def edits_of(text: str, settings: Lines, suspects: Iterable[int], repeats: Sequence[int]) -> list[Edit]:
    """Edits of one text, in the order of its lines.

    `suspects` are the lines that may break one of `settings.drop`; `repeats` those of repeated parts.
    """
    rules = {**dict.fromkeys(repeats, REPEATED), **line_rules.judged(text, suspects, settings.drop)}
    runs = set(line_rules.lines_with_runs(text)) - rules.keys() if settings.shorten_runs else set()
    if not rules and not runs:
        return []
    lines = text.split("\n")
    edits = [Edit(number, rule, len(lines[number])) for number, rule in rules.items()]
    for number in runs - line_rules.fenced(lines) if runs else ():
        removed = len(lines[number]) - len(line_rules.shortened(lines[number]))
        edits += [Edit(number, SHORTENED, removed)] if removed else []
    return sorted(edits)


def edited(text: str, edits: Sequence[Edit]) -> str:
    """The text after its edits; depends on nothing else."""
    if not edits:
        return text
    lines = text.split("\n")
    for edit in edits:
        if edit.rule == SHORTENED:
            lines[edit.line] = line_rules.shortened(lines[edit.line])
    gone = {edit.line for edit in edits if edit.rule != SHORTENED}
    return "\n".join(_without(lines, gone)).strip("\n") if gone else "\n".join(lines)


def _without(lines: Sequence[str], gone: Collection[int]) -> list[str]:
    """The lines that stay; of the blank ones around those that go, the first."""
    kept: list[str] = []
    beside_gap = False
    for number, line in enumerate(lines):
        blank = not line.strip()
        if number in gone:
            beside_gap = True
        elif not (beside_gap and blank and (not kept or not kept[-1].strip())):
            kept.append(line)
            beside_gap = beside_gap and blank
    return kept


def is_copy(text: str, repeats: Sequence[int]) -> bool:
    """Whether its repeated lines make up most of a text."""
    lines = text.split("\n")
    return sum(len(lines[number]) for number in repeats) > _COPY_SHARE * sum(map(len, lines))


@dataclass(frozen=True)
class _EditLines:
    """Task `rank` edits the `rank`-th file of documents."""

    settings: Lines
    documents: Path
    found: repeated_lines.Repeated | None
    out: Path
    counts: Path

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, path = tables.task_files(self.documents)[rank]
        known = self.found.known(source) if self.found else np.zeros(0, dtype=np.uint64)
        rows = self.found.rows(source, number, known) if self.found else frozenset()
        counts: Counter[str] = Counter()
        with (
            atomic_path(tables.task_path(self.out / "documents", source, number)) as documents_path,
            atomic_path(tables.task_path(self.out / "edits", source, number)) as edits_path,
            pq.ParquetWriter(documents_path, extract.DOCUMENTS, compression="zstd") as documents,
            pq.ParquetWriter(edits_path, EDITS, compression="zstd") as edits,
            pq.ParquetFile(path) as file,
        ):
            for group in range(file.num_row_groups):
                table, records = self._edited(file.read_row_group(group), known, rows, counts)
                documents.write_table(table)
                if records.num_rows:
                    edits.write_table(records)
        write_json(self.counts_path(source, number), counts)

    def counts_path(self, source: str, number: int) -> Path:
        return self.counts / source / f"{number:05d}.json"

    def _edited(
        self, table: pa.Table, known: repeated_lines.Hashes, rows: frozenset[int], counts: Counter[str]
    ) -> tuple[pa.Table, pa.Table]:
        """One row group with its texts edited, and the edits; adds to `counts`."""
        suspects = line_rules.suspects(table["text"].combine_chunks(), self.settings.drop)
        texts: list[str] = table["text"].to_pylist()
        records: list[dict[str, Any]] = []
        first_row = counts["documents"]
        counts["documents"] += table.num_rows
        for place, (identity, kind) in enumerate(zip(table["id"].to_pylist(), table["kind"].to_pylist(), strict=True)):
            if kind == "code":
                continue
            text, row = texts[place], first_row + place
            least = self.settings.repeated_min_bytes
            repeats = repeated_lines.repeated_lines(text, least, known) if row in rows else []
            if repeats and is_copy(text, repeats):
                repeats = []
                counts["left_as_copies"] += 1
            edits = edits_of(text, self.settings, suspects.get(place, ()), repeats)
            if not edits:
                continue
            texts[place] = edited(text, edits)
            counts["edited"] += 1
            counts["emptied"] += not texts[place]
            lines = text.split("\n")
            for edit in edits:
                line_hash = xxhash.xxh3_64_intdigest(lines[edit.line].encode())
                records.append({"id": identity, "row": row, **edit._asdict(), "line_hash": line_hash})
                counts[f"lines.{edit.rule}"] += 1
                counts[f"characters.{edit.rule}"] += edit.removed_characters
        if records:
            place = table.schema.get_field_index("text")
            table = table.set_column(place, extract.DOCUMENTS.field("text"), pa.array(texts, pa.large_string()))
        return table.replace_schema_metadata(None), pa.Table.from_pylist(records, schema=EDITS)


def _gathered(task: _EditLines, files: Sequence[tuple[str, int, Path]]) -> dict[str, Any]:
    """Counts of all sources together, and of each."""
    by_source: dict[str, Counter[str]] = {source: Counter() for source, _, _ in files}
    for source, number, _ in files:
        by_source[source].update(json.loads(task.counts_path(source, number).read_text(encoding="utf-8")))
    return {
        **_by_rule(sum(by_source.values(), Counter())),
        "sources": {source: _by_rule(counts) for source, counts in by_source.items()},
    }


def _by_rule(counts: Counter[str]) -> dict[str, Any]:
    rules = [*line_rules.NAMES, REPEATED, SHORTENED]
    return {
        **{name: counts[name] for name in ("documents", "edited", "emptied", "left_as_copies")},
        "lines": {rule: counts[f"lines.{rule}"] for rule in rules if counts[f"lines.{rule}"]},
        "removed_characters": {rule: counts[f"characters.{rule}"] for rule in rules if counts[f"lines.{rule}"]},
    }
