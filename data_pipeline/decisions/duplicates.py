"""Which of the documents that duplicate each other are kept, and for which kept one each other is dropped.

Contract: `settle` is pure and columnar. It evaluates `duplicates` of the decision table
(data_pipeline/decisions/rules.py) over the clustered documents of all tasks, so the result does not depend
on how documents are divided into tasks. A document is dropped only for a kept one that it duplicates itself, never
through others. Cost: one sort; about 200 bytes of memory per clustered document.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.decisions import rules
from twofold.compiled import entry_point

_EQUAL = rules.DUPLICATES["equal"]
_REASONS = [*(link["reason"] for link in _EQUAL), rules.DUPLICATES["similar"]["reason"]]
Numbers = npt.NDArray[np.int64]

CANDIDATES = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "source", "destination", "cluster")),
        *((link["column"], pa.string()) for link in _EQUAL),
        ("document", pa.int64()),
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
        ("similarity", pa.float64()),
        ("task", pa.int32()),
        ("row", pa.int64()),
        ("wins", pa.bool_()),
    ]
)


def settle(candidates: pa.Table, pairs: pa.Table) -> pa.Table:
    """`SETTLED`: the documents that are kept (`wins`) and those that duplicate one of them (`duplicate_of`, its id).

    `pairs` has the columns of dedup's `PAIRS`. `similarity` is 1 for exact duplicates, estimated for near ones, and
    null for documents of one address. Sorted by source, task and row.
    """
    preference = [(order["column"], order["order"]) for order in rules.DUPLICATES["keep"]]
    ranked = candidates.sort_by([("passes", "descending"), *preference])
    exact, url = (_codes(ranked[link["column"]]) for link in _EQUAL)
    alone = np.flatnonzero(exact < 0)
    exact[alone] = exact.max(initial=-1) + 1 + np.arange(len(alone))
    passes = ranked["passes"].to_numpy(zero_copy_only=False)
    starts, others, similar = _adjacent(ranked["document"].to_numpy(), exact, pairs)
    witness, reason, similarity = _settle(exact, url, passes, starts, others, similar)
    lost = witness >= 0
    wins = passes & ~lost
    columns = [
        ranked["source"],
        pa.array(np.array(_REASONS, dtype=object)[reason], mask=~lost),
        ranked["id"].combine_chunks().take(pa.array(witness, mask=~lost)),
        pa.array(similarity, mask=~lost | np.isnan(similarity)),
        ranked["task"],
        ranked["row"],
        pa.array(wins),
    ]
    settled = pa.table(columns, schema=SETTLED).filter(pa.array(wins | lost))
    return settled.sort_by([(name, "ascending") for name in ("source", "task", "row")])


def _codes(column: pa.ChunkedArray) -> Numbers:
    """A number for each different value; -1 for null."""
    codes: Numbers = pc.fill_null(column.combine_chunks().dictionary_encode().indices, -1).to_numpy().astype(np.int64)
    return codes


def _adjacent(documents: Numbers, exact: Numbers, pairs: pa.Table) -> tuple[Numbers, Numbers, npt.NDArray[np.float64]]:
    """For each set of exact copies the similar sets: where its part starts, the other sets, the similarities."""
    order = np.argsort(documents)
    ends = [pairs[name].to_numpy() for name in ("first", "second")]
    first, second = (exact[order[np.searchsorted(documents, end, sorter=order)]] for end in ends)
    one, other = np.concatenate([first, second]), np.concatenate([second, first])
    by_one = np.argsort(one, kind="stable")
    starts = np.searchsorted(one[by_one], np.arange(exact.max(initial=-1) + 2))
    return starts, other[by_one], np.tile(pairs["similarity"].to_numpy(), 2)[by_one]


def settle_in_order(exact, url, passes, starts, others, similar):  # type: ignore[no-untyped-def]
    """Documents in the order of preference; of several similar kept ones, the most similar is the witness."""
    witness, reason = np.full(len(exact), -1, np.int64), np.zeros(len(exact), np.int64)
    similarity = np.full(len(exact), np.nan)
    kept, kept_url = np.full(len(starts), -1, np.int64), np.full(len(exact) + 1, -1, np.int64)
    for place in range(len(exact)):
        copies, address = exact[place], url[place]
        if kept[copies] >= 0:
            witness[place], similarity[place] = kept[copies], 1.0
            continue
        if address >= 0 and kept_url[address] >= 0:
            witness[place], reason[place] = kept_url[address], 1
            continue
        for pair in range(starts[copies], starts[copies + 1]):
            other = kept[others[pair]]
            nearer = other >= 0 and (witness[place] < 0 or similar[pair] > similarity[place])
            tied = other >= 0 and similar[pair] == similarity[place] and other < witness[place]
            if nearer or tied:
                witness[place], reason[place], similarity[place] = other, 2, similar[pair]
        if passes[place] and witness[place] < 0:
            kept[copies] = place
            if address >= 0:
                kept_url[address] = place
    return witness, reason, similarity


_settle = entry_point(settle_in_order)
