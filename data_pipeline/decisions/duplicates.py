"""Which document of each cluster of duplicates is kept, and why the others are dropped.

Contract: `settle` is pure and columnar. It evaluates `duplicates` of the decision table
(data_pipeline/decisions/rules.py) over the clustered documents of all tasks, so the result does not depend
on how documents are divided into tasks. Cost: one sort; about 200 bytes of memory per clustered document.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.decisions import rules

_LINKS = rules.DUPLICATES["reasons"]
CANDIDATES = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "source", "destination", rules.DUPLICATES["cluster"])),
        *((link["column"], pa.string()) for link in _LINKS),
        ("task", pa.int32()),
        ("row", pa.int64()),
        ("hash", pa.uint64()),
        ("bytes", pa.int64()),
        ("passes", pa.bool_()),
    ]
)
"""Clustered documents; `hash` places them in a split, `passes` says that they have no reason of their own."""
SETTLED = pa.schema(
    [
        *((name, pa.string()) for name in ("source", "reason", "duplicate_of")),
        ("task", pa.int32()),
        ("row", pa.int64()),
        ("wins", pa.bool_()),
    ]
)


def settle(candidates: pa.Table) -> pa.Table:
    """`SETTLED`: all documents of each cluster that keeps one, the kept one (`wins`) included.

    `duplicate_of` is the id of the kept document. Sorted by source, task and row.
    """
    cluster = rules.DUPLICATES["cluster"]
    preference = [(order["column"], order["order"]) for order in rules.DUPLICATES["keep"]]
    ranked = candidates.sort_by([(cluster, "ascending"), ("passes", "descending"), *preference])
    clusters = ranked[cluster].to_numpy(zero_copy_only=False)
    first = np.ones(len(clusters), dtype=bool)
    first[1:] = clusters[1:] != clusters[:-1]
    best = np.flatnonzero(first)[np.cumsum(first) - 1]
    kept = ranked.take(pa.array(best))
    columns = [ranked["source"], _reasons(ranked, kept), kept["id"], ranked["task"], ranked["row"], pa.array(first)]
    settled = pa.table(columns, schema=SETTLED).filter(kept["passes"])
    return settled.sort_by([(name, "ascending") for name in ("source", "task", "row")])


def _reasons(ranked: pa.Table, kept: pa.Table) -> pa.ChunkedArray:
    """The first column that a document shares with the kept one; if none, the first in which it has a value."""
    columns, reasons = [link["column"] for link in _LINKS], [link["reason"] for link in _LINKS]
    shares = [pc.fill_null(pc.equal(ranked[name], kept[name]), False) for name in columns]
    has_value = [pc.is_valid(ranked[name]) for name in columns]
    return pc.case_when(pc.make_struct(*shares, *has_value), *reasons, *reasons)
