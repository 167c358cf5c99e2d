"""Attributes, clusters and thresholds -> a decision for every document, with all its reasons.

Contract: writes, row-aligned with extract's documents and readable without their text,

    ledger/<source>/<task:05d>.parquet                         every document: attributes, reasons, decision
    documents/<train|validation>/<source>/<task:05d>.parquet   the kept ones, masked, for the tokenizer

`reasons` lists everything against a document, in this order, and `reason` is the first:

    wrong_language        its language is not one of the source's (never for kind `code`)
    <feature><<min>       a failed rule (data_pipeline/rules.py), in the order of configs/features.py
    <feature>><max>
    personal_information  it holds some, and data.personal_information is `drop`
    exact_duplicate       `duplicate_of` is kept: the same words, case apart
    near_duplicate        `duplicate_of` is kept: same MinHash cluster

Of a cluster the best document that nothing else speaks against is kept: the longest (bytes), then the
smallest id; where none is left, no duplicate reason is given. A kept document goes to validation when
the hash of (seed, id) lies below `validation_share`; besides, of two or more kept documents of a source
the lowest hash always validates (unless the share is 0) and the highest always trains. A source that
keeps nothing is a `UserError`. Nothing depends on how documents are cut into tasks. Cost: judging
70,000 documents a second a core, writing the kept text 35 MB/s.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import Problem, UserError
from configs.features import FEATURES
from configs.files import write_json
from configs.manifest import Artifact
from configs.schema import Recipe
from configs.tasks import TaskRunner
from data_pipeline import dedup, funnel, rules, tables
from data_pipeline.measuring import pii

CODE_VERSION = 1

WRONG_LANGUAGE = "wrong_language"
PERSONAL_INFORMATION = "personal_information"
EXACT_DUPLICATE = "exact_duplicate"
NEAR_DUPLICATE = "near_duplicate"

KEPT = pa.schema(
    [*((name, pa.string()) for name in ("id", "source", "domain", "language")), ("text", pa.large_string())]
)
_PII_COLUMNS = tuple(f"pii_{kind}" for kind in pii.TYPES)
_FROM_DOCUMENTS = ("source", "domain", "kind", "url", "licence", "file", "index")
_FROM_ATTRIBUTES = ("id", "bytes", "language", *FEATURES, *_PII_COLUMNS)
_FROM_CLUSTERS = ("exact_cluster", "near_cluster", "size")
_HASH_RANGE = 2**64


def config(recipe: Recipe) -> dict[str, Any]:
    """Thresholds and policies: all that `score` and `dedup` do not know."""
    data = recipe.data.model_dump(mode="json", include={"rules", "personal_information", "validation_share"})
    return {**data, "seed": recipe.seed, "languages": {name: list(s.languages) for name, s in recipe.sources.items()}}


def build(
    recipe: Recipe,
    extracted: Artifact,
    scored: Artifact,
    clusters: Artifact,
    out: Path,
    work: Path,
    runner: TaskRunner,
) -> Mapping[str, Any]:
    """Judge each document, settle duplicates and splits over all, then write; returns the funnel."""
    inputs = _Inputs(recipe, extracted.path / "documents", scored.path / "attributes", clusters.path, work)
    n_tasks = len(inputs.files())
    runner.run("judge documents", _Judge(inputs), n_tasks, work / "judge")
    candidates = [row for _, _, path in tables.task_files(work / "candidates") for row in tables.read_rows(path)]
    losers = _losers(candidates)
    write_json(work / "losers.json", losers)
    ends = _split_ends(inputs, candidates, losers)
    write_json(work / "ends.json", ends)
    runner.run("write ledger and kept documents", _Write(inputs, out), n_tasks, work / "write")
    counts = funnel.gather(recipe, inputs.task_counts())
    _refuse_empty(recipe, counts)
    return counts


@dataclass(frozen=True)
class _Inputs:
    """Where everything is, for tasks."""

    recipe: Recipe
    documents: Path
    attributes: Path
    clusters: Path
    work: Path

    def files(self) -> list[tuple[str, int, Path]]:
        return tables.task_files(self.attributes)

    def task_counts(self) -> dict[str, list[dict[str, Any]]]:
        """Source -> what each of its tasks counted."""
        counts: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for source, number, _ in self.files():
            counts[source].append(json.loads(self.side_file("counts", source, number).read_text(encoding="utf-8")))
        return counts

    def side_file(self, kind: str, source: str, number: int, ending: str = "json") -> Path:
        return self.work / kind / source / f"{number:05d}.{ending}"


@dataclass(frozen=True)
class _Verdicts:
    """What speaks against each document of a task, duplicates apart."""

    attributes: pa.Table
    reasons: list[list[str]]
    hashes: list[int]
    clusters: dict[int, dict[str, Any]]
    """Row -> its row of clusters.parquet."""


def _verdicts(inputs: _Inputs, source: str, number: int) -> _Verdicts:
    recipe = inputs.recipe
    attributes = tables.read_table(tables.task_path(inputs.attributes, source, number), _FROM_ATTRIBUTES)
    columns = {name: attributes[name].to_numpy() for name in FEATURES}
    languages = attributes["language"].to_pylist()
    failed = rules.failures(columns, languages, recipe.data.rules)
    allowed = (*recipe.sources[source].languages, "code")
    reasons = [
        ([] if language in allowed else [WRONG_LANGUAGE]) + names
        for language, names in zip(languages, failed, strict=True)
    ]
    if recipe.data.personal_information == "drop":
        for row in np.flatnonzero(_pii_totals(attributes)).tolist():
            reasons[row].append(PERSONAL_INFORMATION)
    found = tables.read_table(inputs.clusters / dedup.CLUSTERS_FILE)
    here = found.filter((pc.field("source") == source) & (pc.field("task") == number)).to_pylist()
    hashes = [split_hash(recipe.seed, identity) for identity in attributes["id"].to_pylist()]
    return _Verdicts(attributes, reasons, hashes, {row["row"]: row for row in here})


def split_hash(seed: int, identity: str) -> int:
    """64-bit hash of (seed, id), which places a kept document in a split."""
    digest = hashlib.blake2b(f"{seed}:{identity}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _pii_totals(attributes: pa.Table) -> npt.NDArray[np.int64]:
    totals = np.zeros(attributes.num_rows, dtype=np.int64)
    for name in _PII_COLUMNS:
        totals += attributes[name].to_numpy()
    return totals


# --- first pass: what does each task know alone ------------------------------------------------

_CANDIDATES = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "source", "cluster", "exact_cluster")),
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
        source, number, _ = self.inputs.files()[rank]
        verdicts = _verdicts(self.inputs, source, number)
        alone = [
            value
            for row, (value, reasons) in enumerate(zip(verdicts.hashes, verdicts.reasons, strict=True))
            if not reasons and row not in verdicts.clusters
        ]
        write_json(self.inputs.side_file("alone", source, number), _ends_of(alone))
        rows = (_candidate(verdicts, source, row, cluster) for row, cluster in verdicts.clusters.items())
        tables.write_rows(self.inputs.side_file("candidates", source, number, "parquet"), _CANDIDATES, rows)


def _candidate(verdicts: _Verdicts, source: str, row: int, cluster: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": cluster["id"],
        "source": source,
        "cluster": cluster["near_cluster"] or cluster["exact_cluster"],
        "exact_cluster": cluster["exact_cluster"],
        "hash": verdicts.hashes[row],
        "bytes": verdicts.attributes["bytes"][row].as_py(),
        "passes": not verdicts.reasons[row],
    }


# --- between: what only all of them know together ----------------------------------------------


def _losers(candidates: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Id -> [reason, id of the kept one], for every document that a kept one of its cluster beats."""
    members: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for candidate in candidates:
        members[candidate["cluster"]].append(candidate)
    losers: dict[str, list[str]] = {}
    for cluster in members.values():
        passing = [member for member in cluster if member["passes"]]
        if not passing:
            continue
        kept = min(passing, key=lambda member: (-member["bytes"], member["id"]))
        for member in cluster:
            if member is not kept:
                exact = member["exact_cluster"] is not None and member["exact_cluster"] == kept["exact_cluster"]
                losers[member["id"]] = [EXACT_DUPLICATE if exact else NEAR_DUPLICATE, kept["id"]]
    return losers


