"""The contestants of the data order's benchmark run, and ours stays small at 8 T tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import data_order


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setattr(data_order, "SHARD_TOKENS", 200_000)
    path = data_order._shard(tmp_path_factory.mktemp("shard"))
    patch.undo()
    return path


def test_the_first_batch_of_8t_tokens_takes_less_than_100_mb(shard: Path) -> None:
    found = data_order.ours(shard)
    assert found["memory_mb"] < 100
    assert min(found["start_seconds"], found["resume_seconds"], found["sequences_per_s"]) > 0


def test_a_permutation_grows_with_the_data(shard: Path) -> None:
    small, large = (data_order.permutation(shard, size)["memory_mb"] for size in (1_000, 10_000_000))
    assert large > small + 50  # of 80
