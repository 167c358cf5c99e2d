"""Shards to batches: windows across shard borders, equal batches at any world size, refusals."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import world

from benchmarks.failing_calls import failing_calls
from pretrain.checkpoints import past
from pretrain.data import inputs
from pretrain.data.batches import Batches, TokenStream, batch_hash
from pretrain.data.order import Order
from pretrain.data.plan import Plan
from pretrain.engine.distributed import Ranks
from tokenizer.shards import read_index
from twofold.errors import UserError

ALONE = Ranks(0, 1, torch.device("cpu"))


def _whole(folder: Path, split: str, source: str) -> np.ndarray:
    shards = read_index(folder).splits[split][source].shards
    return np.concatenate([np.fromfile(folder / shard.path, "<u4") for shard in shards])


def _batches(folder: Path) -> tuple[Batches, Plan, Order]:
    recipe, index = world.recipe(), read_index(folder)
    order = Order(recipe.seed, recipe.phases, index.tokens("train"))
    return Batches(index, order), Plan(recipe), order


def test_a_stream_reads_across_shards(shards_dir: Path) -> None:
    stream, whole = TokenStream(read_index(shards_dir), "train", "news"), _whole(shards_dir, "train", "news")
    border = read_index(shards_dir).splits["train"]["news"].shards[0].tokens
    assert stream.tokens == len(whole)
    for first, count in ((0, 5), (border - 3, 7), (border, 4), (len(whole) - 2, 2), (0, len(whole))):
        assert stream.read(first, count).tolist() == whole[first : first + count].tolist()


def test_a_row_is_the_sequence_that_the_order_names(shards_dir: Path) -> None:
    batches, plan, order = _batches(shards_dir)
    for index in (0, 3, 9, 13):
        step = plan.at(index)
        samples = order.samples(step.phase, step.first_sample, step.sequences)
        for row, source, sequence in zip(batches.read(step), samples.source, samples.sequence, strict=True):
            stream = _whole(shards_dir, "train", order.sources[source])
            assert row.tolist() == stream[sequence * 32 : sequence * 32 + 33].tolist()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_global_batch_is_the_same_on_any_number_of_ranks(shards_dir: Path, size: int) -> None:
    batches, plan, _ = _batches(shards_dir)
    for index in range(plan.total_steps):
        step = plan.at(index)
        whole = batches.read(step)
        parts = [batches.read(step, rank, size) for rank in range(size)]
        assert torch.equal(torch.cat(parts), whole)
        hashes = [batch_hash(part, first_row=rank * len(part)) for rank, part in enumerate(parts)]
        assert sum(hashes) % 2**32 == batch_hash(whole, first_row=0)


def test_the_hash_tells_batches_apart(shards_dir: Path) -> None:
    batches, plan, _ = _batches(shards_dir)
    rows = batches.read(plan.at(0))
    changed, swapped = rows.clone(), rows.flip(0)
    changed[3, 5] += 1
    assert len({batch_hash(batch, 0) for batch in (rows, changed, swapped)}) == 3


def test_an_id_outside_the_vocabulary_is_refused(shards_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shards_dir, tmp_path / "shards")
    for path in folder.glob("train/news/*.ds"):
        (np.fromfile(path, "<u4") + 100).astype("<u4").tofile(path)
    batches, plan, _ = _batches(folder)
    with pytest.raises(UserError, match=r"shards of news = \d+: is a token id outside the vocabulary of 352"):
        batches.read(plan.at(0))


def test_inputs_open(shards_dir: Path, tokenizer_dir: Path) -> None:
    opened = inputs.open_inputs(world.recipe(), shards_dir, tokenizer_dir, ALONE)
    assert opened.validation.sources == tuple(world.SOURCES)
    assert opened.order.sources == ("news", "books", "law", "code")


@dataclass(frozen=True)
class SecondRank(Ranks):
    """The second of two ranks, for which the first one does its work elsewhere."""

    def from_first(self, value: Any) -> Any:
        return None, False


def test_only_the_first_rank_looks_at_every_shard(shards_dir: Path, tokenizer_dir: Path) -> None:
    """Two calls a shard and rank would be 10^8 calls for trillions of tokens on hundreds of ranks."""

    def asked(ranks: Ranks) -> list[str]:
        names: list[str] = []
        with failing_calls(shards_dir, lambda call, path: names.append(path)):
            inputs.open_inputs(world.recipe(), shards_dir, tokenizer_dir, ranks)
        return [name for name in names if "/train/" in name]

    assert len(asked(ALONE)) == 2 * 2 * len(world.SOURCES)
    assert asked(SecondRank(1, 2, torch.device("cpu"))) == []


def test_a_batch_that_the_ranks_cannot_share_is_refused(shards_dir: Path, tokenizer_dir: Path) -> None:
    three = Ranks(0, 3, torch.device("cpu"))
    with pytest.raises(
        UserError, match=r"phases\.general\.global_batch_size = 256: is 8 sequences, not divisible by 3 ranks"
    ):
        inputs.open_inputs(world.recipe(), shards_dir, tokenizer_dir, three)


def test_shards_of_another_vocabulary_are_refused(shards_dir: Path, tokenizer_dir: Path) -> None:
    recipe = world.recipe(tokenizer__vocab_size=400)
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size = 400: differs from the 352"):
        inputs.open_inputs(recipe, shards_dir, tokenizer_dir, ALONE)


def test_shards_of_another_tokenizer_are_refused(shards_dir: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tokenizer_dir, tmp_path / "other")
    (other / "manifest.json").write_text('{"identity": "bbbb"}')
    with pytest.raises(UserError, match="was made with another tokenizer than bbbb"):
        inputs.open_inputs(world.recipe(), shards_dir, other, ALONE)
    (other / "manifest.json").write_text(f'{{"identity": "{world.TOKENIZER_IDENTITY}"}}')
    inputs.open_inputs(world.recipe(), shards_dir, other, ALONE)


def test_a_missing_or_foreign_byte_table_is_refused(shards_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"token_bytes\.npy: cannot be read"):
        inputs.open_inputs(world.recipe(), shards_dir, tmp_path, ALONE)
    np.save(tmp_path / "token_bytes.npy", np.ones(7, np.int32))
    with pytest.raises(UserError, match=r"lists 7 tokens, and the shards were built with 352"):
        inputs.open_inputs(world.recipe(), shards_dir, tmp_path, ALONE)


def test_identity_names_each_part_that_decides_the_weights(shards_dir: Path) -> None:
    index = read_index(shards_dir)
    one = past.identity(world.recipe(), index)
    assert one["tokenizer"] == world.TOKENIZER_IDENTITY
    for part, change in (("seed", {"seed": 8}), ("model", {"model__d_ff": 96}), ("phases", {"phases__0__z_loss": 0})):
        other = past.identity(world.recipe(**change), index)
        assert [key for key in one if one[key] != other[key]] == [part]
    unrelated: dict[str, Any] = {"monitor__project": "x", "checkpoints__keep": 9, "validation__every": 999}
    unrelated |= {"launch__cpu_ranks": 1, "phases__0__max_epochs": 99, "model__start_from": "elsewhere"}
    unrelated |= {"engine__micro_batch_size": 1, "stability__attempts": 9}
    assert past.identity(world.recipe(**unrelated), index) == one