def _split_ends(
    inputs: _Inputs, candidates: list[dict[str, Any]], losers: Mapping[str, list[str]]
) -> dict[str, dict[str, int]]:
    """Source -> count, lowest and highest hash of its kept documents."""
    hashes: dict[str, list[int]] = defaultdict(list)
    kept: Counter[str] = Counter()
    for source, number, _ in inputs.files():
        alone = json.loads(inputs.side_file("alone", source, number).read_text(encoding="utf-8"))
        kept[source] += alone["count"]
        hashes[source] += [alone["lowest"], alone["highest"]] if alone["count"] else []
    for candidate in candidates:
        if candidate["passes"] and candidate["id"] not in losers:
            kept[candidate["source"]] += 1
            hashes[candidate["source"]].append(candidate["hash"])
    return {source: {**_ends_of(hashes[source]), "count": kept[source]} for source in inputs.recipe.sources}


def _ends_of(hashes: list[int]) -> dict[str, int]:
    return {"count": len(hashes), "lowest": min(hashes, default=0), "highest": max(hashes, default=0)}


def split_of(value: int, ends: Mapping[str, int], share: float) -> str:
    """Where a kept document with split hash `value` goes; `ends` are those of its source."""
    if ends["count"] >= 2 and share > 0 and value == ends["lowest"]:
        return "validation"
    return "validation" if value < share * _HASH_RANGE and value != ends["highest"] else "train"


