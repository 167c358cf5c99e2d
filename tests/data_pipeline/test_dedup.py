"""Clusters against a slow transitive closure; pairs whatever the parts and tasks."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.features import minhash, urls
from data_pipeline.stages import connected_components, dedup, score
from tests.conftest import InProcessRunner

SOURCES = {"a": {"path": "a"}, "b": {"path": "b"}}


def closure(columns: list[list[Any]]) -> dict[int, set[int]]:
    """Position -> its whole cluster: grow each one until nothing joins any more. None equals nothing."""
    count = len(columns[0])
    reached = {place: {place} for place in range(count)}
    for _ in range(count):
        for column in columns:
            by_key: dict[Any, set[int]] = defaultdict(set)
            for place in range(count):
                by_key[(place, None) if column[place] is None else column[place]] |= reached[place]
            reached = {
                place: reached[place] | by_key[(place, None) if column[place] is None else column[place]]
                for place in range(count)
            }
    return {place: cluster for place, cluster in reached.items() if len(cluster) > 1}


keys = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 6), min_size=n, max_size=n), min_size=1, max_size=3)
)


@given(keys)
def test_components_are_the_closure(columns: list[list[int]]) -> None:
    pairs = [dedup.equal_pairs(np.array(column, dtype=np.uint64).reshape(-1, 1)) for column in columns]
    roots = connected_components.components(np.concatenate(pairs), len(columns[0])).tolist()
    expected = closure(columns)
    assert roots == [min(expected.get(place, {place})) for place in range(len(roots))]


def test_a_long_chain_in_the_worst_order_is_one_component() -> None:
    count = 200_000
    order = np.random.default_rng(0).permutation(count - 1)
    pairs = np.stack([order + 1, order], axis=1).astype(np.int64)
    assert not connected_components.components(pairs, count).any()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20))
def test_wide_keys_are_equal_only_as_a_whole(found: list[tuple[int, int]]) -> None:
    pairs = dedup.equal_pairs(np.array(found, dtype=np.uint64).reshape(-1, 2))
    assert all(found[left] == found[right] for left, right in pairs.tolist())
    assert len(pairs) == len(found) - len(set(found))


documents = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([None, "a", "b", "c"]), st.integers(0, 6)), min_size=1, max_size=14
)


class _Artifact:
    def __init__(self, path: Path) -> None:
        self.path = path


def run(recipe: Recipe, rows: list[tuple[int, str | None, int]], cuts: int, folder: Path) -> list[dict[str, Any]]:
    """`clusters.parquet` of made-up documents in `cuts` tasks of two sources."""
    ids = [f"{number * 7 % 13:02d}" for number in range(len(rows))]
    for cut, part in enumerate(np.array_split(np.arange(len(rows)), cuts)):
        source, number = ("a", cut) if cut < (cuts + 1) // 2 else ("b", cut)
        chosen = part.tolist()
        buckets = {
            name: [rows[n][2] + 100 for n in chosen] for name in score.bucket_columns(recipe.data.near_duplicates)
        }
        exact = [rows[n][0].to_bytes(16, "little") for n in chosen]
        table = pa.table(
            {
                "id": pa.array([ids[n] for n in chosen], pa.string()),
                "bytes": pa.array([n % 3 for n in chosen], pa.int64()),
                "sketch": pa.array([bytes([1]) * minhash.BINS] * len(chosen), pa.binary(minhash.BINS)),
                "exact_hash": pa.array(exact, pa.binary(16)),
                "url_hash": pa.array(
                    [urls.url_hash(rows[n][1] and f"http://x.kr/{rows[n][1]}") for n in chosen], pa.binary(16)
                ),
                **{name: pa.array(values, pa.uint64()) for name, values in buckets.items()},
            }
        )
        tables.write_table(tables.task_path(folder / "attributes", source, number), table)
    made = _Artifact(folder)
    dedup.build(recipe, made, folder / "out", folder / "work", InProcessRunner())  # type: ignore[arg-type]
    return tables.read_table(folder / "out" / dedup.CLUSTERS_FILE).to_pylist()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents, st.integers(1, 4), st.sampled_from([3, 50]))
def test_clusters_are_the_closure_whatever_the_tasks_and_parts(tmp_path_factory, make_recipe, rows, cuts, part) -> None:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(dedup, "PART_DOCUMENTS", part)
    found = run(make_recipe(SOURCES), rows, cuts, tmp_path_factory.mktemp("dedup"))
    monkeypatch.undo()
    ids = [f"{number * 7 % 13:02d}" for number in range(len(rows))]
    columns = [list(column) for column in zip(*rows, strict=True)]
    kinds = {"exact_cluster": [columns[0]], "url_cluster": [columns[1]], "cluster": columns}
    expected = {kind: closure(parts) for kind, parts in kinds.items()}
    assert [row["id"] for row in found] == [ids[place] for place in sorted(expected["cluster"])]
    for row, place in zip(found, sorted(expected["cluster"]), strict=True):
        for kind, clusters in expected.items():
            assert row[kind] == (min(ids[other] for other in clusters[place]) if place in clusters else None)
        assert row["cluster_size"] == len(expected["cluster"][place])


def test_what_is_not_looked_for_is_not_found(tmp_path: Path, make_recipe) -> None:
    recipe = make_recipe(SOURCES, near_duplicates={"enabled": False}, url_duplicates=False)
    found = run(recipe, [(1, "a", 1), (2, "a", 1), (3, "b", 1), (3, "c", 2)], 2, tmp_path)
    assert [row["exact_cluster"] is not None for row in found] == [True, True]
    assert not any(row["url_cluster"] for row in found)
    assert [row["document"] for row in found] == [2, 3]
