"""Which duplicates are kept: compared with the obvious loop."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.decisions import duplicates
from data_pipeline.stages import dedup
from data_pipeline.stages import filter as filter_stage

documents = st.lists(
    st.tuples(
        st.sampled_from(["p", "q", None]),  # exact cluster
        st.sampled_from(["u", "v", None]),  # URL cluster
        st.integers(0, 3),  # bytes
        st.booleans(),  # nothing else speaks against it
    ),
    max_size=12,
)
similar = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11), st.sampled_from([0.8, 0.85, 0.9])), max_size=20)


def obvious(rows: list[dict], pairs: list[tuple[int, int, float]]) -> tuple[dict[int, tuple], set[int]]:
    """Row -> (reason, kept id, similarity) of every document that duplicates a kept one; and the kept rows."""
    copies = [row["exact_cluster"] or row["id"] for row in rows]
    kept: list[dict] = []
    beaten = {}
    for row in sorted(rows, key=lambda row: (not row["passes"], -row["bytes"], row["id"])):
        here = copies[row["row"]]
        found = [("exact_duplicate", other["id"], 1.0) for other in kept if copies[other["row"]] == here]
        found += [
            ("url_duplicate", other["id"], None)
            for other in kept
            if other["url_cluster"] == row["url_cluster"] is not None
        ]
        near = [
            (similarity, other["id"])
            for other in kept
            for one, two, similarity in pairs
            if {copies[one], copies[two]} == {here, copies[other["row"]]}
        ]
        order = {other["id"]: place for place, other in enumerate(kept)}
        found += [("near_duplicate", name, s) for s, name in sorted(near, key=lambda n: (-n[0], order[n[1]]))]
        if found:
            beaten[row["row"]] = found[0]
        elif row["passes"]:
            kept.append(row)
    return beaten, {row["row"] for row in kept}


@given(documents, similar)
def test_every_drop_names_a_kept_document_that_it_duplicates_itself(found, near) -> None:
    rows = [
        {
            "id": f"s/{number:02d}",
            "source": "s",
            "destination": "s",
            "cluster": "c",
            "exact_cluster": exact,
            "url_cluster": url,
            "document": 100 + number,
            "task": number % 3,
            "row": number,
            "hash": number,
            "bytes": size,
            "passes": passes,
        }
        for number, (exact, url, size, passes) in enumerate(found)
    ]
    pairs = [pair for pair in near if pair[0] < pair[1] < len(rows)]
    table = pa.table(
        [[100 + one for one, _, _ in pairs], [100 + two for _, two, _ in pairs], [s for _, _, s in pairs]],
        schema=dedup.PAIRS,
    )
    settled = duplicates.settle(pa.Table.from_pylist(rows, schema=duplicates.CANDIDATES), table)
    told = settled.to_pylist()
    beaten, kept = obvious(rows, pairs)
    assert {r["row"]: (r["reason"], r["duplicate_of"], r["similarity"]) for r in told if not r["wins"]} == beaten
    assert {r["row"] for r in told if r["wins"]} == kept
    assert {one for _, one, _ in beaten.values()} <= {f"s/{row:02d}" for row in kept}
    by_task = filter_stage._by_task(settled)
    assert sum(table.num_rows for table in by_task.values()) == settled.num_rows
    for (source, task), table in by_task.items():
        assert set(table["source"].to_pylist()) == {source}
        assert set(table["task"].to_pylist()) == {task}
