"""Measurements and thresholds -> a decision for every document, with all its reasons.

Contract: reads columns of earlier stages, never a text, and writes, row-aligned with the documents,

    decisions/<source>/<task:05d>.parquet   everything measured, `reasons` (every one), `reason` (the first),
                                            `duplicate_of`, `decision` (kept | dropped), `destination`, `split`

so new thresholds are judged in seconds, and each decision can be explained from its row. The schema's
metadata holds `configuration`, the hash of all thresholds. Reasons of a document alone are those of
data_pipeline/decisions/reasons.py; after them comes one of exact_duplicate, url_duplicate, near_duplicate, where
another document of its cluster, named by `duplicate_of`, is kept: the best that nothing else speaks
against, which is the longest (bytes), then the one with the smallest id.

`destination` is the source, or the first of data.routes whose domain the classifier sees. A kept document
goes to validation when the hash of (seed, id) lies below `validation_share`; besides, of two or more kept
documents of a destination the lowest hash always validates (unless the share is 0) and the highest always
trains. A destination that keeps nothing is a `UserError`. Nothing depends on how documents are cut into
tasks. Cost: judging 70,000 documents a second a core; about 200 bytes of memory for each clustered
document, none for the others.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.features import FEATURES
from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.decisions import funnel
from data_pipeline.decisions import reasons as verdicts
from data_pipeline.features import pii
from data_pipeline.stages import dedup
from twofold.artifacts import Artifact, digest
from twofold.errors import Problem, UserError
from twofold.files import write_json
from twofold.stage import From, Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 3

EXACT_DUPLICATE = "exact_duplicate"
URL_DUPLICATE = "url_duplicate"
NEAR_DUPLICATE = "near_duplicate"

_FROM_DOCUMENTS = ("source", "domain", "kind", "url", "license", "file", "index")
_FROM_ATTRIBUTES = ("id", "bytes", "language", *FEATURES, "domain_label", "domain_score")
_PERSONAL = tuple(f"pii_{kind}" for kind in pii.TYPES)
_CLUSTER_KINDS = ("exact_cluster", "url_cluster", "near_cluster")
_FROM_CLUSTERS = {"cluster": pa.string(), **dict.fromkeys(_CLUSTER_KINDS, pa.string()), "cluster_size": pa.int64()}
_FROM_CONTAMINATION = {
    "benchmarks": pa.list_(pa.string()),
    "contamination_matches": pa.int64(),
    "contamination_share": pa.float64(),
    "benchmark_item": pa.string(),
}
_HASH_RANGE = 2**64


def config(recipe: Recipe) -> dict[str, Any]:
    """Thresholds and policies: all that the measuring stages do not know."""
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
    documents: Annotated[Artifact, From("lines", "extract")],
    scored: Annotated[Artifact, From("score")],
    clusters: Annotated[Artifact, From("dedup")],
    contamination: Annotated[Artifact | None, From("decontaminate")],
    out: Path,
    work: Path,
    runner: TaskRunner,
) -> Mapping[str, Any]:
    """Judge each document, settle duplicates and splits over all, then write; returns the funnel."""
    overlaps = contamination.path / "contamination" if contamination else None
    measured = Measured(documents.path / "documents", scored.path / "attributes", clusters.path, overlaps)
    inputs = _Inputs(recipe, measured, work)
    files = measured.files()
    runner.run("judge documents", _Judge(inputs), len(files), work / "judge")
    candidates = pa.concat_tables([tables.read_table(path) for _, _, path in tables.task_files(work / "candidates")])
    losers = settle(candidates)
    by_task = _by_task(losers)
    for source, number, _ in files:
        here = by_task.get((source, number), losers.slice(0, 0))
        tables.write_table(inputs.side_file("losers", source, number, "parquet"), here)
    write_json(work / "ends.json", _split_ends(inputs, candidates, losers))
    runner.run("write the decisions", _Write(inputs, out), len(files), work / "write")
    counts = funnel.gather(recipe, inputs.task_counts())
    _refuse_empty(recipe, counts)
    return counts


STAGE = Stage(
    name="filter",
    makes="decisions",
    code_version=CODE_VERSION,
    config=config,
    build=build,
)


@dataclass(frozen=True)
class Measured:
    """Where the measuring stages left their columns; the same rows in the same order everywhere."""

    documents: Path
    attributes: Path
    clusters: Path
    contamination: Path | None

    def files(self) -> list[tuple[str, int, Path]]:
        return tables.task_files(self.attributes)

    def table(self, source: str, number: int) -> pa.Table:
        """All measured columns of one task's documents."""
        table = tables.read_table(tables.task_path(self.documents, source, number), _FROM_DOCUMENTS)
        attributes = tables.read_table(
            tables.task_path(self.attributes, source, number), [*_FROM_ATTRIBUTES, *_PERSONAL]
        )
        columns = {name: attributes[name] for name in attributes.column_names}
        columns |= self._clusters(source, number, table.num_rows)
        columns |= self._contamination(source, number, table.num_rows)
        for name, column in columns.items():
            table = table.append_column(name, column)
        return table

    def _clusters(self, source: str, number: int, rows: int) -> dict[str, pa.Array]:
        here = [("source", "==", source), ("task", "==", number)]
        found = tables.read_table(self.clusters / dedup.CLUSTERS_FILE, where=here).to_pylist()
        by_row = {member["row"]: member for member in found}
        members = [by_row.get(row, {}) for row in range(rows)]
        return {name: pa.array([member.get(name) for member in members], kind) for name, kind in _FROM_CLUSTERS.items()}

    def _contamination(self, source: str, number: int, rows: int) -> dict[str, pa.Array]:
        if self.contamination is None:
            nothing: dict[str, Any] = {"benchmarks": [], "contamination_matches": 0, "contamination_share": 0.0}
            return {name: pa.array([nothing.get(name)] * rows, kind) for name, kind in _FROM_CONTAMINATION.items()}
        found = tables.read_table(tables.task_path(self.contamination, source, number), list(_FROM_CONTAMINATION))
        return {name: found[name] for name in _FROM_CONTAMINATION}


