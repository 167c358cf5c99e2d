"""Measurements and thresholds -> a decision for every document, with all its reasons.

Contract: reads columns of earlier stages, never a text, and writes, row-aligned with the documents,

    decisions/<source>/<task:05d>.parquet   all measured columns, `reasons` (every one), `reason` (the first),
                                            `duplicate_of`, `duplicate_similarity`, `decision`
                                            (kept | dropped), `destination`, `split`

so new thresholds are applied in seconds, and each decision can be explained from its row. The schema's
metadata holds `configuration`, the hash of all thresholds. data_pipeline/decisions/ decides: `reasons` about
each document alone, `duplicates` about those that duplicate each other, `splits` about training and validation.

`destination` is the source, or the first of data.routes whose domain the classifier predicts. It is a
`UserError` if a source or route keeps nothing. The result does not depend on how documents are divided into
tasks. Cost: 70,000 documents/s per core. Clusters are settled in parts of about a million documents, which take about
300 bytes of memory for each.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from configs.features import FEATURES
from configs.schema import Recipe
from data_pipeline import shuffle, tables
from data_pipeline.decisions import duplicates, funnel, reasons, splits
from data_pipeline.features import pii
from data_pipeline.stages import decontaminate as decontaminate_stage
from data_pipeline.stages import dedup as dedup_stage
from twofold.artifacts import Artifact, digest
from twofold.errors import Problem, UserError
from twofold.files import write_json
from twofold.stage import Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 7

_FROM_DOCUMENTS = ["source", "domain", "kind", "url", "license", "file", "index"]
_FROM_ATTRIBUTES = [
    *("id", "bytes", "language", *FEATURES, "domain_label", "domain_score"),
    *(f"pii_{kind}" for kind in pii.TYPES),
]
PART_DOCUMENTS = 1_000_000
_NOT_CONTAMINATED: dict[str, Any] = {"benchmarks": [], "contamination_matches": 0, "contamination_share": 0.0}
_KINDS = {"reasons": pa.list_(pa.string()), "duplicate_similarity": pa.float64()}
_NOT_LOST: dict[str, Any] = {"duplicate_of": None, "similarity": None}
_POLICY_VERDICTS = {"mask": "masked", "drop": "dropped", "keep": "kept"}


def config(recipe: Recipe) -> dict[str, Any]:
    """Thresholds and policies: everything that the measuring stages do not depend on."""
    taken = {"rules", "personal_information", "validation_share", "compliance", "routes"}
    policy = recipe.data.decontamination.policy if recipe.data.decontamination else None
    return {
        **recipe.data.model_dump(mode="json", include=taken),
        "contaminated": policy,
        "seed": recipe.seed,
        "languages": {name: list(source.languages) for name, source in recipe.sources.items()},
    }


def build(
    recipe: Recipe,
    extract: Artifact,
    score: Artifact,
    dedup: Artifact,
    decontaminate: Artifact | None,
    out: Path,
    work: Path,
    runner: TaskRunner,
) -> Mapping[str, Any]:
    """Judge each document, settle duplicates and splits over all of them, then write; returns the funnel."""
    clusters, pairs = (dedup.path / name for name in (dedup_stage.CLUSTERS_FOLDER, dedup_stage.PAIRS_FOLDER))
    contamination = decontaminate.path / "contamination" if decontaminate else None
    measured = Measured(extract.path / "documents", score.path / "attributes", clusters, contamination)
    runs = shuffle.Runs.of(clusters)
    inputs = _Inputs(recipe, measured, pairs, runs, max(1, math.ceil(runs.documents / PART_DOCUMENTS)), work)
    runner.run("judge documents", _Judge(inputs), len(runs), work / "judge")
    runner.run("settle duplicates", _Settle(inputs), inputs.parts, work / "settle")
    write_json(work / "ends.json", _split_ends(inputs))
    runner.run("write the decisions", _Write(inputs, out), len(runs), work / "write")
    counts = funnel.gather(recipe, inputs.task_counts())
    _refuse_empty(recipe, counts)
    return counts


def remarks(counts: Mapping[str, Any]) -> list[str]:
    """What is kept and why the rest is not, by source, and what data.compliance.hosts could not judge."""
    return [_kept(name, found) for name, found in counts["sources"].items()] + [
        f"{name}: data.compliance.hosts cannot judge {found['no_host']:,} of {found['read']:,} documents, "
        f"which have no usable URL. If their records have one, set sources.{name}.url_field."
        for name, found in counts["sources"].items()
        if counts["by_host"] and found["no_host"]
    ]


def _kept(name: str, found: Mapping[str, Any]) -> str:
    """`web: 120 of 150 documents kept; dropped most for words<50 (12), …`."""
    most = sorted(found["dropped"].items(), key=lambda item: -item[1])[:3]
    why = "; dropped most for " + ", ".join(f"{reason} ({count:,})" for reason, count in most) if most else ""
    return f"{name}: {found['kept']:,} of {found['read']:,} documents kept{why}"


STAGE = Stage(name="filter", makes="decisions", code_version=CODE_VERSION, config=config, build=build, remarks=remarks)


@dataclass(frozen=True)
class Measured:
    """The columns of the measuring stages, all with the same rows in the same order."""

    documents: Path
    attributes: Path
    clusters: Path
    contamination: Path | None

    def table(self, source: str, number: int) -> pa.Table:
        """All measured columns of one task's documents."""
        documents = tables.read_table(tables.task_path(self.documents, source, number), _FROM_DOCUMENTS)
        attributes = tables.read_table(tables.task_path(self.attributes, source, number), _FROM_ATTRIBUTES)
        clusters = tables.read_table(tables.task_path(self.clusters, source, number))
        contamination = self._contamination(source, number, documents.num_rows)
        for part in (attributes, clusters, contamination):
            for name in part.column_names:
                documents = documents.append_column(name, part[name])
        return documents

    def _contamination(self, source: str, number: int, rows: int) -> pa.Table:
        columns = decontaminate_stage.CONTAMINATION
        if self.contamination is None:
            return _table([_NOT_CONTAMINATED] * rows, columns)
        return tables.read_table(tables.task_path(self.contamination, source, number), columns.names)


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Missing values are null."""
    return pa.table([pa.array([row.get(field.name) for row in rows], field.type) for field in schema], schema=schema)


class _Task(NamedTuple):
    """What a task knows about its documents without the others; the lists have one entry per row."""

    measured: pa.Table
    reasons: list[list[str]]
    destinations: list[str]
    hashes: list[int]


@dataclass(frozen=True)
class _Inputs:
    """What the tasks read, and the files through which they meet: a document settles in the part of its cluster."""

    recipe: Recipe
    measured: Measured
    pairs: Path
    runs: shuffle.Runs
    parts: int
    work: Path

    def judged(self, file: shuffle.TaskFile) -> _Task:
        """Judge the documents of a file, each by itself."""
        measured = self.measured.table(file.source, file.number)
        hashes = [splits.split_hash(self.recipe.seed, identity) for identity in measured["id"].to_pylist()]
        against = reasons.against(measured, file.source, self.recipe)
        return _Task(measured, against, destinations(self.recipe, file.source, measured), hashes)

    def task_counts(self) -> dict[str, list[dict[str, Any]]]:
        """Source -> the counts of its files."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for file in self.runs.files:
            found[file.source].append(tables.read_json(self.count_file(file)))
        return found

    def count_file(self, file: shuffle.TaskFile) -> Path:
        return tables.task_path(self.work / "counts", file.source, file.number, "json")

    def path(self, kind: str, number: int) -> Path:
        """What the task of that number wrote."""
        return self.work / kind / f"{number:05d}"

    def read(self, kind: str, schema: pa.Schema, part: int) -> pa.Table:
        """What all runs wrote for a part."""
        paths = [self.path(kind, run) for run in range(len(self.runs))]
        return shuffle.read(paths, schema, part, self.parts)


