"""The mean of several checkpoints' weights, parameter by parameter.

Contract: `weights` yields float32 means taken in float64, in the model's order, in the memory of one parameter.
Checkpoints may come from different numbers of ranks. One checkpoint is its own mean, exactly.
Source: "Model soups" (arXiv 2203.05482); OLMo 2 (arXiv 2501.00656, section 4) averages annealed runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from configs.schema import Recipe
from pretrain.checkpoints.training_state import MASTER, SavedTensors
from pretrain.model.decoder import parameter_shapes


def weights(recipe: Recipe, checkpoints: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """(name, mean of the checkpoints' master weights) of every parameter, float32 on the host."""
    assert checkpoints, "no checkpoints to merge"
    with ExitStack() as stack:
        opened = [stack.enter_context(SavedTensors(path)) for path in checkpoints]
        for name, shape in parameter_shapes(recipe.model, recipe.tokenizer.vocab_size).items():
            total = torch.zeros(math.prod(shape), dtype=torch.float64)
            for saved in opened:
                total += saved.read(MASTER, name, len(total))
            yield name, (total / len(opened)).to(torch.float32).reshape(shape)