# --- second pass: write ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Write:
    """Task `rank` writes the ledger and the kept documents of file `rank`, and counts them."""

    inputs: _Inputs
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        source, number, _ = self.inputs.files()[rank]
        ledger = self._ledger(source, number)
        tables.write_table(tables.task_path(self.out / "ledger", source, number), ledger)
        splits = ledger["split"].to_pylist()
        for split in funnel.SPLITS:
            target = tables.task_path(self.out / "documents" / split, source, number)
            tables.write_rows(target, KEPT, self._kept(source, number, ledger, splits, split))
        write_json(self.inputs.side_file("counts", source, number), funnel.count(ledger))

    def _ledger(self, source: str, number: int) -> pa.Table:
        recipe = self.inputs.recipe
        verdicts = _verdicts(self.inputs, source, number)
        losers = json.loads((self.inputs.work / "losers.json").read_text(encoding="utf-8"))
        ends = json.loads((self.inputs.work / "ends.json").read_text(encoding="utf-8"))[source]
        beaten = [losers.get(identity) for identity in verdicts.attributes["id"].to_pylist()]
        reasons = [own + ([lost[0]] if lost else []) for own, lost in zip(verdicts.reasons, beaten, strict=True)]
        splits = [
            None if against else split_of(value, ends, recipe.data.validation_share)
            for against, value in zip(reasons, verdicts.hashes, strict=True)
        ]
        ledger = tables.read_table(tables.task_path(self.inputs.documents, source, number), _FROM_DOCUMENTS)
        clusters = [verdicts.clusters.get(row, {}) for row in range(len(reasons))]
        text = pa.string()
        columns = {
            **{name: verdicts.attributes[name] for name in _FROM_ATTRIBUTES},
            **{
                name: pa.array([found.get(name) for found in clusters], pa.int64() if name == "size" else text)
                for name in _FROM_CLUSTERS
            },
            "duplicate_of": pa.array([lost and lost[1] for lost in beaten], text),
            "personal_information": pa.array(_pii_verdicts(recipe, verdicts.attributes), text),
            "reasons": pa.array(reasons, pa.list_(text)),
            "reason": pa.array([against[0] if against else None for against in reasons], text),
            "decision": pa.array(["dropped" if against else "kept" for against in reasons], text),
            "split": pa.array(splits, text),
        }
        for name, column in columns.items():
            ledger = ledger.append_column("cluster_size" if name == "size" else name, column)
        return ledger

    def _kept(
        self, source: str, number: int, ledger: pa.Table, splits: list[str | None], split: str
    ) -> Iterator[tables.Row]:
        if split not in splits:
            return
        masking = self.inputs.recipe.data.personal_information == "mask"
        personal = _pii_totals(ledger)
        languages = ledger["language"].to_pylist()
        path = tables.task_path(self.inputs.documents, source, number)
        for place, row in enumerate(tables.read_rows(path, ["id", "source", "domain", "text"])):
            if splits[place] == split:
                text = pii.mask(row["text"]) if masking and personal[place] else row["text"]
                yield {**row, "language": languages[place], "text": text}


def _pii_verdicts(recipe: Recipe, attributes: pa.Table) -> list[str]:
    """none, or what the policy did: masked, dropped, kept."""
    done = {"mask": "masked", "drop": "dropped", "keep": "kept"}[recipe.data.personal_information]
    return [done if total else "none" for total in _pii_totals(attributes).tolist()]


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
    if problems:
        raise UserError(problems)
