"""The mean of checkpoints, whatever numbers of ranks wrote them."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import world

from pretrain.checkpoints import merge, training_state
from pretrain.checkpoints.training_state import MASTER, part_bounds
from pretrain.model.decoder import initial_weights, parameter_shapes

RECIPE = world.recipe()


def _checkpoint(folder: Path, seed: int, ranks: int) -> dict[str, torch.Tensor]:
    weights = dict(initial_weights(RECIPE.model, world.VOCAB, seed))
    for rank in range(ranks):
        parts = {n: w.reshape(-1)[slice(*part_bounds(w.numel(), rank, ranks))] for n, w in weights.items()}
        training_state.write(folder, {MASTER: parts}, rank, ranks)
    return weights


def test_one_checkpoint_is_its_own_mean_exactly(tmp_path: Path) -> None:
    weights = _checkpoint(tmp_path, 1, 3)
    found = dict(merge.weights(RECIPE, [tmp_path]))
    assert list(found) == list(parameter_shapes(RECIPE.model, world.VOCAB))
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_the_mean_is_taken_in_float64(tmp_path: Path) -> None:
    made = [_checkpoint(tmp_path / str(n), seed=n, ranks=n + 1) for n in range(3)]
    found = dict(merge.weights(RECIPE, [tmp_path / str(n) for n in range(3)]))
    for name, value in found.items():
        exact = torch.stack([weights[name].double() for weights in made]).sum(0) / 3
        assert value.dtype == torch.float32
        assert torch.equal(value, exact.float())
        assert value.numel() == math.prod(parameter_shapes(RECIPE.model, world.VOCAB)[name])
