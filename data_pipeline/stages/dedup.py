"""Hashes, URLs and MinHash keys -> exact and URL duplicates, and pairs of near duplicates.

Contract: writes

    clusters.parquet  one row per document that has a duplicate: `id`, `source`, `task` and `row` (its location),
                      `document` (its number), `exact_cluster` and `url_cluster` (each named by its smallest id; null
                      if the document has no duplicate of that kind), and `cluster` and `cluster_size` for the
                      documents linked by any kind, directly or through others
    pairs.parquet     near duplicates: `first` < `second` (document numbers) and `similarity`

Exact duplicates have the same words, ignoring case. URL duplicates have the same canonical URL
(data_pipeline/features/urls.py) and words that agree: a similarity of at least `url_duplicates_threshold` to the
longest document of their group. Many sources give the address of their site to each text, so the address alone says
little; `url_different` counts the documents that share an address with others and agree with none.

A pair stands for all exact copies of both documents. Two documents are compared if they share a MinHash bucket key,
and are near duplicates if their estimated similarity is at least `threshold` even if it is one standard error too
high (data_pipeline/features/minhash.py). Of more than 64 documents with one key, each is compared with the longest 32
and the next 8. A cluster only says which documents may compete: `filter` decides which are kept, and drops a document
only for one to which it is itself linked.

The result does not depend on how documents are divided into tasks. Cost: one sort per kind of key and bucket, in
tasks of at most 16 million documents (about 1.5 GB: up to 95 bytes per document), at 3 million documents/s or
more; then about 200 bytes of memory per duplicate. A hundred million documents with 16 kinds of key take 112
tasks of less than a minute each. Comparing takes tasks of half a million pairs, and 1 GB of memory each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.stages import connected_components, near_pairs
from data_pipeline.stages import score as score_stage
from twofold.artifacts import Artifact
from twofold.stage import Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 5

CLUSTERS = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("task", pa.int32()),
        ("row", pa.int64()),
        ("document", pa.int64()),
        ("exact_cluster", pa.string()),
        ("url_cluster", pa.string()),
        ("cluster", pa.string()),
        ("cluster_size", pa.int64()),
    ]
)
PAIRS = pa.schema([("first", pa.int64()), ("second", pa.int64()), ("similarity", pa.float64())])
CLUSTERS_FILE, PAIRS_FILE = "clusters.parquet", "pairs.parquet"
PART_DOCUMENTS = 16_000_000
_EXACT, _URL = "exact_hash", "url_hash"

Pairs = npt.NDArray[np.int64]
"""Shape (n, 2): positions of duplicates among the rows of all tasks."""
Keys = npt.NDArray[np.uint64]
"""Shape (n, k): n keys of k words."""


def config(recipe: Recipe) -> dict[str, Any]:
    """Which duplicates are looked for; the MinHash keys depend on score's settings."""
    near = recipe.data.near_duplicates
    data = recipe.data
    return {
        "threshold": near.threshold if near.enabled else None,
        "url_duplicates": data.url_duplicates_threshold if data.url_duplicates else None,
    }


