"""Repeated ids get numbers in reading order, whatever the tasks, runs and parts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline import shuffle, tables
from data_pipeline.stages import extract, unique_ids
from tests.conftest import InProcessRunner
from twofold import files

tasks = st.lists(st.lists(st.sampled_from("abcde"), max_size=5), min_size=1, max_size=4)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tasks, st.sampled_from([2, 100]), st.sampled_from([1, 100]))
def test_the_second_of_an_id_is_number_two(tmp_path_factory, found: list[list[str]], part: int, in_a_run: int) -> None:
    folder = tmp_path_factory.mktemp("ids")
    blank = {field.name: None for field in extract.DOCUMENTS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "sync", lambda path: None)
        patch.setattr(unique_ids, "PART_DOCUMENTS", part)
        patch.setattr(shuffle, "FEWEST_IN_A_RUN", in_a_run)
        for number, names in enumerate(found):
            rows = [{**blank, "id": f"s/{name}", "text": name} for name in names]
            tables.write_rows(tables.task_path(folder / "documents", "s", number), extract.DOCUMENTS, rows)
            hashes = np.array([xxhash.xxh3_64_intdigest(row["id"].encode()) for row in rows], np.uint64)
            tables.save_array(tables.task_path(folder / "ids", "s", number, "npy"), hashes)
        unique_ids.make(folder / "documents", folder / "ids", folder, InProcessRunner())
    seen: Counter[str] = Counter()
    for number, names in enumerate(found):
        rows = list(tables.read_rows(tables.task_path(folder / "documents", "s", number)))
        assert [row["text"] for row in rows] == names
        for row, name in zip(rows, names, strict=True):
            seen[name] += 1
            assert row["id"] == (f"s/{name}" if seen[name] == 1 else f"s/{name}~{seen[name]}")
