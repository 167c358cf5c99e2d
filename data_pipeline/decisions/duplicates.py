"""Which of the documents that duplicate each other are kept, and for which kept one each other is dropped.

Contract: `settle` is pure and columnar. It evaluates `duplicates` of the decision table
(data_pipeline/decisions/rules.py) over whole clusters, which do not affect each other, so the result does not depend
on how clusters or documents are divided. A document is dropped only for a kept one that it duplicates itself, never
through others. Cost: one sort; about 300 bytes of memory per clustered document.
"""

from __future__ import annotations

from typing import NamedTuple

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
        ("id", pa.large_string()),
        *((name, pa.int64()) for name in ("document", "bytes", *(link["column"] for link in _EQUAL))),
        ("destination", pa.int16()),
        ("hash", pa.uint64()),
        ("passes", pa.bool_()),
    ]
)
"""Clustered documents; `hash` places them in a split, `passes` says that they have no reason of their own."""
LOST = pa.schema(
    [
        ("document", pa.int64()),
        ("reason", pa.string()),
        ("duplicate_of", pa.large_string()),
        ("similarity", pa.float64()),
    ]
)


class Settled(NamedTuple):
    """What was decided about whole clusters."""

    lost: pa.Table
    """`LOST`, in the order of documents: those that duplicate a kept one, and its id. `similarity` is 1 for exact
    duplicates, estimated for near ones, and null for documents of one address."""
    kept: pa.Table
    """`CANDIDATES` that are kept."""


def settle(candidates: pa.Table, pairs: pa.Table) -> Settled:
    """Settle all candidates of some clusters; `pairs` are dedup's `PAIRS` between them."""
    preference = [(order["column"], order["order"]) for order in rules.DUPLICATES["keep"]]
    ranked = candidates.take(pc.sort_indices(candidates, [("passes", "descending"), *preference])).combine_chunks()
    exact, url = (_codes(ranked[link["column"]]) for link in _EQUAL)
    alone = np.flatnonzero(exact < 0)
    exact[alone] = exact.max(initial=-1) + 1 + np.arange(len(alone))
    passes = ranked["passes"].to_numpy(zero_copy_only=False)
    documents = ranked["document"].to_numpy()
    witness, reason, similarity = _settle(exact, url, passes, *_adjacent(documents, exact, pairs))
    lost = np.flatnonzero(witness >= 0)
    lost = lost[np.argsort(documents[lost])]
    columns = [
        documents[lost],
        pa.array(_REASONS).take(reason[lost]),
        ranked["id"].take(witness[lost]),
        pa.array(similarity[lost], mask=np.isnan(similarity[lost])),
    ]
    return Settled(pa.table(columns, schema=LOST), ranked.filter(pa.array(passes & (witness < 0))))


def _codes(column: pa.ChunkedArray) -> Numbers:
    """A number for each different value, from 0 on without gaps; -1 for null."""
    values = pc.fill_null(column, -1).to_numpy()
    named, codes = np.unique(values, return_inverse=True)
    return np.asarray(codes - np.count_nonzero(named < 0), np.int64)


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