def build(recipe: Recipe, score: Artifact, out: Path, work: Path, runner: TaskRunner) -> Mapping[str, Any]:
    """Find pairs for each key, compare near ones, link them all, name the clusters; returns their counts."""
    files = tables.task_files(score.path / "attributes")
    lengths = [tables.count_rows(path) for _, _, path in files]
    buckets = score_stage.bucket_columns(recipe.data.near_duplicates)
    keys = (_EXACT, *([_URL] if recipe.data.url_duplicates else []), *buckets)
    parts = max(1, math.ceil(sum(lengths) / PART_DOCUMENTS))
    task = _FindPairs(score.path / "attributes", keys, parts, work / "pairs")
    runner.run("find duplicates", task, len(keys) * parts, work / "dedup")
    exact = task.pairs(_EXACT)
    url_threshold = recipe.data.url_duplicates_threshold
    same_url = task.pairs(_URL)
    agreeing = near_pairs.similar(same_url, files, lengths, url_threshold, work / "url", runner).pairs
    url = near_pairs.same_pages(agreeing)
    shared = near_pairs.unique([task.pairs(key) for key in buckets])
    near = near_pairs.similar(shared, files, lengths, recipe.data.near_duplicates.threshold, work / "near", runner)
    kinds = {"exact": exact, "url": url, "all": np.concatenate([exact, url, near.pairs])}
    members = np.unique(kinds["all"])
    roots = {kind: _roots(pairs, members) for kind, pairs in kinds.items()}
    tables.write_table(out / CLUSTERS_FILE, _clusters(files, lengths, members, roots))
    columns = [*near.pairs.T, near.similarity]
    tables.write_table(out / PAIRS_FILE, pa.table([pa.array(column) for column in columns], schema=PAIRS))
    shared_url = {"url_shared": len(np.unique(same_url)), "url_different": len(np.setdiff1d(same_url, agreeing))}
    pairs = {"compared_pairs": len(shared), "near_pairs": len(near.pairs)}
    return {"documents": sum(lengths), **pairs, **shared_url} | {
        key: count
        for kind, found in roots.items()
        for key, count in _counts("" if kind == "all" else f"{kind}_", found).items()
    }


def remarks(counts: Mapping[str, Any]) -> list[str]:
    """Addresses that do not identify their documents."""
    if not counts["url_different"]:
        return []
    return [f"documents that share an address but not their words, and were kept apart: {counts['url_different']:,}"]


STAGE = Stage(
    name="dedup", makes="duplicate clusters", code_version=CODE_VERSION, config=config, build=build, remarks=remarks
)


def _counts(prefix: str, roots: Pairs) -> dict[str, int]:
    """The number of clusters, and of documents in them beyond the first of each."""
    clusters = len(np.unique(roots[roots >= 0]))
    return {f"{prefix}clusters": clusters, f"{prefix}duplicates": int(np.count_nonzero(roots >= 0)) - clusters}