def destinations(recipe: Recipe, source: str, measured: pa.Table) -> list[str]:
    """Where each document goes if it is kept: its source, or the first route that takes it."""
    routes = [(name, route) for name, route in recipe.data.routes.items() if source in route.sources]
    if not routes:
        return [source] * measured.num_rows
    return [
        next((name for name, route in routes if label == route.domain and score >= route.min_score), source)
        for label, score in zip(measured["domain_label"].to_pylist(), measured["domain_score"].to_pylist(), strict=True)
    ]


@dataclass(frozen=True)
class _Judge:
    """Task `rank` sends the clustered documents of a run, and their pairs, to the parts; it summarises the others."""

    inputs: _Inputs

    def __call__(self, rank: int, world_size: int) -> None:
        inputs = self.inputs
        alone: dict[str, list[int]] = defaultdict(list)
        with (
            shuffle.writing(inputs.path("candidates", rank), duplicates.CANDIDATES, inputs.parts) as send,
            shuffle.writing(inputs.path("pairs", rank), dedup_stage.PAIRS, inputs.parts) as send_pairs,
        ):
            for file in inputs.runs.of_run(rank):
                task = inputs.judged(file)
                clusters = pc.fill_null(task.measured["cluster"], -1).to_numpy()
                clustered = np.flatnonzero(clusters >= 0)
                send(self._candidates(task, clustered), clusters[clustered] % inputs.parts)
                pairs = tables.read_table(file.below(inputs.pairs))
                send_pairs(pairs, clusters[pairs["first"].to_numpy() - file.start] % inputs.parts)
                for row in np.flatnonzero(clusters < 0).tolist():
                    if not task.reasons[row]:
                        alone[task.destinations[row]].append(task.hashes[row])
        ends = {destination: splits.ends_of(values) for destination, values in sorted(alone.items())}
        write_json(inputs.path("ends", rank), ends)

    def _candidates(self, task: _Task, rows: npt.NDArray[np.int64]) -> pa.Table:
        """`duplicates.CANDIDATES` of these rows."""
        place = {name: number for number, name in enumerate(self.inputs.recipe.destinations)}
        known = {
            "destination": [place[name] for name in task.destinations],
            "hash": task.hashes,
            "passes": [not names for names in task.reasons],
        }
        columns = [
            pa.array(known[field.name], field.type) if field.name in known else task.measured[field.name]
            for field in duplicates.CANDIDATES
        ]
        chosen = pa.table(columns, names=duplicates.CANDIDATES.names).take(rows)
        return chosen.cast(duplicates.CANDIDATES)


