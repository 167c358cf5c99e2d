"""Every row reaches its part, in order; runs cover all documents once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import shuffle, tables

SCHEMA = pa.schema([("number", pa.int64()), ("name", pa.large_string())])
rows = st.lists(st.integers(0, 3), max_size=9)


@given(st.lists(st.lists(rows, max_size=3), max_size=3))
def test_a_part_gets_its_rows_in_the_order_of_writers(tmp_path_factory, found: list[list[list[int]]]) -> None:
    folder, number = tmp_path_factory.mktemp("shuffle"), 0
    expected: dict[int, list[int]] = {part: [] for part in range(4)}
    paths = [folder / f"{writer}" for writer in range(len(found))]
    for path, calls in zip(paths, found, strict=True):
        with shuffle.writing(path, SCHEMA, 4) as write:
            for parts in calls:
                numbers = np.arange(number, number + len(parts))
                number += len(parts)
                names = [f"n{value}" for value in numbers.tolist()]
                write(pa.table([numbers, names], schema=SCHEMA), np.array(parts, np.int64))
                for part, value in zip(parts, numbers.tolist(), strict=True):
                    expected[part].append(value)
    for part, numbers in expected.items():
        table = shuffle.read(paths, SCHEMA, part, 4)
        assert table.to_pydict() == {"number": numbers, "name": [f"n{value}" for value in numbers]}


@pytest.mark.parametrize(("fewest", "runs"), [(1, 4), (4, 3), (100, 1)])
def test_runs_are_consecutive_files(tmp_path: Path, monkeypatch, fewest: int, runs: int) -> None:
    for source, number, size in (("a", 0, 3), ("a", 1, 0), ("b", 0, 4), ("b", 3, 2)):
        tables.write_table(tables.task_path(tmp_path, source, number), pa.table({"x": list(range(size))}))
    monkeypatch.setattr(shuffle, "FEWEST_IN_A_RUN", fewest)
    found = shuffle.Runs.of(tmp_path)
    assert found.documents == 9
    assert [file for run in range(len(found)) for file in found.of_run(run)] == list(found.files)
    assert [(file.source, file.number, file.start, file.stop) for file in found.files] == [
        ("a", 0, 0, 3),
        ("a", 1, 3, 3),
        ("b", 0, 3, 7),
        ("b", 3, 7, 9),
    ]
    assert len(found) == runs
    holding = found.holding(np.arange(9)).tolist()
    expected = [run for run in range(len(found)) for file in found.of_run(run) for _ in range(file.start, file.stop)]
    assert holding == expected