# --- pairs -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FindPairs:
    """Task `rank` pairs the documents that agree in one key, among those whose key is in one part."""

    attributes: Path
    keys: tuple[str, ...]
    parts: int
    folder: Path

    def __call__(self, rank: int, world_size: int) -> None:
        key, part = self.keys[rank // self.parts], rank % self.parts
        compared = key != _EXACT
        found, places, copies, sizes = [], [], [], []
        start = 0
        for _, _, path in tables.task_files(self.attributes):
            table = tables.read_table(path, [key, _EXACT, "bytes"] if compared else [key])
            column = table[key].combine_chunks()
            values = _as_integers(column)
            here = values[:, 0] % np.uint64(self.parts) == part
            here &= column.is_valid().to_numpy(zero_copy_only=False)
            found.append(values[here])
            places.append(np.flatnonzero(here) + start)
            if compared:
                exact = _as_integers(table[_EXACT].combine_chunks())[here]
                # A cluster of one address names every document, exact copies too; a near pair stands for all copies.
                copies.append(exact if key != _URL else np.stack([places[-1], places[-1]], axis=1).astype(np.uint64))
                sizes.append(table["bytes"].to_numpy()[here])
            start += len(column)
        place = np.concatenate(places)
        if compared:
            pairs = near_pairs.to_compare(np.concatenate(found)[:, 0], np.concatenate(copies), np.concatenate(sizes))
        else:
            pairs = equal_pairs(np.concatenate(found))
        tables.save_array(self.file(key, part), place[pairs])

    def file(self, key: str, part: int) -> Path:
        return self.folder / f"{key}-{part:05d}.npy"

    def pairs(self, key: str) -> Pairs:
        """The pairs of all parts; none for a key that is not looked for."""
        if key not in self.keys:
            return np.zeros((0, 2), dtype=np.int64)
        return np.concatenate([np.load(self.file(key, part)) for part in range(self.parts)])


def equal_pairs(keys: Keys) -> Pairs:
    """Positions of equal neighbours in sorted order."""
    # Sorting by one word is three times as fast as by all, and almost always enough.
    order = np.argsort(keys[:, 0])
    ordered = keys[order]
    if (np.diff(ordered, axis=0) != 0)[ordered[1:, 0] == ordered[:-1, 0]].any():
        order = np.lexsort(keys.T[::-1])
        ordered = keys[order]
    same = (ordered[1:] == ordered[:-1]).all(axis=1)
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def _as_integers(column: pa.FixedSizeBinaryArray | pa.UInt64Array) -> Keys:
    """8-byte keys, or 16-byte hashes as two words (undefined where null)."""
    if column.type == pa.uint64():
        keys: Keys = column.to_numpy().reshape(-1, 1)
        return keys
    words = np.frombuffer(column.buffers()[1] or b"", dtype=np.uint64).reshape(-1, 2)
    return words[column.offset : column.offset + len(column)]


# --- clusters ----------------------------------------------------------------------------------


def _roots(pairs: Pairs, members: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each of the sorted `members`, the index of its cluster's first member; -1 if it is in no pair."""
    places = np.searchsorted(members, pairs)
    roots = connected_components.components(places, len(members))
    alone = np.ones(len(members), dtype=bool)
    alone[places.ravel()] = False
    roots[alone] = -1
    return roots


def _clusters(
    files: Sequence[tuple[str, int, Path]],
    lengths: Sequence[int],
    members: npt.NDArray[np.int64],
    roots: Mapping[str, npt.NDArray[np.int64]],
) -> pa.Table:
    """`clusters.parquet`, in the order of documents."""
    located = pa.concat_tables([*_located(files, lengths, members), CLUSTERS.empty_table().select(_LOCATION)])
    ids = located["id"].combine_chunks()
    sizes = np.bincount(roots["all"], minlength=len(members)) if len(members) else members
    columns = [_named(roots[kind], ids) for kind in ("exact", "url", "all")]
    size = pa.array(sizes[roots["all"]], pa.int64())
    return pa.table([*located.columns, pa.array(members, pa.int64()), *columns, size], schema=CLUSTERS)


_LOCATION = ["id", "source", "task", "row"]


def _located(
    files: Sequence[tuple[str, int, Path]], lengths: Sequence[int], members: npt.NDArray[np.int64]
) -> Iterator[pa.Table]:
    """`_LOCATION` of the members of each file."""
    borders = np.cumsum([0, *lengths])
    schema = pa.schema([CLUSTERS.field(name) for name in _LOCATION])
    for (source, number, path), (start, end) in zip(files, itertools.pairwise(borders), strict=True):
        rows = members[np.searchsorted(members, start) : np.searchsorted(members, end)] - start
        if len(rows):
            ids = tables.read_table(path, ["id"])["id"].combine_chunks().take(pa.array(rows))
            columns = [ids, pa.repeat(source, len(rows)), pa.repeat(pa.scalar(number, pa.int32()), len(rows)), rows]
            yield pa.table(columns, schema=schema)


def _named(roots: npt.NDArray[np.int64], ids: pa.Array) -> pa.Array:
    """The smallest id in the cluster of each member; null if it has no cluster."""
    order = pc.sort_indices(pa.table({"root": roots, "id": ids}), [("root", "ascending"), ("id", "ascending")])
    ordered = roots[order.to_numpy()]
    first = np.concatenate(([True], ordered[1:] != ordered[:-1])) if len(ordered) else np.zeros(0, dtype=bool)
    smallest = np.zeros(len(roots), dtype=np.int64)
    smallest[ordered[first]] = order.to_numpy()[first]
    return ids.take(pa.array(smallest[roots], mask=roots < 0))