@dataclass(frozen=True)
class _Settle:
    """Task `rank` settles the clusters of a part, and sends those that lost to their runs."""

    inputs: _Inputs

    def __call__(self, rank: int, world_size: int) -> None:
        inputs = self.inputs
        candidates = inputs.read("candidates", duplicates.CANDIDATES, rank)
        settled = duplicates.settle(candidates, inputs.read("pairs", dedup_stage.PAIRS, rank))
        with shuffle.writing(inputs.path("lost", rank), duplicates.LOST, len(inputs.runs)) as send:
            send(settled.lost, inputs.runs.holding(settled.lost["document"].to_numpy()))
        places, hashes = (settled.kept[name].to_numpy() for name in ("destination", "hash"))
        ends = {
            name: splits.ends_of(hashes[places == place].tolist())
            for place, name in enumerate(inputs.recipe.destinations)
        }
        write_json(inputs.path("kept-ends", rank), ends)


def _split_ends(inputs: _Inputs) -> dict[str, dict[str, int]]:
    """Destination -> count, lowest and highest hash of its kept documents."""
    found = [tables.read_json(inputs.path("ends", run)) for run in range(len(inputs.runs))]
    found += [tables.read_json(inputs.path("kept-ends", part)) for part in range(inputs.parts)]
    return {
        name: splits.joined_ends([ends[name] for ends in found if name in ends]) for name in inputs.recipe.destinations
    }


@dataclass(frozen=True)
class _Write:
    """Task `rank` writes the decisions of a run's files and counts them."""

    inputs: _Inputs
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        inputs = self.inputs
        sent = [inputs.path("lost", part) for part in range(inputs.parts)]
        lost = shuffle.read(sent, duplicates.LOST, rank, len(inputs.runs)).sort_by("document")
        numbers = lost["document"].to_numpy()
        for file in inputs.runs.of_run(rank):
            task = inputs.judged(file)
            start, stop = np.searchsorted(numbers, [file.start, file.stop]).tolist()
            here = {row["document"] - file.start: row for row in lost.slice(start, stop - start).to_pylist()}
            for row, duplicate in here.items():
                task.reasons[row].append(duplicate["reason"])
            decisions = self._decisions(task, [here.get(row, _NOT_LOST) for row in range(file.stop - file.start)])
            tables.write_table(file.below(self.out / "decisions"), decisions)
            write_json(inputs.count_file(file), funnel.count(decisions))

    def _decisions(self, task: _Task, lost: list[dict[str, Any]]) -> pa.Table:
        recipe = self.inputs.recipe
        ends = tables.read_json(self.inputs.work / "ends.json")
        share = recipe.data.validation_share
        verdict = _POLICY_VERDICTS[recipe.data.personal_information]
        columns: dict[str, list[Any]] = {
            "duplicate_of": [duplicate["duplicate_of"] for duplicate in lost],
            "duplicate_similarity": [duplicate["similarity"] for duplicate in lost],
            "personal_information": [verdict if total else "none" for total in reasons.personal_totals(task.measured)],
            "reasons": task.reasons,
            "reason": [names[0] if names else None for names in task.reasons],
            "decision": ["dropped" if names else "kept" for names in task.reasons],
            "destination": task.destinations,
            "split": [
                None if names else splits.split_of(value, ends[place], share)
                for names, value, place in zip(task.reasons, task.hashes, task.destinations, strict=True)
            ],
        }
        decisions = task.measured
        for name, values in columns.items():
            decisions = decisions.append_column(name, pa.array(values, _KINDS.get(name, pa.string())))
        return decisions.replace_schema_metadata({"configuration": digest(config(recipe))})


def _refuse_empty(recipe: Recipe, counts: Mapping[str, Any]) -> None:
    problems = []
    for name, found in counts["sources"].items():
        if not found["train"]:
            why = ", ".join(f"{count} x {reason}" for reason, count in list(found["dropped"].items())[:3])
            problem = f"keeps no document of {found['read']} ({why})"
            hint = "loosen data.rules, correct the source's `languages`, or remove the source"
            problems.append(Problem(f"sources.{name}", recipe.sources[name].path, problem, hint))
    for name, route in recipe.data.routes.items():
        if not counts["routes"][name]["documents"]:
            problem, hint = (
                f"takes no document of {', '.join(route.sources)}",
                "lower its min_score, or remove the route",
            )
            problems.append(Problem(f"data.routes.{name}", route.domain, problem, hint))
    if problems:
        raise UserError(problems)
