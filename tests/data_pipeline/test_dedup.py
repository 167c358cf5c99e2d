"""The dedup stage against the same computation over one table in memory, whatever the tasks, runs and parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.schema import Recipe
from data_pipeline import shuffle, tables
from data_pipeline.features import minhash, urls
from data_pipeline.stages import connected_components, dedup, score
from tests.conftest import InProcessRunner
from tests.data_pipeline import dedup_oracle
from twofold import files

SOURCES = {"a": {"path": "a"}, "b": {"path": "b"}}
links = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=15), st.integers(0, n)
    )
)


@given(links)
def test_sets_are_the_closure_of_the_links(found: tuple[int, list[tuple[int, int]], int]) -> None:
    count, pairs, cut = found
    sets = connected_components.Sets(count)
    for part in (pairs[:cut], pairs[cut:]):
        sets.join(np.array(part, np.int64).reshape(-1, 2))
    names, sizes = (np.concatenate(parts) for parts in zip(sets.of(0, cut), sets.of(cut, count), strict=True))
    expected = dedup_oracle._sets([(one, other) for one, other in pairs if one != other], count)
    assert names.tolist() == [-1 if name is None else name for name in expected]
    assert sizes.tolist() == [1 if name is None else expected.count(name) for name in expected]
    members, named = sum(name is not None for name in expected), len(set(expected) - {None})
    assert sets.count() == (named, members - named)


def test_a_long_chain_in_the_worst_order_is_one_set() -> None:
    count = 200_000
    order = np.random.default_rng(0).permutation(count - 1)
    for links in (np.stack([order + 1, order], axis=1), np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)):
        sets = connected_components.Sets(count)
        sets.join(links[::-1].astype(np.int64))
        assert not sets.of(0, count)[0].any()
        assert sets.count() == (1, count - 1)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), max_size=20))
def test_of_equal_hashes_the_longest_has_the_copies(found: list[tuple[int, int, int]]) -> None:
    """Hashes are equal only as a whole."""
    hashes, sizes = np.array([row[:2] for row in found], np.uint64).reshape(-1, 2), np.array([row[2] for row in found])
    copies = dedup.copies_of(hashes, sizes).tolist()
    longest: dict[tuple[int, int], int] = {}
    for place in sorted(range(len(found)), key=lambda place: (-found[place][2], place)):
        longest.setdefault(found[place][:2], place)
    expected = [[longest[row[:2]], place] for place, row in enumerate(found) if longest[row[:2]] != place]
    assert sorted(copies) == sorted(expected)


documents = st.lists(
    st.tuples(
        st.integers(0, 9),  # the text
        st.sampled_from([None, "a", "b", "c"]),  # its address
        st.integers(0, 3),  # bytes
    ),
    min_size=1,
    max_size=20,
)
families = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 400)), min_size=10, max_size=10)
"""Of each text: two bucket keys, and how many bytes of its sketch differ from the others'."""


class _Artifact:
    def __init__(self, path: Path) -> None:
        self.path = path


def attributes(recipe: Recipe, rows: list[tuple[int, str | None, int]], texts: list[tuple[int, int, int]]) -> pa.Table:
    """Made-up attributes; copies of a text have the same keys and sketch."""
    names = score.bucket_columns(recipe.data.near_duplicates)
    own = [bytes([1]) * (minhash.BINS - changed) + bytes([2 + n]) * changed for n, (_, _, changed) in enumerate(texts)]
    keys = {name: [texts[text][n % 2] + 10 * (n % 2) for text, _, _ in rows] for n, name in enumerate(names)}
    links = [urls.url_hash(address and f"http://x.kr/{address}") for _, address, _ in rows]
    return pa.table(
        {
            "id": pa.array([f"{number * 7 % 13:02d}-{number}" for number in range(len(rows))], pa.string()),
            "bytes": pa.array([size for _, _, size in rows], pa.int64()),
            "sketch": pa.array([own[text] for text, _, _ in rows], pa.binary(minhash.BINS)),
            "exact_hash": pa.array([text.to_bytes(16, "little") for text, _, _ in rows], pa.binary(16)),
            "url_hash": pa.array(links, pa.binary(16)),
            **{name: pa.array(values, pa.uint64()) for name, values in keys.items()},
        }
    )


def run(recipe: Recipe, table: pa.Table, cuts: int, folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
    """The counts, clusters and pairs of documents in `cuts` tasks of two sources."""
    for cut, part in enumerate(np.array_split(np.arange(table.num_rows), cuts)):
        source = "a" if cut < (cuts + 1) // 2 else "b"
        tables.write_table(tables.task_path(folder / "attributes", source, cut), table.take(part))
    made = _Artifact(folder)
    counts = dedup.build(recipe, made, folder / "out", folder / "work", InProcessRunner())  # type: ignore[arg-type]
    clusters, pairs = (
        pa.concat_tables([tables.read_table(path) for _, _, path in tables.task_files(folder / "out" / name)])
        for name in (dedup.CLUSTERS_FOLDER, dedup.PAIRS_FOLDER)
    )
    return dict(counts), clusters.to_pydict(), [tuple(row.values()) for row in pairs.to_pylist()]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents, families, st.integers(1, 4), st.sampled_from([5, 50]), st.sampled_from([1, 8, 50]))
def test_the_stage_finds_what_one_table_in_memory_holds(
    tmp_path_factory, make_recipe, rows, texts, cuts, part, in_a_run
) -> None:
    recipe = make_recipe(SOURCES, near_duplicates={"num_buckets": 3})
    table = attributes(recipe, rows, texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "sync", lambda path: None)  # hundreds of small files
        patch.setattr(dedup, "PART_DOCUMENTS", part)
        patch.setattr(shuffle, "FEWEST_IN_A_RUN", in_a_run)
        counts, clusters, pairs = run(recipe, table, cuts, tmp_path_factory.mktemp("dedup"))
    expected, expected_pairs = dedup_oracle.clusters_and_pairs(recipe, table)
    assert clusters == expected
    assert pairs == expected_pairs
    named = {name: [value for value in expected[name] if value is not None] for name in expected}
    for prefix in ("exact_", "url_", ""):
        found = named[f"{prefix}cluster"]
        assert counts[f"{prefix}clusters"] == len(set(found))
        assert counts[f"{prefix}duplicates"] == len(found) - len(set(found))
    assert counts["near_pairs"] == len(pairs) <= counts["compared_pairs"]


def test_addresses_are_counted(tmp_path: Path, make_recipe) -> None:
    recipe = make_recipe(SOURCES)
    rows = [(0, "a", 3), (1, "a", 2), (2, "b", 1), (9, "b", 1), (9, None, 1)]
    texts = [(number, number, 0 if number < 2 else 900) for number in range(10)]
    counts, clusters, _ = run(recipe, attributes(recipe, rows, texts), 2, tmp_path)
    assert (counts["url_shared"], counts["url_different"]) == (4, 2)
    assert clusters["url_cluster"] == [0, 0, None, None, None]


def test_what_is_not_looked_for_is_not_found(tmp_path: Path, make_recipe) -> None:
    recipe = make_recipe(SOURCES, near_duplicates={"enabled": False}, url_duplicates=False)
    rows = [(1, "a", 1), (2, "a", 1), (3, "b", 1), (3, "c", 2)]
    _, clusters, pairs = run(recipe, attributes(recipe, rows, [(1, 1, 0)] * 10), 2, tmp_path)
    assert clusters["exact_cluster"] == clusters["cluster"] == [None, None, 2, 2]
    assert not any(clusters["url_cluster"])
    assert not pairs
