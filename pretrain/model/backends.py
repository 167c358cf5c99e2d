"""Which implementation of each part of a training step runs on a device, and why a fast one does not.

Contract: `choose` inspects the recipe, the device and the installed packages once, and returns a frozen choice with
one line per fast variant that is not taken (what is missing, and a hint). `install` sets it on a model. `auto` is
everything that the device supports; `plain` is the reference, and what `auto` is on a CPU, bit for bit. Every variant
computes the same function up to the order and precision of float sums (tests/pretrain).

    part        plain                              fast (CUDA)
    attention   torch's order of kernels           cuDNN, FlashAttention-2, memory-efficient, plain operators
    documents   dense mask                         FlashAttention over segments (attention.py)
    block       eager, each layer a ZeRO-3 module  one graph for all blocks; each block one ZeRO-3 module
    head        float32 logits, all at once        chunks of the vocabulary (linear_cross_entropy.py)
    recompute   nothing, or whole blocks           also `selective`: all but products and attention, in the graph
    linear      the recipe's precision             float8, by engine.float8 (float8.py), not by `auto`

A compiled block is compiled once per shape: for each phase's sequence length and each class of document counts
(attention.segments). Validation and continuations, which have many shapes, are not compiled.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from configs.schema import Engine, Recipe
from pretrain.model import float8, linear_cross_entropy
from pretrain.model.decoder import Decoder

Recompute = bool | Literal["selective"]
"""Activation checkpointing of each block: none, all of it, or all but products and attention."""

_MOST_GRAPHS = 64
"""Graphs of one function before torch.compile gives up; its default, 8, is fewer than phases x segment classes."""

_RECOMPUTED = {False: "nothing", True: "blocks", "selective": "blocks except for products and attention"}
_COSTLY = {
    "aten.mm.default",
    "aten._scaled_mm.default",
    "aten._scaled_dot_product_cudnn_attention.default",
    "aten._scaled_dot_product_flash_attention.default",
    "aten._scaled_dot_product_efficient_attention.default",
    "aten._scaled_dot_product_flash_attention_for_cpu.default",
    "torch_attn._varlen_attn.default",
}
"""Operators whose outputs `selective` keeps."""


@dataclass(frozen=True)
class Kernels:
    """The choice for one device."""

    ordered_attention: bool = False
    document_bounds: bool = False
    compiler: str | None = None
    """Backend of torch.compile for blocks and element-wise parts; None: eager."""
    losses: linear_cross_entropy.Losses = "plain"
    recompute: Recompute = False
    """engine.activation_checkpointing, as far as it is available."""
    float8: bool = False
    float32_products: bool = False
    """Products of bf16 tensors as float32 products, rounded: for CPUs without bf16 instructions."""
    fallbacks: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """One line per part, then one line per fast variant that is missing."""
        return [
            f"attention: {'cuDNN first' if self.ordered_attention else 'as torch chooses'}",
            f"masked documents: {'segments' if self.document_bounds else 'dense mask'}",
            f"block: {f'compiled ({self.compiler})' if self.compiler else 'eager'}",
            f"head: {'plain' if self.losses == 'plain' else f'chunked, logits {self.losses}'}",
            f"recomputed in the backward pass: {_RECOMPUTED[self.recompute]}",
            f"linear layers of blocks: {self._products()}",
            *self.fallbacks,
        ]

    def _products(self) -> str:
        if self.float8:
            return "float8"
        return "float32, rounded to bf16" if self.float32_products else "in the precision of the recipe"

    @property
    def linear(self) -> type[nn.Linear]:
        """Class of the blocks' projections."""
        if self.float8:
            return float8.Float8Linear
        if self.float32_products:
            return Float32Linear
        return nn.Linear if self.compiler is None else GraphLinear


class Float32Linear(nn.Linear):
    """nn.Linear whose products are computed in float32 and rounded to the dtype of its input.

    Without AVX-512, torch multiplies bf16 matrices in a scalar loop: 20 to 50 times slower than this.
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear_cross_entropy.float32_product(x, self.weight)


class GraphLinear(nn.Linear):
    """nn.Linear for compiled blocks: the same product, without torch.nn.functional.linear.

    DeepSpeed replaces that function by one that reads the parameter's number. In torch 2.11 the graph is then valid
    for that number only, and each layer gets a graph of its own.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.t()