@dataclass(frozen=True)
class _Inputs:
    """What both passes' tasks read, and where they meet."""

    recipe: Recipe
    measured: Measured
    work: Path

    def task_counts(self) -> dict[str, list[dict[str, Any]]]:
        """Source -> what each of its tasks counted."""
        counts: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for source, number, _ in self.measured.files():
            counts[source].append(json.loads(self.side_file("counts", source, number).read_text(encoding="utf-8")))
        return counts

    def side_file(self, kind: str, source: str, number: int, ending: str = "json") -> Path:
        return self.work / kind / source / f"{number:05d}.{ending}"


def split_hash(seed: int, identity: str) -> int:
    """64-bit hash of (seed, id), which places a kept document in a split."""
    digested = hashlib.blake2b(f"{seed}:{identity}".encode(), digest_size=8).digest()
    return int.from_bytes(digested, "big")


def destinations(recipe: Recipe, source: str, measured: pa.Table) -> list[str]:
    """Where each document goes if it is kept: its source, or the first route that takes it."""
    routes = [(name, route) for name, route in recipe.data.routes.items() if source in route.sources]
    if not routes:
        return [source] * measured.num_rows
    return [
        next((name for name, route in routes if label == route.domain and score >= route.min_score), source)
        for label, score in zip(measured["domain_label"].to_pylist(), measured["domain_score"].to_pylist(), strict=True)
    ]


# --- first pass: what does each task know alone ------------------------------------------------

