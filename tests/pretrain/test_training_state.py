"""Parts of parameters out and in, on any number of ranks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pretrain.checkpoints import training_state
from pretrain.checkpoints.training_state import KINDS, SavedTensors, part_bounds


@given(elements=st.integers(1, 10**12), size=st.integers(1, 4096))
def test_parts_follow_each_other_and_none_is_longer_than_the_share(elements: int, size: int) -> None:
    share = -(-elements // size)
    ends = [part_bounds(elements, rank, size) for rank in (0, size // 2, size - 1)]
    assert ends[0] == (0, min(elements, share))
    assert ends[-1][1] == elements
    assert all(0 <= end - first <= share for first, end in ends)
    if size > 1:
        assert part_bounds(elements, 0, size)[1] == part_bounds(elements, 1, size)[0]


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    ranks=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_any_range_is_read_back_whatever_the_number_of_ranks(
    sizes: list[int], ranks: int, seed: int, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(seed)
    whole = {kind: {f"p{n}": torch.randn(size, generator=generator) for n, size in enumerate(sizes)} for kind in KINDS}
    with TemporaryDirectory() as name:
        for rank in range(ranks):
            parts = {
                kind: {name: value[slice(*part_bounds(len(value), rank, ranks))] for name, value in named.items()}
                for kind, named in whole.items()
            }
            training_state.write(Path(name), parts, rank, ranks)
        with SavedTensors(Path(name)) as saved:
            assert saved.size == ranks
            for kind in KINDS:
                for number, size in enumerate(sizes):
                    first = data.draw(st.integers(0, size))
                    end = data.draw(st.integers(first, size))
                    found = saved.read(kind, f"p{number}", size, first, end)
                    assert torch.equal(found, whole[kind][f"p{number}"][first:end])


def test_files_of_two_numbers_of_ranks_are_never_mixed(tmp_path: Path) -> None:
    for rank, size in ((0, 1), (0, 2)):
        training_state.write(tmp_path, {"master": {"a": torch.ones(2)}}, rank, size)
    with pytest.raises(AssertionError, match="mixes numbers of ranks"):
        SavedTensors(tmp_path)