def choose(recipe: Recipe, device: torch.device) -> Kernels:
    """The choice for `recipe` on `device`; `UserError` if engine.float8 is not available."""
    engine = recipe.engine
    if engine.float8:
        float8.require(recipe, device)
    if engine.backend == "plain":
        return _eager(engine, Kernels(float8=engine.float8))
    if device.type != "cuda":
        fallbacks = ("all parts plain: the fast ones need a CUDA device. Hint: use one",)
        emulated = engine.precision == "bf16" and device.type == "cpu" and not _has_bf16_products()
        return _eager(engine, Kernels(float32_products=emulated, fallbacks=fallbacks))
    no_bounds = _no_bounds(engine.precision, device)
    masks = any(phase.intra_document_masking for phase in recipe.phases)
    fast = Kernels(
        ordered_attention=True,
        document_bounds=not no_bounds,
        compiler="inductor",
        losses="recomputed" if engine.activation_checkpointing is True else "kept",
        recompute=engine.activation_checkpointing,
        float8=engine.float8,
        fallbacks=tuple(f"documents by a dense mask: {reason}" for reason in no_bounds if masks),
    )
    reasons = _no_compiler(device)
    return _eager(engine, fast, *(f"block not compiled: {reason}" for reason in reasons)) if reasons else fast


def _eager(engine: Engine, kernels: Kernels, *fallbacks: str) -> Kernels:
    """`kernels` without compilation, and what that means for settings that need it."""
    lines = [*kernels.fallbacks, *fallbacks]
    if engine.activation_checkpointing == "selective":
        lines.append(
            "all of a block is recomputed: outside of a compiled block, `selective` would keep ZeRO-3's own operators. "
            "Hint: engine.activation_checkpointing: true, or what a compiled block needs"
        )
    if engine.float8:
        lines.append("float8 is slow here: in an eager block scaling does not fuse. Hint: engine.float8: false")
    recompute = bool(engine.activation_checkpointing)
    return replace(kernels, compiler=None, recompute=recompute, fallbacks=tuple(lines))


def install(model: Decoder, kernels: Kernels) -> None:
    """Set the choice on a model built with `kernels.linear`, before DeepSpeed wraps it."""
    model.lm_head.losses = kernels.losses
    model.lm_head.float32_products = kernels.float32_products
    model.model.recompute = kernels.recompute is True
    if kernels.compiler is None:
        return
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
    for block in model.model.layers:
        _compile_forward(block, kernels.compiler, kernels.recompute == "selective")
    _compile_forward(model.model.norm, kernels.compiler)
    model.lm_head.elementwise = linear_cross_entropy.Elementwise(
        fold=torch.compile(linear_cross_entropy.fold, dynamic=False, backend=kernels.compiler),
        gradient=torch.compile(linear_cross_entropy.logit_gradient, dynamic=False, backend=kernels.compiler),
    )


def _compile_forward(module: nn.Module, backend: str, selective: bool = False) -> None:
    """Compile what is between ZeRO-3's hooks, which break every graph they are in; eager without gradients."""
    eager = module.forward
    inside: Callable[..., Any] = eager
    if selective:
        contexts = partial(create_selective_checkpoint_contexts, _keep_costly)
        inside = partial(checkpoint, eager, use_reentrant=False, context_fn=contexts)
    compiled = torch.compile(inside, fullgraph=True, dynamic=False, backend=backend)

    def forward(*inputs: Any) -> Any:
        return compiled(*inputs) if torch.is_grad_enabled() else eager(*inputs)

    module.forward = forward


def _keep_costly(_context: Any, operator: Any, *_args: Any, **_options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if str(operator) in _COSTLY else CheckpointPolicy.PREFER_RECOMPUTE


def _has_bf16_products() -> bool:
    """Whether torch has a fast bf16 matrix product for this CPU: oneDNN's needs AVX-512."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _no_compiler(device: torch.device) -> list[str]:
    """Why torch.compile cannot be used; empty if it can."""
    if importlib.util.find_spec("triton") is None:
        return ["Triton is not installed. Hint: pip install triton, in the version that this torch requires"]
    if (capability := torch.cuda.get_device_capability(device)) < (7, 0):
        return [f"Triton needs compute capability 7.0, this device has {_dotted(capability)}. Hint: a newer device"]
    if not (os.environ.get("CC") or any(shutil.which(name) for name in ("cc", "gcc", "clang"))):
        return ["Triton builds its launcher with a C compiler, and none is on PATH. Hint: install gcc, or set CC"]
    return []


def _no_bounds(precision: str, device: torch.device) -> list[str]:
    """Why attention over segments cannot be used; empty if it can."""
    if not torch.backends.cuda.is_flash_attention_available():
        return ["this torch was built without FlashAttention. Hint: a wheel from pytorch.org"]
    if precision != "bf16":
        return [f"FlashAttention takes bf16, engine.precision is {precision}. Hint: engine.precision: bf16"]
    if (capability := torch.cuda.get_device_capability(device)) < (8, 0):
        return [
            f"FlashAttention needs compute capability 8.0, this device has {_dotted(capability)}. Hint: a newer device"
        ]
    return []


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
