"""Bits per byte against a plain loop over windows, on any number of ranks."""

from __future__ import annotations

import itertools
import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import world

from pretrain.data.batches import TokenStream
from pretrain.data.validation import Validation, read_token_bytes
from pretrain.engine.distributed import Ranks
from tokenizer.shards import read_index

LENGTH, SEQUENCES = 32, 20


class _ThreadRanks(Ranks):
    """Ranks that are threads: `sum` really adds what each of them brings."""

    board: dict[int, list[float]]
    barrier_: threading.Barrier

    def sum(self, values):  # type: ignore[no-untyped-def]
        self.board[self.rank] = list(values)
        self.barrier_.wait(timeout=10)
        return [sum(column) for column in zip(*self.board.values(), strict=True)]


def _losses(batch: torch.Tensor) -> torch.Tensor:
    """A model that has read nothing: its loss is a function of the pair of tokens."""
    return ((batch[:, :-1] * 31 + batch[:, 1:] * 17) % 97).float() / 10


def _streams(folder: Path) -> dict[str, TokenStream]:
    index = read_index(folder)
    return {source: TokenStream(index, "validation", source) for source in index.tokens("validation")}


def _expected(folder: Path, table: torch.Tensor) -> dict[str, float]:
    found = {}
    for source, stream in _streams(folder).items():
        bits, text_bytes = 0.0, 0
        for first in range(0, min(stream.tokens - 1, SEQUENCES * LENGTH), LENGTH):
            window = stream.read(first, min(LENGTH + 1, stream.tokens - first))
            for before, token in itertools.pairwise(window):
                if table[token]:
                    bits += ((int(before) * 31 + int(token) * 17) % 97) / 10 / math.log(2)
                    text_bytes += int(table[token])
        found[source] = bits / text_bytes
    return found


@pytest.mark.parametrize(("size", "batch"), [(1, 1), (1, 7), (2, 4), (4, 3), (3, 50)])
def test_bits_per_byte_is_the_same_on_any_number_of_ranks(
    shards_dir: Path, tokenizer_dir: Path, size: int, batch: int
) -> None:
    table = read_token_bytes(tokenizer_dir, world.VOCAB)
    results: dict[int, dict[str, float]] = {}
    passes = [0] * size
    board: dict[int, list[float]] = {}
    barrier = threading.Barrier(size)

    def rank(number: int) -> None:
        ranks = _ThreadRanks(number, size, torch.device("cpu"))
        object.__setattr__(ranks, "board", board)
        object.__setattr__(ranks, "barrier_", barrier)

        def count(rows: torch.Tensor) -> torch.Tensor:
            passes[number] += 1
            assert rows.shape == (batch, LENGTH + 1)
            return _losses(rows)

        validation = Validation(_streams(shards_dir), table, LENGTH, SEQUENCES, ranks)
        results[number] = validation.bits_per_byte(count, batch)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(set(passes)) == 1
    assert all(result == results[0] for result in results.values())
    assert results[0] == pytest.approx(_expected(shards_dir, table), rel=1e-6)  # the model speaks float32


def test_no_held_out_text_gives_no_numbers(tokenizer_dir: Path) -> None:
    ranks = Ranks(0, 1, torch.device("cpu"))
    validation = Validation({}, torch.ones(world.VOCAB, dtype=torch.int64), LENGTH, SEQUENCES, ranks)
    assert validation.bits_per_byte(_losses, 4) == {}


def test_a_stream_shorter_than_a_window_still_counts(tmp_path: Path) -> None:
    folder = world.write_shards(tmp_path, tokens={"news": 200})
    table = torch.ones(world.VOCAB, dtype=torch.int64)
    ranks = Ranks(0, 1, torch.device("cpu"))
    (stream,) = _streams(folder).values()
    found = Validation({"news": stream}, table, 64, 5, ranks).bits_per_byte(_losses, 2)
    tokens = torch.from_numpy(stream.read(0, stream.tokens))[None]
    assert found["news"] == pytest.approx(float(_losses(tokens).mean()) / np.log(2))
