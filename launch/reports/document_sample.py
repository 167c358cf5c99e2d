"""The documents that the data report shows: a sample of the decisions, and excerpts of their texts.

Contract: the sample is a pure function of the decisions and its size: it takes the documents whose id (or whose
cluster's name) hashes lowest, so clusters are sampled whole or not at all. If there are fewer documents than
`size`, all are taken. Excerpts are masked beginnings without control characters. One pass over the decisions'
columns; only the row groups that hold an excerpt are read for their text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from configs.features import FEATURES
from data_pipeline import tables
from data_pipeline.decisions import rules
from launch.actions.explain import excerpt
from twofold.artifacts import Artifact

Place = tuple[str, int, int]
"""Source, task, row."""
_CLUSTERS = ("document", "cluster", *(link["column"] for link in rules.DUPLICATES["equal"]))
_COLUMNS = ["id", "source", "language", "bytes", "reasons", "decision", *_CLUSTERS, *FEATURES]
_EXCERPT = 240
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
"""Control characters and marks that change the direction of text, which would reorder the page."""


def sample(decisions: Path, documents: int, size: int) -> pa.Table:
    """About `size` of the `documents` decisions, by id, with `task` and `row`."""
    cutoff = min(1.0, size / max(1, documents)) * 2.0**64
    parts = []
    for _, number, path in tables.task_files(decisions):
        part = tables.read_table(path, _COLUMNS)
        part = part.append_column("task", pa.array(np.full(part.num_rows, number, np.int32)))
        part = part.append_column("row", pa.array(np.arange(part.num_rows)))
        if documents > size:
            names = pc.coalesce(part["cluster"].cast(pa.string()), part["id"]).to_pylist()
            chosen = [xxhash.xxh3_64_intdigest(f"data report {name}".encode()) < cutoff for name in names]
            part = part.filter(pa.array(chosen))
        parts.append(part)
    return pa.concat_tables(parts).sort_by("id")


def nearest(found: pa.Table, language: str, feature: str, bound: float, each: int) -> list[int]:
    """Rows of the sample with the values nearest to `bound`: `each` of them at or below it, and `each` above."""
    values = found[feature].to_numpy()
    rows = np.flatnonzero(np.array(found["language"].to_pylist(), dtype=object) == language)
    order = rows[np.argsort(np.abs(values[rows] - bound), kind="stable")]
    below, above = order[values[order] <= bound][:each], order[values[order] > bound][:each]
    return [*sorted(below.tolist(), key=lambda row: values[row]), *sorted(above.tolist(), key=lambda row: values[row])]


def places(found: pa.Table, rows: Iterable[int]) -> list[Place]:
    """The source, task and row of rows of the sample."""
    return [tuple(found[name][row].as_py() for name in ("source", "task", "row")) for row in rows]


def excerpts(made: Artifact, wanted: Iterable[Place]) -> dict[Place, str]:
    """Masked beginnings of documents."""
    by_file: dict[tuple[str, int], set[int]] = defaultdict(set)
    for source, task, row in wanted:
        by_file[source, task].add(row)
    return {
        (source, task, row): _CONTROLS.sub(" ", excerpt(text, _EXCERPT))
        for (source, task), rows in sorted(by_file.items())
        for row, text in _texts(tables.task_path(made.path / "documents", source, task), sorted(rows)).items()
    }


def largest_clusters(decisions: Path, count: int, members: int) -> list[list[Mapping[str, Any]]]:
    """The first members by id of the largest clusters: `id`, `cluster`, `cluster_size` and their place."""
    files = tables.task_files(decisions)
    sizes: dict[int, int] = {}
    for _, _, path in files:
        part = tables.read_table(path, ["cluster", "cluster_size"]).filter(pc.field("cluster").is_valid())
        sizes |= dict(zip(*(column.to_pylist() for column in part.columns), strict=True))
        sizes = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:count])
    found: dict[int, list[Mapping[str, Any]]] = {cluster: [] for cluster in sizes}
    for source, task, path in files:
        part = tables.read_table(path, ["id", "cluster", "cluster_size"])
        part = part.append_column("row", pa.array(np.arange(part.num_rows)))
        for row in part.filter(pc.field("cluster").isin(list(sizes))).to_pylist():
            found[row["cluster"]].append({**row, "source": source, "task": task})
    return [sorted(rows, key=lambda row: row["id"])[:members] for rows in found.values()]


def _texts(path: Path, rows: Sequence[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    start = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            here = [row for row in rows if start <= row < end]
            if here:
                texts = file.read_row_group(group, columns=["text"])["text"]
                found |= {row: texts[row - start].as_py() for row in here}
            start = end
    return found
