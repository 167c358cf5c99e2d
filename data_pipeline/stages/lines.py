"""Line edits: single lines are dropped, runs of characters are shortened, and every edit is recorded.

Contract: a `LineEditor` edits the documents of one task. A line is dropped for the first of the recipe's rules
that it breaks (data_pipeline/features/line_rules.py), or else because it or its whole paragraph occurs in at
least `repeated_in_documents` documents, and `repeated_in_share`, of its source (data_pipeline/stages/
repeated_lines.py). One copy stays, as in C4, so that no sentence is lost from the corpus. Sources and domains in
`repeated_stay_in` keep all of theirs, and numbered lines stay everywhere: a law's clause on its entry into force
belongs to each law. A document that consists mostly of repeated parts is a copy rather than a page with
boilerplate; it stays whole for dedup to judge, so that many near copies cannot empty each other.

A blank line that would follow another one because of an edit is dropped too, without an edit of its own.
Documents of kind `code` are never edited. A document that loses all its lines stays, empty. `edited(text, edits)`
reproduces the new text from the extracted text and the recorded edits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import xxhash

from configs.data_schema import Lines
from data_pipeline.features import line_rules
from data_pipeline.stages import extract, repeated_lines

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
"""`row` in the task's file and `line` in the extracted text count from 0; the hash is xxh3-64 of the line's UTF-8."""
_COPY_SHARE = 0.8
"""A document with a larger share of its characters in repeated parts is a copy."""


class Edit(NamedTuple):
    """An edit of one line: the line is dropped, or with `shorten_runs` its runs are cut."""

    line: int
    rule: str
    removed_characters: int


class LineEditor:
    """Edits the documents of one task, one row group after another, and counts the edits in `counts`."""

    def __init__(self, settings: Lines, repeats: repeated_lines.TaskRepeats) -> None:
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._repeats = repeats

    def edit(self, documents: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The same rows with their texts edited, and the rows of `EDITS`."""
        suspects = line_rules.suspects(documents["text"].combine_chunks(), self._settings.drop)
        texts: list[str] = documents["text"].to_pylist()
        records: list[dict[str, Any]] = []
        ids, kinds = documents["id"].to_pylist(), documents["kind"].to_pylist()
        for place, (identity, kind) in enumerate(zip(ids, kinds, strict=True)):
            row, text = self.counts["documents"], texts[place]
            self.counts["documents"] += 1
            edits = [] if kind == "code" else self._edits(text, row, suspects.get(place, ()))
            if edits:
                records += _records(identity, row, text, edits)
                texts[place] = edited(text, edits)
                self._count(edits, emptied=not texts[place])
        if records:
            place = documents.schema.get_field_index("text")
            column = pa.array(texts, pa.large_string())
            documents = documents.set_column(place, extract.DOCUMENTS.field("text"), column)
        return documents.replace_schema_metadata(None), pa.Table.from_pylist(records, schema=EDITS)

    def _edits(self, text: str, row: int, suspects: Iterable[int]) -> list[Edit]:
        repeats = self._repeats.lines_of(row, text, self._settings.repeated_min_bytes)
        copied = bool(repeats.repeated) and is_copy(text, repeats.repeated)
        self.counts["left_as_copies"] += copied
        return edits_of(text, self._settings, suspects, [] if copied else repeats.dropped)

    def _count(self, edits: Sequence[Edit], emptied: bool) -> None:
        self.counts["edited"] += 1
        self.counts["emptied"] += emptied
        for edit in edits:
            self.counts[f"lines.{edit.rule}"] += 1
            self.counts[f"characters.{edit.rule}"] += edit.removed_characters


def edits_of(text: str, settings: Lines, suspects: Iterable[int], repeats: Sequence[int]) -> list[Edit]:
    """The edits of one text, in the order of its lines.

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
    dropped = {edit.line for edit in edits if edit.rule != SHORTENED}
    return "\n".join(_without(lines, dropped)).strip("\n") if dropped else "\n".join(lines)


def is_copy(text: str, repeats: Sequence[int]) -> bool:
    """Whether repeated lines make up most of a text."""
    lines = text.split("\n")
    return sum(len(lines[number]) for number in repeats) > _COPY_SHARE * sum(map(len, lines))


def summary(counts_by_source: Mapping[str, Counter[str]]) -> dict[str, Any]:
    """Documents, and lines and characters by rule: in total, and of each of `sources`."""
    return {
        **_by_rule(sum(counts_by_source.values(), Counter())),
        "sources": {source: _by_rule(counts) for source, counts in counts_by_source.items()},
    }


def _by_rule(counts: Counter[str]) -> dict[str, Any]:
    rules = [rule for rule in (*line_rules.NAMES, REPEATED, SHORTENED) if counts[f"lines.{rule}"]]
    return {
        **{name: counts[name] for name in ("documents", "edited", "emptied", "left_as_copies")},
        "lines": {rule: counts[f"lines.{rule}"] for rule in rules},
        "removed_characters": {rule: counts[f"characters.{rule}"] for rule in rules},
    }


def _records(identity: str, row: int, text: str, edits: Sequence[Edit]) -> Iterator[dict[str, Any]]:
    lines = text.split("\n")
    for edit in edits:
        line_hash = xxhash.xxh3_64_intdigest(lines[edit.line].encode())
        yield {"id": identity, "row": row, **edit._asdict(), "line_hash": line_hash}


def _without(lines: Sequence[str], dropped: Collection[int]) -> list[str]:
    """The remaining lines, with only the first of the blank lines around each gap."""
    kept: list[str] = []
    beside_gap = False
    for number, line in enumerate(lines):
        blank = not line.strip()
        if number in dropped:
            beside_gap = True
        elif not (beside_gap and blank and (not kept or not kept[-1].strip())):
            kept.append(line)
            beside_gap = beside_gap and blank
    return kept
