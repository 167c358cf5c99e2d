"""Which document of a cluster is kept: compared with the obvious loop."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.decisions import duplicates
from data_pipeline.stages import filter as filter_stage

documents = st.lists(
    st.tuples(
        st.sampled_from("abc"),  # cluster
        st.sampled_from(["p", "q", None]),  # exact cluster
        st.sampled_from(["u", "v", None]),  # URL cluster
        st.sampled_from(["n", "m", None]),  # near cluster
        st.integers(0, 3),  # bytes
        st.booleans(),  # nothing else speaks against it
    ),
    max_size=12,
)


def obvious(rows: list[dict]) -> dict[int, tuple[str, str]]:
    """Row -> (reason, kept id) of every document that a kept one of its cluster beats."""
    beaten = {}
    for cluster in {row["cluster"] for row in rows}:
        members = [row for row in rows if row["cluster"] == cluster]
        passing = [row for row in members if row["passes"]]
        if not passing:
            continue
        kept = min(passing, key=lambda row: (-row["bytes"], row["id"]))
        for row in members:
            if row is kept:
                continue
            kinds = ("exact", "url", "near")
            shared = [kind for kind in kinds if row[f"{kind}_cluster"] == kept[f"{kind}_cluster"] is not None]
            own = [kind for kind in kinds if row[f"{kind}_cluster"] is not None]
            beaten[row["row"]] = (f"{[*shared, *own][0]}_duplicate", kept["id"])
    return beaten


@given(documents)
def test_the_best_that_passes_is_kept(found) -> None:
    rows = [
        {
            "id": f"s/{number}",
            "source": "s",
            "destination": "s",
            "cluster": cluster,
            "exact_cluster": exact,
            "url_cluster": url,
            "near_cluster": near,
            "task": number % 3,
            "row": number,
            "hash": number,
            "bytes": size,
            "passes": passes,
        }
        for number, (cluster, exact, url, near, size, passes) in enumerate(found)
        if exact or url or near  # a document of no kind is in no cluster
    ]
    settled = duplicates.settle(pa.Table.from_pylist(rows, schema=duplicates.CANDIDATES))
    beaten = {r["row"]: (r["reason"], r["duplicate_of"]) for r in settled.to_pylist() if not r["wins"]}
    assert beaten == obvious(rows)
    by_task = filter_stage._by_task(settled)
    assert sum(table.num_rows for table in by_task.values()) == settled.num_rows
    for (source, task), table in by_task.items():
        assert set(table["source"].to_pylist()) == {source}
        assert set(table["task"].to_pylist()) == {task}
