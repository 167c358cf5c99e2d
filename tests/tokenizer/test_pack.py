"""Shards hold every kept token with its document; damage is named before training begins."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from configs.manifest import Artifact, StageSpec, ensure
from tests.conftest import InProcessRunner
from tests.tokenizer.conftest import ENGLISH, KOREAN, VOCAB_SIZE, small_recipe
from tokenizer import pack, shards
from tokenizer.convert import EOS_ID
from tokenizer.encode import Encoder


@pytest.fixture
def packed(documents: Artifact, tokenizer: Artifact, tmp_path: Path) -> Artifact:
    recipe = small_recipe()
    return ensure(
        tmp_path,
        StageSpec("shards", pack.CODE_VERSION, pack.config(recipe), {}),
        lambda out, work: pack.build(recipe, documents, tokenizer, out, work, InProcessRunner()),
    )


def test_every_document_is_there_in_order_with_its_eos(packed: Artifact, tokenizer: Artifact) -> None:
    encoder = Encoder(tokenizer.path)
    for source, texts in (("ko-text", KOREAN * 3), ("en-text", ENGLISH * 3)):
        path = packed.path / "train" / source / "00000.ds"
        tokens, ends = shards.open_tokens(path), shards.open_document_ends(path)
        rows = shards.read_documents(path)
        start = 0
        for number, (text, end) in enumerate(zip(texts, ends.tolist(), strict=True)):
            assert tokens[start:end].tolist() == [*encoder.encode([text])[0], EOS_ID]
            assert rows["id"][number] == f"{source}/0-{number}"
            assert rows["bytes"][number] == len(text.encode())
            start = end
        assert start == len(tokens)


def test_the_index_adds_up(packed: Artifact, tokenizer: Artifact) -> None:
    index = shards.read_index(packed.path)
    assert (index.vocab_size, index.tokenizer_identity) == (VOCAB_SIZE, tokenizer.identity)
    for split, sources in index.splits.items():
        for name, entry in sources.items():
            assert entry.tokens == sum(shard.tokens for shard in entry.shards)
            assert packed.counts[split][name]["tokens"] == entry.tokens == index.tokens(split)[name]
    assert index.splits["train"]["ko-text"].bytes == sum(len(text.encode()) for text in KOREAN * 3)


def test_packing_again_gives_the_same_bytes(
    packed: Artifact, documents: Artifact, tokenizer: Artifact, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    pack.build(small_recipe(), documents, tokenizer, again, again / "work", InProcessRunner())
    for entry in packed.manifest.files:
        assert (again / entry.path).read_bytes() == (packed.path / entry.path).read_bytes(), entry.path


def test_datatrove_reads_our_shards(packed: Artifact) -> None:
    from datatrove.utils.dataset import DatatroveFileDataset

    path = packed.path / "train" / "en-text" / "00000.ds"
    tokens = shards.open_tokens(path)
    theirs = DatatroveFileDataset(str(path), seq_len=15, token_size=4, return_positions=False)
    assert len(theirs) == len(tokens) // 16
    for number in range(len(theirs)):
        assert theirs[number]["input_ids"].tolist() == tokens[number * 16 : number * 16 + 16].tolist()


@pytest.mark.parametrize("ending", ["", ".index"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_shard_is_named(packed: Artifact, ending: str, damage: str) -> None:
    path = packed.path / "train" / "ko-text" / f"00000.ds{ending}"
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, 8)
    with pytest.raises(UserError, match=f"00000.ds{ending}: .*Mend: make the shards again"):
        shards.read_index(packed.path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"token_dtype": "uint16"}'])
def test_a_damaged_index_is_named(packed: Artifact, text: str) -> None:
    (packed.path / "index.json").write_text(text)
    with pytest.raises(UserError, match=r"index.json: cannot be read"):
        shards.read_index(packed.path)


def test_a_shard_of_odd_size_or_absent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ds").write_bytes(b"12345")
    with pytest.raises(UserError, match="no multiple of 4"):
        shards.open_tokens(tmp_path / "a.ds")
    with pytest.raises(UserError, match="cannot be read"):
        shards.open_tokens(tmp_path / "b.ds")


def test_a_source_without_documents_is_an_empty_shard(tmp_path: Path) -> None:
    with shards.ShardWriter(tmp_path, "train/none/00000.ds") as writer:
        pass
    assert writer.shard().tokens == 0
    assert len(shards.open_tokens(tmp_path / "train/none/00000.ds")) == 0


def test_a_failed_shard_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), shards.ShardWriter(tmp_path, "a.ds") as writer:
        writer.add([[5, 2]], {"id": ["a"], "source": ["s"], "language": ["ko"], "bytes": [3]})
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_nothing_kept_is_refused(tokenizer: Artifact, tmp_path: Path) -> None:
    empty = ensure(tmp_path, StageSpec("decide", 1, {}, {}), lambda out, work: {})
    with pytest.raises(UserError, match="keeps no document to train on"):
        pack.build(small_recipe(), empty, tokenizer, tmp_path / "out", tmp_path / "work", InProcessRunner())


def test_ends_are_64_bit_and_cumulative_over_batches(tmp_path: Path) -> None:
    rows = {"id": ["a", "b"], "source": ["s", "s"], "language": ["ko", "en"], "bytes": [3, 4]}
    with shards.ShardWriter(tmp_path, "a.ds") as writer:
        writer.add([[5, 2], [6, 7, 2]], rows)
        writer.add([[8, 2]], {name: column[:1] for name, column in rows.items()})
    ends = shards.open_document_ends(tmp_path / "a.ds")
    assert ends.dtype == np.uint64
    assert ends.tolist() == [2, 5, 7]
    assert json.dumps(writer.shard().__dict__) == '{"path": "a.ds", "tokens": 7, "documents": 3, "bytes": 10}'
