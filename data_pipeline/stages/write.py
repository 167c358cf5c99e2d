"""Decisions -> kept documents, masked, for the tokenizer.

Contract: writes `documents/<train|validation>/<destination>/<task:05d>.parquet` with the columns of
`KEPT`: exactly the documents that the decisions keep, in their order, personal information masked where the
decisions say so. A document's `source` stays where it came from; the folder (and `domain`) is where the
decisions send it. The only stage after `score` that reads text. Cost: 35 MB/s a core; memory one row group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa

from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.decisions import funnel
from data_pipeline.features import pii
from twofold.artifacts import Artifact
from twofold.stage import From, Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 1

KEPT = pa.schema(
    [*((name, pa.string()) for name in ("id", "source", "domain", "language")), ("text", pa.large_string())]
)
_FROM_DECISIONS = ["language", "personal_information", "destination", "split"]


def config(recipe: Recipe) -> dict[str, Any]:
    """The decisions hold everything but the domains of its destinations."""
    return {"domains": recipe.destinations}


def build(
    recipe: Recipe,
    documents: Annotated[Artifact, From("lines", "extract")],
    decided: Annotated[Artifact, From("filter")],
    out: Path,
    work: Path,
    runner: TaskRunner,
) -> Mapping[str, Any]:
    """Write every kept document; returns documents by split and destination."""
    task = _Write(recipe.destinations, documents.path / "documents", decided.path / "decisions", out / "documents")
    files = tables.task_files(task.decisions)
    runner.run("write kept documents", task, len(files), work / "write")
    splits: dict[str, Counter[str]] = {split: Counter() for split in funnel.SPLITS}
    for split, count in splits.items():
        for destination, _, path in tables.task_files(task.kept / split):
            count[destination] += tables.count_rows(path)
    return {split: dict(count) for split, count in splits.items()}


STAGE = Stage(
    name="write",
    makes="kept documents",
    code_version=CODE_VERSION,
    config=config,
    build=build,
)


@dataclass(frozen=True)
class _Write:
    """Task `rank` writes the kept documents of decisions file `rank`."""

    domains: Mapping[str, str]
    documents: Path
    decisions: Path
    kept: Path

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, path = tables.task_files(self.decisions)[rank]
        decisions = tables.read_table(path, _FROM_DECISIONS).to_pylist()
        for split, destination in sorted({(row["split"], row["destination"]) for row in decisions if row["split"]}):
            # A route gathers from many sources, so only the task's own number is unique in it.
            target = tables.task_path(self.kept / split, destination, number if destination == source else rank)
            tables.write_rows(target, KEPT, self._rows(source, number, decisions, split, destination))

    def _rows(
        self, source: str, number: int, decisions: list[dict[str, Any]], split: str, destination: str
    ) -> Iterator[tables.Row]:
        path = tables.task_path(self.documents, source, number)
        for judged, row in zip(decisions, tables.read_rows(path, ["id", "source", "text"]), strict=True):
            if judged["split"] == split and judged["destination"] == destination:
                text = pii.mask(row["text"]) if judged["personal_information"] == "masked" else row["text"]
                yield {**row, "domain": self.domains[destination], "language": judged["language"], "text": text}
