"""Hashes, addresses and MinHash keys -> clusters of exact, same-address and near duplicates.

Contract: writes `clusters.parquet`, one row for each document that has a duplicate: `id`, `source`,
`task` and `row` (where it is), `exact_cluster`, `url_cluster` and `near_cluster` (each named by its
smallest id; null where it has none of that kind), `cluster` and `cluster_size`: all that are joined by any
of the three, over others too (single linkage, as in datatrove). Exact duplicates share the words, case
apart; same-address ones the canonical address (measuring/urls.py); near ones a MinHash bucket key. Which one
is kept is for `filter` to say; the size of the cluster goes into the decisions, where it can weigh the
document that stands for it.

Nothing depends on how documents are cut into tasks. Cost: for each kind of key, and for each bucket of them,
a sort, in parts of at most 16 million documents (about 1.5 GB: up to 95 bytes a document), a part a task,
at 3 million documents a second and more; then about 200 bytes of memory a duplicate and none for other
documents. A hundred million documents, 16 kinds of key: 112 tasks of less than a minute.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.stages import connected_components, score
from twofold.artifacts import Artifact
from twofold.files import atomic_path
from twofold.stage import From, Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 3

CLUSTERS = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("task", pa.int32()),
        ("row", pa.int64()),
        ("exact_cluster", pa.string()),
        ("url_cluster", pa.string()),
        ("near_cluster", pa.string()),
        ("cluster", pa.string()),
        ("cluster_size", pa.int64()),
    ]
)
CLUSTERS_FILE = "clusters.parquet"
PART_DOCUMENTS = 16_000_000
_EXACT, _URL = "exact_hash", "url_hash"

Pairs = npt.NDArray[np.int64]
"""Shape (n, 2): positions of documents that belong together, in the order of all tasks' rows."""
Keys = npt.NDArray[np.uint64]
"""Shape (n, k): n keys of k words."""


def config(recipe: Recipe) -> dict[str, Any]:
    """Only what is looked for; the MinHash keys themselves are score's."""
    return {"near_duplicates": recipe.data.near_duplicates.enabled, "url_duplicates": recipe.data.url_duplicates}


def build(
    recipe: Recipe, scored: Annotated[Artifact, From("score")], out: Path, work: Path, runner: TaskRunner
) -> Mapping[str, Any]:
    """Find pairs key by key, join them, name the clusters; returns their counts."""
    files = tables.task_files(scored.path / "attributes")
    lengths = [tables.count_rows(path) for _, _, path in files]
    buckets = score.bucket_columns(recipe.data.near_duplicates)
    keys = (_EXACT, *([_URL] if recipe.data.url_duplicates else []), *buckets)
    parts = max(1, math.ceil(sum(lengths) / PART_DOCUMENTS))
    task = _FindPairs(scored.path / "attributes", keys, parts, work / "pairs")
    runner.run("find duplicates", task, len(keys) * parts, work / "dedup")
    exact, url, *near = [task.pairs(key) for key in (_EXACT, _URL, *buckets)]
    kinds = {
        "exact": exact,
        "url": url,
        # Equal words have equal keys; joined all the same, so that a cluster holds the exact ones without buckets.
        "near": np.concatenate([exact, *near]) if near else exact[:0],
        "all": np.concatenate([exact, url, *near]),
    }
    members = np.unique(kinds["all"])
    roots = {kind: _roots(pairs, members) for kind, pairs in kinds.items()}
    tables.write_table(out / CLUSTERS_FILE, _clusters(files, lengths, members, roots))
    return {"documents": sum(lengths)} | {
        key: count
        for kind, found in roots.items()
        for key, count in _counts("" if kind == "all" else f"{kind}_", found).items()
    }


STAGE = Stage(
    name="dedup",
    makes="duplicate clusters",
    code_version=CODE_VERSION,
    config=config,
    build=build,
)


def _counts(prefix: str, roots: Pairs) -> dict[str, int]:
    """Clusters, and documents in them beyond the first of each."""
    clusters = len(np.unique(roots[roots >= 0]))
    return {f"{prefix}clusters": clusters, f"{prefix}duplicates": int(np.count_nonzero(roots >= 0)) - clusters}


# --- pairs -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FindPairs:
    """Task `rank` pairs the documents that agree in one key, of those whose key falls into one part."""

    attributes: Path
    keys: tuple[str, ...]
    parts: int
    folder: Path

    def __call__(self, rank: int, world_size: int) -> None:
        key, part = self.keys[rank // self.parts], rank % self.parts
        found, places = [], []
        start = 0
        for _, _, path in tables.task_files(self.attributes):
            column = tables.read_table(path, [key])[key].combine_chunks()
            values = _as_integers(column)
            here = values[:, 0] % np.uint64(self.parts) == part
            here &= column.is_valid().to_numpy(zero_copy_only=False)
            found.append(values[here])
            places.append(np.flatnonzero(here) + start)
            start += len(column)
        pairs = np.concatenate(places)[equal_pairs(np.concatenate(found))]
        with atomic_path(self.file(key, part)) as partial, partial.open("wb") as stream:
            np.save(stream, pairs)

    def file(self, key: str, part: int) -> Path:
        return self.folder / f"{key}-{part:05d}.npy"

    def pairs(self, key: str) -> Pairs:
        """All parts' pairs; none of a key that is not looked for."""
        if key not in self.keys:
            return np.zeros((0, 2), dtype=np.int64)
        return np.concatenate([np.load(self.file(key, part)) for part in range(self.parts)])


def equal_pairs(keys: Keys) -> Pairs:
    """Positions of equal neighbours in sorted order."""
    # By one word: three times as fast as by all of them, and nearly always enough.
    order = np.argsort(keys[:, 0])
    ordered = keys[order]
    if (np.diff(ordered, axis=0) != 0)[ordered[1:, 0] == ordered[:-1, 0]].any():
        order = np.lexsort(keys.T[::-1])
        ordered = keys[order]
    same = (ordered[1:] == ordered[:-1]).all(axis=1)
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def _as_integers(column: pa.FixedSizeBinaryArray | pa.UInt64Array) -> Keys:
    """8-byte keys, or 16-byte hashes as two words (anything, where there is none)."""
    if column.type == pa.uint64():
        keys: Keys = column.to_numpy().reshape(-1, 1)
        return keys
    words = np.frombuffer(column.buffers()[1] or b"", dtype=np.uint64).reshape(-1, 2)
    return words[column.offset : column.offset + len(column)]


# --- clusters ----------------------------------------------------------------------------------


def _roots(pairs: Pairs, members: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each of the sorted `members` the index of its cluster's first one; -1 for one that is in no pair."""
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
    columns = [_named(roots[kind], ids) for kind in ("exact", "url", "near", "all")]
    size = pa.array(sizes[roots["all"]], pa.int64())
    return pa.table([*located.columns, *columns, size], schema=CLUSTERS)


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
    """The smallest id of each one's cluster; null where it has none."""
    order = pc.sort_indices(pa.table({"root": roots, "id": ids}), [("root", "ascending"), ("id", "ascending")])
    ordered = roots[order.to_numpy()]
    first = np.concatenate(([True], ordered[1:] != ordered[:-1])) if len(ordered) else np.zeros(0, dtype=bool)
    smallest = np.zeros(len(roots), dtype=np.int64)
    smallest[ordered[first]] = order.to_numpy()[first]
    return ids.take(pa.array(smallest[roots], mask=roots < 0))
