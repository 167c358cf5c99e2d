"""Clusters against a slow transitive closure."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import dedup


def _clusters(columns: list[list[int]]) -> dict[int, set[int]]:
    """Position -> its whole cluster: grow each one until nothing joins any more."""
    count = len(columns[0])
    reached = {place: {place} for place in range(count)}
    for _ in range(count):
        for column in columns:
            by_key: dict[int, set[int]] = defaultdict(set)
            for place in range(count):
                by_key[column[place]] |= reached[place]
            reached = {place: reached[place] | by_key[column[place]] for place in range(count)}
    return {place: cluster for place, cluster in reached.items() if len(cluster) > 1}


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 6), min_size=n, max_size=n), min_size=1, max_size=3)
    )
)
def test_roots_are_the_first_of_each_cluster(columns):
    pairs = [dedup.equal_pairs(np.array(column, dtype=np.uint64)) for column in columns]
    roots = dedup._roots(pairs, len(columns[0]))
    assert roots == {place: min(cluster) for place, cluster in _clusters(columns).items()}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20))
def test_wide_keys_are_equal_only_as_a_whole(keys):
    pairs = dedup.equal_pairs(np.array(keys, dtype=np.uint64).reshape(-1, 2))
    assert all(keys[left] == keys[right] for left, right in pairs.tolist())
    assert len(pairs) == len(keys) - len(set(keys))
