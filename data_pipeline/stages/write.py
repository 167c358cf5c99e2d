"""Decisions -> kept documents, masked, for the tokenizer.

Contract: writes `documents/<train|validation>/<destination>/<task:05d>.parquet` with the columns of `KEPT`:
exactly the documents that the decisions keep, in their order, with personal information masked where the
decisions say so. `source` remains a document's origin; its folder and `domain` are those of its destination.
Each file of documents is read once. Cost: 35 MB/s per core; memory for one row group of each destination.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.decisions import funnel
from data_pipeline.features import pii
from data_pipeline.stages import score as score_stage
from twofold.artifacts import Artifact
from twofold.stage import Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 2

KEPT = pa.schema(
    [*((name, pa.string()) for name in ("id", "source", "domain", "language")), ("text", pa.large_string())]
)
_FROM_DECISIONS = ["language", "personal_information", "destination", "split"]


def config(recipe: Recipe) -> dict[str, Any]:
    """The decisions contain everything but the domains of the destinations."""
    return {"domains": recipe.destinations}


def build(
    recipe: Recipe, extract: Artifact, score: Artifact, filter: Artifact, out: Path, work: Path, runner: TaskRunner
) -> Mapping[str, Any]:
    """Write every kept document; returns documents by split and destination."""
    documents, kept = score_stage.documents(extract, score).path / "documents", out / "documents"
    task = _Write(recipe.destinations, documents, tuple(tables.task_files(filter.path / "decisions")), kept)
    runner.run("write kept documents", task, len(task.decisions), work / "write")
    splits: dict[str, Counter[str]] = {split: Counter() for split in funnel.SPLITS}
    for split, count in splits.items():
        for destination, _, path in tables.task_files(kept / split):
            count[destination] += tables.count_rows(path)
    return {split: dict(count) for split, count in splits.items()}


STAGE = Stage(name="write", makes="kept documents", code_version=CODE_VERSION, config=config, build=build)


@dataclass(frozen=True)
class _Write:
    """Task `rank` writes the kept documents of the `rank`-th file of decisions."""

    domains: Mapping[str, str]
    documents: Path
    decisions: tuple[tuple[str, int, Path], ...]
    kept: Path

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, path = self.decisions[rank]
        decisions = tables.read_table(path, _FROM_DECISIONS).to_pylist()
        rows = tables.read_rows(tables.task_path(self.documents, source, number), ["id", "source", "text"])
        with ExitStack() as stack:
            writers = {}
            for split, destination in sorted({(row["split"], row["destination"]) for row in decisions if row["split"]}):
                # A route gathers from many sources, so only the rank is unique among its files.
                file = tables.task_path(self.kept / split, destination, number if destination == source else rank)
                writers[split, destination] = stack.enter_context(tables.row_writer(file, KEPT))
            for decision, row in zip(decisions, rows, strict=True):
                if decision["split"]:
                    write = writers[decision["split"], decision["destination"]]
                    write({**row, **self._kept(decision, row["text"])})

    def _kept(self, decision: Mapping[str, Any], text: str) -> dict[str, str]:
        return {
            "domain": self.domains[decision["destination"]],
            "language": decision["language"],
            "text": pii.mask(text, decision["language"] == "code")
            if decision["personal_information"] == "masked"
            else text,
        }
