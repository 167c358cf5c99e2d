"""Hashes and MinHash keys -> clusters of exact and near duplicates.

Contract: writes `clusters.parquet`, one row for each document that has a duplicate: `id`, `source`,
`task` and `row` (where it is), `exact_cluster`, `near_cluster` (each named by its smallest id; null
where it has none of that kind) and `size` (documents in the near cluster, else in the exact one).
Exact duplicates share the words, case apart; near ones share a MinHash band key, directly or over
others (single linkage, as in datatrove). Which one is kept is for `decide` to say. The result does
not depend on how documents are cut into tasks. Cost: a sort of 8 bytes a document for each band, a
band a task; the join of pairs holds 4 bytes a document and the duplicates in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.files import atomic_path
from configs.manifest import Artifact
from configs.schema import Recipe
from configs.tasks import TaskRunner
from data_pipeline import score, tables

CODE_VERSION = 1

CLUSTERS = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("task", pa.int32()),
        ("row", pa.int64()),
        ("exact_cluster", pa.string()),
        ("near_cluster", pa.string()),
        ("size", pa.int64()),
    ]
)
CLUSTERS_FILE = "clusters.parquet"
_EXACT = "exact_hash"

Pairs = npt.NDArray[np.int64]
"""Shape (n, 2): positions of documents that belong together, in the order of all tasks' rows."""


def config(recipe: Recipe) -> dict[str, Any]:
    """Only whether near duplicates are looked for; the keys themselves are score's."""
    return {"near_duplicates": recipe.data.near_duplicates.enabled}


def build(
    recipe: Recipe, extracted: Artifact, scored: Artifact, out: Path, work: Path, runner: TaskRunner
) -> Mapping[str, Any]:
    """Find pairs band by band, join them, name the clusters; returns their counts."""
    columns = (_EXACT, *score.band_columns(recipe.data.near_duplicates))
    task = _FindPairs(scored.path / "attributes", columns, work / "pairs")
    runner.run("find duplicates", task, len(columns), work / "dedup")
    exact, *near = [np.load(task.file(column)) for column in columns]
    files = tables.task_files(task.attributes)
    lengths = [tables.count_rows(path) for _, _, path in files]
    exact_roots = _roots([exact], sum(lengths))
    near_roots = _roots([exact, *near], sum(lengths)) if near else {}
    rows = _cluster_rows(files, lengths, exact_roots, near_roots)
    tables.write_rows(out / CLUSTERS_FILE, CLUSTERS, rows)
    return {
        "documents": sum(lengths),
        "exact_clusters": len(set(exact_roots.values())),
        "exact_duplicates": len(exact_roots) - len(set(exact_roots.values())),
        "near_clusters": len(set(near_roots.values())),
        "near_duplicates": len(near_roots) - len(set(near_roots.values())),
    }


@dataclass(frozen=True)
class _FindPairs:
    """Task `rank` pairs the documents that agree in column `rank`."""

    attributes: Path
    columns: tuple[str, ...]
    folder: Path

    def __call__(self, rank: int, world_size: int) -> None:
        column = self.columns[rank]
        parts = [tables.read_table(path, [column])[column] for _, _, path in tables.task_files(self.attributes)]
        pairs = equal_pairs(np.concatenate([_as_integers(part) for part in parts]))
        with atomic_path(self.file(column)) as partial, partial.open("wb") as stream:
            np.save(stream, pairs)

    def file(self, column: str) -> Path:
        return self.folder / f"{column}.npy"


def equal_pairs(keys: npt.NDArray[np.uint64]) -> Pairs:
    """Positions of equal neighbours in sorted order; `keys` has shape (n,) or (n, k)."""
    keys = keys.reshape(len(keys), -1 if len(keys) else 1)
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    same = (ordered[1:] == ordered[:-1]).all(axis=1)
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def _as_integers(column: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Keys of shape (n, 1), or 16-byte hashes of shape (n, 2), as uint64."""
    if column.type == pa.uint64():
        keys: npt.NDArray[np.uint64] = column.to_numpy().reshape(-1, 1)
        return keys
    return np.frombuffer(b"".join(column.to_pylist()), dtype=np.uint64).reshape(-1, 2)


def _roots(pair_sets: Iterable[Pairs], documents: int) -> dict[int, int]:
    """Position -> its cluster's first position, for documents in a pair (union-find, path halving)."""
    parent = np.arange(documents, dtype=np.int64 if documents >= 2**31 else np.int32)

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = int(parent[position])
        return position

    members: set[int] = set()
    for pairs in pair_sets:
        for left, right in pairs.tolist():
            low, high = sorted((root(left), root(right)))
            parent[high] = low
            members.update((left, right))
    return {member: root(member) for member in sorted(members)}


def _cluster_rows(
    files: Sequence[tuple[str, int, Path]],
    lengths: Sequence[int],
    exact_roots: Mapping[int, int],
    near_roots: Mapping[int, int],
) -> list[dict[str, Any]]:
    """Rows of `clusters.parquet`, in the order of documents."""
    rows: dict[int, dict[str, Any]] = {}
    members = np.array(sorted(exact_roots.keys() | near_roots.keys()), dtype=np.int64)
    starts = np.cumsum([0, *lengths])
    for (source, number, path), start, end in zip(files, starts, starts[1:], strict=False):
        here = members[np.searchsorted(members, start) : np.searchsorted(members, end)]
        ids = tables.read_table(path, ["id"])["id"].take(here - start).to_pylist() if len(here) else []
        for place, identity in zip(here.tolist(), ids, strict=True):
            rows[place] = {"id": identity, "source": source, "task": number, "row": place - int(start)}
    exact, near = _named(exact_roots, rows), _named(near_roots, rows)
    sizes = {**_sizes(exact_roots), **_sizes(near_roots)}
    return [
        {**row, "exact_cluster": exact.get(place), "near_cluster": near.get(place), "size": sizes[place]}
        for place, row in rows.items()
    ]


def _named(roots: Mapping[int, int], rows: Mapping[int, Mapping[str, Any]]) -> dict[int, str]:
    """Position -> smallest id of its cluster."""
    smallest: dict[int, str] = {}
    for place, root in roots.items():
        identity = rows[place]["id"]
        smallest[root] = min(identity, smallest.get(root, identity))
    return {place: smallest[root] for place, root in roots.items()}


def _sizes(roots: Mapping[int, int]) -> dict[int, int]:
    """Position -> documents in its cluster."""
    counts: dict[int, int] = {}
    for root in roots.values():
        counts[root] = counts.get(root, 0) + 1
    return {place: counts[root] for place, root in roots.items()}
