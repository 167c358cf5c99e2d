"""Another number of ranks goes on from a checkpoint as it is: equal up to the order of float sums."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import world
from safetensors.torch import load_file

from pretrain import layout
from twofold.exit_codes import EXIT_CODE_STOPPED

pytestmark = pytest.mark.e2e

FLOAT32 = {
    "engine__precision": "fp32",
    "optimizer__weight_decay": 0.3,  # so large that the decayed group taken for the plain one would show
    "optimizer__max_grad_norm": 0.5,
}


def test_two_four_one_and_two_ranks_equal_two_ranks(tmp_path: Path, tokenizer_dir: Path, shards_dir: Path) -> None:
    elastic, steady = (
        world.Run(tmp_path / name, world.recipe(**FLOAT32), shards_dir, tokenizer_dir) for name in ("elastic", "steady")
    )
    assert steady.train(ranks=2) == 0, steady.log
    for stop, ranks in ((5, 2), (9, 4), (11, 1)):
        assert elastic.train("--stop-after-step", str(stop), ranks=ranks) == EXIT_CODE_STOPPED, elastic.log
    assert elastic.train(ranks=2) == 0, elastic.log
    assert [event["world_size"] for event in elastic.events("start")] == [2, 4, 1, 2]
    changed, constant = elastic.events("train"), steady.events("train")
    for key in ("step", "lr", "tokens", "tokens_by_source", "batch_hash"):
        assert [event[key] for event in changed] == [event[key] for event in constant]
    for key in ("loss", "grad_norm"):
        assert [event[key] for event in changed] == pytest.approx([event[key] for event in constant], rel=1e-4)
    for phase in ("general", "domain"):
        weights, others = (load_file(run.out / layout.weights_file(phase)) for run in (elastic, steady))
        for name, value in others.items():
            torch.testing.assert_close(weights[name], value, atol=2e-5, rtol=1e-3)
    counts = [json.loads((run.out / layout.TOKEN_COUNTS_FILE).read_text()) for run in (elastic, steady)]
    assert counts[0] == counts[1]
