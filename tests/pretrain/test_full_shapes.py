"""The 7.8 B model's own shapes through every fast way, without memory and without a GPU.

On the meta device nothing is computed: names, types, shapes and strides are. Where torch is built with CUDA, fake
tensors also ask what its kernels ask of layouts, though no device is there.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from configs.recipe import load_recipe
from pretrain.model.attention import segments
from pretrain.model.backends import Kernels, install
from pretrain.model.decoder import Decoder
from pretrain.model.float8 import _Float8Product
from pretrain.model.linear_cross_entropy import Elementwise, _ChunkedLosses, fold, logit_gradient
from tests.conftest import ROOT

RECIPE = load_recipe(ROOT / "configs" / "exaone3_7p8b.yaml")
SHAPE, VOCAB_SIZE = RECIPE.model.model_copy(update={"n_layers": 1}), RECIPE.tokenizer.vocab_size
SEQUENCES, TOKENS = RECIPE.engine.micro_batch_size, RECIPE.phases[0].sequence_length
CUDA_BUILD = pytest.mark.skipif(torch.version.cuda is None, reason="this torch is built without CUDA")


@pytest.mark.parametrize(
    ("losses", "masked", "in_float8"), list(itertools.product(("plain", "kept", "recomputed"), (0, 1), (0, 1)))
)
def test_every_fast_way_takes_the_shapes_of_the_7p8b_model(losses: Any, masked: int, in_float8: int) -> None:
    kernels = Kernels(ordered_attention=True, document_bounds=bool(masked), losses=losses, float8=bool(in_float8))
    with torch.device("meta"):
        model = Decoder(SHAPE, VOCAB_SIZE, linear=kernels.linear).to(torch.bfloat16)
        install(model, kernels)
        tokens = torch.zeros(SEQUENCES, TOKENS + 1, dtype=torch.int64)
        bounds = torch.zeros(segments(40) + 1, dtype=torch.int32) if masked else None
    nll, log_z = model(tokens[:, :-1], tokens[:, 1:], bool(masked), bounds)
    assert nll.shape == log_z.shape == (SEQUENCES, TOKENS)
    assert nll.dtype == log_z.dtype == torch.float32
    (nll.mean() + 1e-5 * log_z.square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.shape, parameter.grad.dtype) == (parameter.shape, torch.bfloat16), name


@CUDA_BUILD
@pytest.mark.parametrize("outputs", [SHAPE.d_model, SHAPE.n_kv_heads * SHAPE.d_head, SHAPE.d_ff])
def test_float8_products_are_laid_out_as_cuda_wants_them(outputs: int) -> None:
    """Forward and backward; that the question is asked at all is tried with a layout that is refused."""
    context = _Context()
    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        x, weight = (torch.empty(n, SHAPE.d_model, dtype=torch.bfloat16) for n in (SEQUENCES * TOKENS, outputs))
        y = _Float8Product.forward(context, x, weight)
        d_x, d_weight = _Float8Product.backward(context, torch.empty_like(y))
        assert (d_x.shape, d_weight.shape) == (x.shape, weight.shape)
        x8, scale, *_ = context.saved_tensors
        with pytest.raises(RuntimeError, match="col_major"):
            torch._scaled_mm(x8, x8.t().contiguous(), scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16)


@CUDA_BUILD
@pytest.mark.parametrize("keep", [True, False])
def test_the_chunked_head_takes_cuda_tensors(keep: bool) -> None:
    context = _Context()
    tokens = SEQUENCES * TOKENS
    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        x, weight = (torch.empty(n, SHAPE.d_model, dtype=torch.bfloat16) for n in (tokens, VOCAB_SIZE))
        targets = torch.zeros(tokens, dtype=torch.int64)
        parts = Elementwise(fold, logit_gradient)
        losses = _ChunkedLosses.forward(context, x, weight, targets, 14_720, keep, parts)
        d_x, d_weight, *_ = _ChunkedLosses.backward(context, *losses)
    assert d_x is not None
    assert d_weight is not None
    assert (d_x.shape, d_weight.shape) == (x.shape, weight.shape)


class _Context(SimpleNamespace):
    """What autograd hands to a function, as far as these use it."""

    needs_input_grad = (True,)

    def save_for_backward(self, *tensors: torch.Tensor) -> None:
        self.saved_tensors = tensors