_CANDIDATES = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "source", "destination", "cluster", *_CLUSTER_KINDS)),
        ("task", pa.int32()),
        ("row", pa.int64()),
        ("hash", pa.uint64()),
        ("bytes", pa.int64()),
        ("passes", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class _Judge:
    """Task `rank` judges file `rank`: clustered documents one by one, the rest as a summary."""

    inputs: _Inputs

    def __call__(self, rank: int, world_size: int) -> None:
        recipe = self.inputs.recipe
        source, number, _ = self.inputs.measured.files()[rank]
        measured = self.inputs.measured.table(source, number)
        reasons = verdicts.against(measured, source, recipe)
        hashes = [split_hash(recipe.seed, identity) for identity in measured["id"].to_pylist()]
        places = destinations(recipe, source, measured)
        clusters = measured["cluster"].to_pylist()
        alone: dict[str, list[int]] = defaultdict(list)
        for row, cluster in enumerate(clusters):
            if cluster is None and not reasons[row]:
                alone[places[row]].append(hashes[row])
        write_json(
            self.inputs.side_file("alone", source, number),
            {destination: _ends_of(values) for destination, values in sorted(alone.items())},
        )
        extra = {
            "destination": places, "hash": hashes, "passes": [not found for found in reasons],
            "task": [number] * len(hashes), "row": list(range(len(hashes))),
        }  # fmt: skip
        columns = {
            field.name: pa.array(extra[field.name], field.type) if field.name in extra else measured[field.name]
            for field in _CANDIDATES
        }
        table = pa.table(columns, schema=_CANDIDATES).filter(pc.field("cluster").is_valid())
        tables.write_table(self.inputs.side_file("candidates", source, number, "parquet"), table)


# --- between: what only all of them know together ----------------------------------------------

_LOSERS = pa.schema(
    [
        *((name, pa.string()) for name in ("source", "reason", "duplicate_of")),
        ("task", pa.int32()),
        ("row", pa.int64()),
        ("wins", pa.bool_()),
    ]
)


def settle(candidates: pa.Table) -> pa.Table:
    """`_LOSERS`: every document of a cluster that has a kept one, with the kept one and what they share.

    The kept ones are in it too (`wins`), since a document of no such cluster is in neither role.
    """
    order = [("cluster", "ascending"), ("passes", "descending"), ("bytes", "descending"), ("id", "ascending")]
    ranked = candidates.sort_by(order)
    clusters = ranked["cluster"].to_numpy(zero_copy_only=False)
    first = np.concatenate((np.ones(min(1, len(clusters)), dtype=bool), clusters[1:] != clusters[:-1]))
    starts = np.flatnonzero(first)
    best = starts[np.cumsum(first) - 1] if len(clusters) else starts
    kept = ranked.take(pa.array(best))
    # What it shares with the kept one; where others lie between them, what joins it to its cluster.
    shared = [pc.fill_null(pc.equal(ranked[name], kept[name]), False) for name in _CLUSTER_KINDS]
    joined = [pc.is_valid(ranked[name]) for name in _CLUSTER_KINDS]
    reason = pc.case_when(pc.make_struct(*shared, *joined), *2 * (EXACT_DUPLICATE, URL_DUPLICATE, NEAR_DUPLICATE))
    columns = {
        "source": ranked["source"], "reason": reason, "duplicate_of": kept["id"],
        "task": ranked["task"], "row": ranked["row"], "wins": pa.array(first),
    }  # fmt: skip
    settled = pa.table(columns, schema=_LOSERS).filter(kept["passes"])
    return settled.sort_by([("source", "ascending"), ("task", "ascending"), ("row", "ascending")])


def _by_task(losers: pa.Table) -> dict[tuple[str, int], pa.Table]:
    """(source, task) -> its rows of the sorted table."""
    sources, tasks = (losers[name].to_numpy(zero_copy_only=False) for name in ("source", "task"))
    changes = np.flatnonzero((sources[1:] != sources[:-1]) | (tasks[1:] != tasks[:-1])) + 1
    borders = [0, *changes.tolist(), len(tasks)] if len(tasks) else []
    return {
        (str(sources[start]), int(tasks[start])): losers.slice(start, end - start)
        for start, end in itertools.pairwise(borders)
    }


def _split_ends(inputs: _Inputs, candidates: pa.Table, losers: pa.Table) -> dict[str, dict[str, int]]:
    """Destination -> count, lowest and highest hash of its kept documents."""
    hashes: dict[str, list[int]] = defaultdict(list)
    kept: dict[str, int] = defaultdict(int)
    for source, number, _ in inputs.measured.files():
        alone = json.loads(inputs.side_file("alone", source, number).read_text(encoding="utf-8"))
        for destination, ends in alone.items():
            kept[destination] += ends["count"]
            hashes[destination] += [ends["lowest"], ends["highest"]]
    keys = ["source", "task", "row"]
    winners = candidates.join(losers.filter(pc.field("wins")).select(keys), keys, join_type="inner")
    for destination, value in zip(winners["destination"].to_pylist(), winners["hash"].to_pylist(), strict=True):
        kept[destination] += 1
        hashes[destination].append(value)
    return {name: {**_ends_of(hashes[name]), "count": kept[name]} for name in inputs.recipe.destinations}


def _ends_of(hashes: list[int]) -> dict[str, int]:
    return {"count": len(hashes), "lowest": min(hashes, default=0), "highest": max(hashes, default=0)}


def split_of(value: int, ends: Mapping[str, int], share: float) -> str:
    """Where a kept document with split hash `value` goes; `ends` are those of its destination."""
    if ends["count"] >= 2 and share > 0 and value == ends["lowest"]:
        return "validation"
    return "validation" if value < share * _HASH_RANGE and value != ends["highest"] else "train"


# --- second pass: write ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Write:
    """Task `rank` writes the decisions of file `rank`, and counts it."""

    inputs: _Inputs
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, _ = self.inputs.measured.files()[rank]
        decisions = self._decisions(source, number)
        tables.write_table(tables.task_path(self.out / "decisions", source, number), decisions)
        write_json(self.inputs.side_file("counts", source, number), funnel.count(decisions))

    def _decisions(self, source: str, number: int) -> pa.Table:
        recipe = self.inputs.recipe
        measured = self.inputs.measured.table(source, number)
        losers = tables.read_table(self.inputs.side_file("losers", source, number, "parquet"))
        beaten = {row["row"]: row for row in losers.filter(~pc.field("wins")).to_pylist()}
        ends = json.loads((self.inputs.work / "ends.json").read_text(encoding="utf-8"))
        reasons = verdicts.against(measured, source, recipe)
        for row, lost in beaten.items():
            reasons[row].append(lost["reason"])
        places = destinations(recipe, source, measured)
        splits = [
            None if found else split_of(split_hash(recipe.seed, identity), ends[place], recipe.data.validation_share)
            for found, identity, place in zip(reasons, measured["id"].to_pylist(), places, strict=True)
        ]
        text = pa.string()
        columns = {
            "duplicate_of": pa.array([beaten.get(row, {}).get("duplicate_of") for row in range(len(splits))], text),
            "personal_information": pa.array(_personal_verdicts(recipe, measured), text),
            "reasons": pa.array(reasons, pa.list_(text)),
            "reason": pa.array([found[0] if found else None for found in reasons], text),
            "decision": pa.array(["dropped" if found else "kept" for found in reasons], text),
            "destination": pa.array(places, text),
            "split": pa.array(splits, text),
        }
        for name, column in columns.items():
            measured = measured.append_column(name, column)
        return measured.replace_schema_metadata({"configuration": digest(config(recipe))})


def _personal_verdicts(recipe: Recipe, measured: pa.Table) -> list[str]:
    """none, or what the policy does: masked, dropped, kept."""
    done = {"mask": "masked", "drop": "dropped", "keep": "kept"}[recipe.data.personal_information]
    return [done if total else "none" for total in verdicts.personal_totals(measured).tolist()]


def _refuse_empty(recipe: Recipe, counts: Mapping[str, Any]) -> None:
    problems = []
    for name, found in counts["sources"].items():
        if not found["train"]:
            why = ", ".join(f"{count} x {reason}" for reason, count in list(found["dropped"].items())[:3])
            problems.append(
                Problem(
                    f"sources.{name}",
                    recipe.sources[name].path,
                    f"keeps none of its {found['read']} documents ({why})",
                    "loosen data.rules, correct the source's `languages`, or remove the source",
                )
            )
    for name, route in recipe.data.routes.items():
        if not counts["routes"][name]["documents"]:
            problems.append(
                Problem(
                    f"data.routes.{name}",
                    route.domain,
                    f"takes no document of {', '.join(route.sources)}",
                    "lower its min_score, or remove the route",
                )
            )
    if problems:
        raise UserError(problems)
