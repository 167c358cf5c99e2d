"""Linear layers whose matrix products run in float8: for decoder blocks, on devices that support it.

Contract: `Float8Linear` is nn.Linear with the same parameter, name and dtype; only its products differ. Operands are
scaled by their largest absolute value, taken anew each time (one scale per tensor): x and weight to e4m3 (4 exponent,
3 mantissa bits), gradients of outputs to e5m2, as in Micikevicius et al., "FP8 Formats for Deep Learning" (arXiv
2209.05433). Sums are in float32, outputs in the dtype of x.

Error: a number is off by at most half a unit in the last place: 2^-4 of it in e4m3, 2^-3 in e5m2 (small numbers by
2^-10 and 2^-17, where the tensor's largest is 448 and 57,344). So a sum of products a b is off by at most
(2^-4 + 2^-4 + 2^-8) sum |a b| forward and (2^-3 + 2^-4 + 2^-7) sum |a b| backward; in the tests, 3 % forward and 6 to
9 % backward. If an input is not finite, the scale is not finite, nor is any output.

The backward pass keeps x in float8 (half of bf16) and the weight parameter itself. It makes the float8 copy again
from what ZeRO-3 gathers, at 3 bytes per element: for a block's 218 M weights at 8192 tokens, 2 x 0.2 ms beside 9 ms
of products. Under torch.compile, scaling fuses with its neighbors; without it, scaling costs more than float8 gains.

torchao's conversion replaces weights by tensor subclasses and hooks FSDP, while ZeRO-3 sets `.data` of plain
parameters, so it is not used.

Shape suffixes: X tokens  I inputs  O outputs
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from configs.schema import Recipe
from twofold.errors import Problem, UserError

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
_ALIGNMENT = 16
"""Both sides of a float8 product must be multiples of this."""
_LEAST = 1e-30
"""The scale of an all-zero tensor."""


class Float8Linear(nn.Linear):
    """x @ weight.T in float8, forward and backward."""

    def forward(self, x: Tensor) -> Tensor:
        y_XO: Tensor = _Float8Product.apply(x.flatten(0, -2), self.weight)  # type: ignore[no-untyped-call]
        return y_XO.view(*x.shape[:-1], len(self.weight))


class _Float8Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_XI: Tensor, weight_OI: Tensor) -> Tensor:
        x8_XI, x_scale = quantised(x_XI, FORWARD)
        weight8_OI, weight_scale = quantised(weight_OI, FORWARD)
        ctx.save_for_backward(x8_XI, x_scale, weight_OI, weight_scale)
        ctx.dtype = x_XI.dtype
        return _product(x8_XI, weight8_OI.t(), x_scale, weight_scale, x_XI.dtype, fast=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (d_y_XO,) = gradients
        x8_XI, x_scale, weight_OI, weight_scale = ctx.saved_tensors
        d_y8_XO, d_y_scale = quantised(d_y_XO, BACKWARD)
        weight8_OI = rounded(weight_OI, weight_scale, FORWARD)
        # The kernel wants the left side by rows and the right side by columns.
        d_x_XI = _product(d_y8_XO, _by_columns(weight8_OI), d_y_scale, weight_scale, ctx.dtype)
        d_weight_OI = _product(d_y8_XO.t().contiguous(), _by_columns(x8_XI), d_y_scale, x_scale, weight_OI.dtype)
        return d_x_XI, d_weight_OI


def quantised(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(x / scale in `dtype`, scale): the largest |x| becomes the largest number of `dtype`; scale is float32."""
    # Without detach(): a compiled block of torch 2.11 saves that alias of a weight, and all layers' weights stay.
    scale = x.abs().amax().float().clamp(min=_LEAST) / torch.finfo(dtype).max
    return rounded(x, scale, dtype), scale


def rounded(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """x / scale in `dtype`; what rounding would push beyond its largest number becomes that number."""
    largest = torch.finfo(dtype).max
    return (x.float() / scale).clamp(-largest, largest).to(dtype)


def require(recipe: Recipe, device: torch.device) -> None:
    """Raise `UserError` if the recipe's blocks cannot run in float8 on `device`."""
    problems = [
        Problem("engine.float8", True, problem, f"{hint}set engine.float8: false")
        for problem, hint in (*_lacks(device), *_misfits(recipe))
    ]
    if problems:
        raise UserError(problems)


def _lacks(device: torch.device) -> Iterator[tuple[str, str]]:
    """Yield (what device and torch lack, hint)."""
    if not hasattr(torch, "_scaled_mm"):
        yield "needs torch._scaled_mm, which this torch lacks", "install torch 2.11 or newer, or "
    if device.type != "cuda":
        yield "needs a CUDA device; there is none", ""
    elif (capability := torch.cuda.get_device_capability(device)) < (8, 9):
        shown = ".".join(map(str, capability))
        yield f"needs compute capability 8.9 (H100: 9.0); this device has {shown}", "train on a newer device, or "


def _misfits(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield (what float8 products cannot take in the recipe, hint)."""
    engine, model = recipe.engine, recipe.model
    if engine.precision != "bf16":
        yield f"rounds bf16 numbers; engine.precision is {engine.precision}", "set engine.precision: bf16, or "
    sizes = {
        "model.d_model": model.d_model,
        "model.d_ff": model.d_ff,
        "model.n_kv_heads x d_head": model.n_kv_heads * model.d_head,
        **{
            f"a micro-batch of phases.{phase.name}, in tokens,": engine.micro_batch_size * phase.sequence_length
            for phase in recipe.phases
        },
    }
    for name, size in sizes.items():
        if size % _ALIGNMENT:
            yield f"needs multiples of {_ALIGNMENT}; {name} is {size}", "change it, or "


def _product(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype, fast: bool = False) -> Tensor:
    """a @ b x scales in `dtype`; `fast` rounds partial sums inside a tile, as is usual in forward passes only."""
    product: Tensor = torch._scaled_mm(a, b, scale_a=a_scale, scale_b=b_scale, out_dtype=dtype, use_fast_accum=fast)
    return product


def _by_columns(x: Tensor) -> Tensor:
    """The same matrix in column-major order."""
    return x.t().contiguous().t()
