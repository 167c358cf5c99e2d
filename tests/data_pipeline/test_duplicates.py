"""Which duplicates are kept: compared with the obvious loop."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.decisions import duplicates
from data_pipeline.stages import dedup

documents = st.lists(
    st.tuples(
        st.sampled_from([0, 100, None]),  # exact cluster
        st.sampled_from([7, 8, None]),  # URL cluster
        st.integers(0, 3),  # bytes
        st.booleans(),  # nothing else speaks against it
    ),
    max_size=12,
)
similar = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11), st.sampled_from([0.8, 0.85, 0.9])), max_size=20)


def obvious(rows: list[dict], pairs: list[tuple[int, int, float]]) -> tuple[dict[int, tuple], set[int]]:
    """Row -> (reason, kept id, similarity) of every document that duplicates a kept one; and the kept rows."""
    copies = [row["id"] if row["exact_cluster"] is None else row["exact_cluster"] for row in rows]
    kept: list[dict] = []
    beaten = {}
    for row in sorted(rows, key=lambda row: (not row["passes"], -row["bytes"], row["id"])):
        here = copies[row["document"] - 100]
        found = [("exact_duplicate", other["id"], 1.0) for other in kept if copies[other["document"] - 100] == here]
        found += [
            ("url_duplicate", other["id"], None)
            for other in kept
            if other["url_cluster"] == row["url_cluster"] is not None
        ]
        near = [
            (similarity, other["id"])
            for other in kept
            for one, two, similarity in pairs
            if {copies[one], copies[two]} == {here, copies[other["document"] - 100]}
        ]
        order = {other["id"]: place for place, other in enumerate(kept)}
        found += [("near_duplicate", name, s) for s, name in sorted(near, key=lambda n: (-n[0], order[n[1]]))]
        if found:
            beaten[row["document"] - 100] = found[0]
        elif row["passes"]:
            kept.append(row)
    return beaten, {row["document"] - 100 for row in kept}


@given(documents, similar)
def test_every_drop_names_a_kept_document_that_it_duplicates_itself(found, near) -> None:
    rows = [
        {
            "id": f"s/{number:02d}",
            "document": 100 + number,
            "bytes": size,
            "exact_cluster": exact,
            "url_cluster": url,
            "destination": 0,
            "hash": number,
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
    lost = [tuple(row.values()) for row in settled.lost.to_pylist()]
    beaten, kept = obvious(rows, pairs)
    assert {document - 100: told for document, *told in lost} == {row: list(told) for row, told in beaten.items()}
    assert [document for document, *_ in lost] == sorted(document for document, *_ in lost)
    assert {row["document"] - 100 for row in settled.kept.to_pylist()} == kept
    assert {one for _, one, _ in beaten.values()} <= {f"s/{row:02d}" for row in kept}
