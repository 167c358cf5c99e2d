"""The scale benchmark's documents are what it says, and its figures add up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale
from configs.recipe import parse_recipe
from data_pipeline.features import minhash


def test_documents_are_a_function_of_their_numbers_and_some_are_duplicates() -> None:
    recipe, numbers = parse_recipe(scale._RECIPE), np.arange(2_000, dtype=np.uint64)
    made = scale.attributes(recipe, numbers, 2_000)
    assert made.equals(scale.attributes(recipe, numbers, 2_000))
    assert len(set(made["exact_hash"].to_pylist())) < 2_000
    keys = made["minhash_00"].to_numpy()
    values, counts = np.unique(keys, return_counts=True)
    shared = np.isin(keys, values[counts > 1])
    sketches = np.array([list(value) for value in made["sketch"].to_pylist()], np.uint8)
    first, second = np.flatnonzero(keys == keys[shared][0])[:2]
    similar, _ = minhash.similarity(sketches[[first]], sketches[[second]])
    strange, _ = minhash.similarity(sketches[~shared][:1], sketches[~shared][1:2])
    assert similar[0] > 0.6 > 0.1 > strange[0]


def test_the_exponent_of_linear_work_is_one() -> None:
    assert scale.growth_exponent({10: 2.0, 100: 20.0, 1000: 200.0}) == pytest.approx(1)
    assert scale.growth_exponent({10: 1.0, 100: 100.0}) == pytest.approx(2)


@dataclass(frozen=True)
class _Write:
    folder: Path

    def __call__(self, rank: int, world_size: int) -> None:
        (self.folder / f"{rank} of {world_size}").write_bytes(bytes(100))


def test_tasks_are_added_up_by_step(tmp_path: Path) -> None:
    runner = scale.Processes(1)
    runner.run("write", _Write(tmp_path), 3, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0 of 3", "1 of 3", "2 of 3"]
    assert runner.moved["opens"] >= 3
    assert runner.moved["written_gb"] * 1e9 >= 300
    assert runner.peak_gb["write"] > 0
