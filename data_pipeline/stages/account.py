"""The account of a source: what became of every file, record and byte.

Contract: `Tally` counts while one task reads. `of_source` adds up the tasks of a source: for files, records and bytes
`found` = `read` + `refused` by reason + `passed_over` by reason. What is found comes from the listing of the source's
path, what became of it from the readers, so `check` fails if a reader lost something. `lines` tells it to people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from configs.units import format_bytes
from data_pipeline.readers.folders import InputFile, Listing
from data_pipeline.readers.formats import Document, Passed, Reject
from twofold.errors import user_error

MEASURES = ("files", "records", "bytes")
BEYOND_LIMIT = "beyond max_bytes"
_Found = Document | Reject | Passed | None


class Tally:
    """Counts of one task by outcome, `read` or `refused:<reason>` or `passed_over:<reason>`."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {measure: Counter() for measure in MEASURES}
        self.found_records = 0
        self.like_html = 0
        self.fields_seen: str | None = None
        """The fields of the first record without text."""
        self._file: Counter[str] = Counter()
        self._file_bytes = 0

    def add(self, file: InputFile, found: _Found, n_bytes: int) -> None:
        """Count a file's next record, or None for a file without any."""
        if isinstance(found, Reject) and found.reason == "unreadable_file":
            n_bytes = max(0, file.bytes - self._file_bytes)  # a file that is gone has no size
        self._file_bytes += n_bytes
        outcome = _outcome(found)
        self.counts["bytes"][outcome] += n_bytes
        if found is None:
            return
        self.found_records += 1
        self.counts["records"][outcome] += 1
        self._file[outcome] += 1
        self.like_html += isinstance(found, Document) and found.markup
        if isinstance(found, Reject) and found.reason == "no_text_field":
            self.fields_seen = self.fields_seen or found.detail

    def end_of_file(self) -> None:
        """A file is refused if records of it were refused and none was read."""
        refused = next((outcome for outcome in self._file if outcome.startswith("refused")), None)
        self.counts["files"][refused if refused and not self._file["read"] else "read"] += 1
        self._file, self._file_bytes = Counter(), 0

    def limit_reached(self, file: InputFile, others: Sequence[InputFile]) -> None:
        """Count the rest of a file, and the files after it, as beyond the source's `max_bytes`."""
        beyond = f"passed_over:{BEYOND_LIMIT}"
        rest = sum(other.bytes for other in others) + file.bytes - self._file_bytes
        self.counts["bytes"][beyond] += rest
        self.counts["files"][beyond if not self._file["read"] else "read"] += 1
        self.counts["files"][beyond] += len(others)

    def as_json(self) -> dict[str, Any]:
        return {
            **self.counts,
            "found_records": self.found_records,
            "like_html": self.like_html,
            "fields_seen": self.fields_seen,
        }


def of_source(listing: Listing, tasks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The account of a source from its listing and its tasks' tallies."""
    totals: dict[str, Counter[str]] = {measure: Counter() for measure in MEASURES}
    found_records = 0
    for task in tasks:
        found_records += task["found_records"]
        for measure in MEASURES:
            totals[measure].update(task[measure])
    for reason, passed in listing.passed_over.items():
        totals["files"][f"passed_over:{reason}"] += passed.files
        totals["bytes"][f"passed_over:{reason}"] += passed.bytes
    passed_bytes = sum(passed.bytes for passed in listing.passed_over.values())
    found = {
        "files": listing.found,
        "records": found_records,
        "bytes": sum(file.bytes for file in listing.files) + passed_bytes,
    }
    return {measure: {"found": found[measure], **_nested(totals[measure])} for measure in MEASURES}


def check(name: str, path: str, account: Mapping[str, Any]) -> None:
    """Raise a `UserError` unless each measure adds up."""
    for measure in MEASURES:
        counted = account[measure]
        total = counted["read"] + sum(counted["refused"].values()) + sum(counted["passed_over"].values())
        if total != counted["found"]:
            raise user_error(
                f"sources.{name}",
                path,
                f"has {counted['found']} {measure}, but {total} were read, refused or passed over",
                "leave its files unchanged while they are read, and run again",
            )


def lines(name: str, account: Mapping[str, Any], examples: Mapping[str, Sequence[str]]) -> list[str]:
    """The account of one source for the terminal, one line if everything was read."""
    told = {measure: _number(measure, account[measure]["found"]) for measure in MEASURES}
    if all(account[measure]["read"] == account[measure]["found"] for measure in MEASURES):
        return [f"{name}: {told['files']}, {told['records']}, {told['bytes']}; everything was read"]
    return [f"{name}: {told[measure]} = {_parts(measure, account[measure], examples)}" for measure in MEASURES]


def _outcome(found: _Found) -> str:
    if isinstance(found, Reject):
        return f"refused:{found.reason}"
    if isinstance(found, Passed):
        return f"passed_over:{found.kind}"
    return "read"


def _nested(totals: Mapping[str, int]) -> dict[str, Any]:
    nested: dict[str, Any] = {"read": 0, "refused": {}, "passed_over": {}}
    for outcome, number in sorted(totals.items(), key=lambda item: (-item[1], item[0])):
        group, colon, reason = outcome.partition(":")
        if colon and number:
            nested[group][reason] = number
        elif not colon:
            nested[group] = number
    return nested


def _parts(measure: str, counted: Mapping[str, Any], examples: Mapping[str, Sequence[str]]) -> str:
    parts = [f"{_number(measure, counted['read'], bare=True)} read"]
    for group in ("refused", "passed_over"):
        reasons = counted[group]
        if reasons:
            total = _number(measure, sum(reasons.values()), bare=True)
            each = (
                f"{reason} {_number(measure, number, bare=True)}"
                + (f": {', '.join(examples[reason][:3])}" if measure == "files" and examples.get(reason) else "")
                for reason, number in reasons.items()
            )
            parts.append(f"{total} {group.replace('_', ' ')} ({'; '.join(each)})")
    return " + ".join(parts)


def _number(measure: str, number: int, bare: bool = False) -> str:
    if measure == "bytes":
        return format_bytes(number)
    unit = measure.removesuffix("s") if number == 1 else measure
    return f"{number:,}" if bare else f"{number:,} {unit}"
