"""The output head: hidden states -> logits, or -> losses without ever holding all logits in float32.

Contract: `Head` owns `lm_head.weight` and computes the losses in its own forward pass, so that ZeRO-3 gathers the
weight by this module's hooks in both passes. With targets it returns (-log p(target), log Z), both float32 and both
differentiable; the objective, z-loss included, stays with the engine. `plain` is the reference. The chunked variants
equal it up to the order of float32 sums.

Chunks are of the vocabulary, not of tokens: each chunk's weight gradient is then one matrix product over all tokens,
summed in float32 inside it and rounded once. Chunks of tokens would need a float32 buffer of the whole weight,
4 V D bytes, read and written for each chunk (27 GB, or 8 ms on an H100, for eight chunks of the 7.8 B model).

At N = 8192 tokens, V = 102,400, D = 4096 (a product: 2 N V D = 6.9 TFLOP, 9.8 ms at 700 TFLOP/s):
    kept         the chunks' logits wait for the backward pass in the model's dtype and become their own gradient
                 there: 3 products, 1.68 GB
    recomputed   the backward pass computes logits again: 4 products (+1.8 % of a 7.8 B step's FLOPs at 4096 tokens
                 of context), no logits in between; used where activations are recomputed as well
Both need one more chunk, of at most 2^27 logits. Measured eagerly with eight chunks, in bytes of bf16 logits:
plain 8.0 (13 GB at this shape), kept 2.1, recomputed 1.3.

torch.nn.functional.linear_cross_entropy (torch 2.13) returns no log Z, which z-loss needs, does not run under
torch.compile when chunked, and is missing in torch 2.11. Liger-Kernel's takes the gradient in the forward pass from
a weight that ZeRO-3 may have emptied (Liger-Kernel issues 767 and 827).

Shape suffixes:  B sequences  T tokens  N = B x T  V vocabulary  C vocabulary of one chunk  D d_model
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.model.sizes import CHUNK_LOGITS

Losses = Literal["plain", "kept", "recomputed"]
_ALIGNED_ROWS = 128
"""Matrix products are fastest on multiples of this."""


class Head(nn.Linear):
    """Logits BTV of hidden states BTD; with targets BT, (-log p(target), log Z), float32, BT each."""

    def __init__(self, d_model: int, vocab_size: int) -> None:
        super().__init__(d_model, vocab_size, bias=False)
        self.losses: Losses = "plain"
        self.float32_products = False
        self.elementwise = Elementwise(fold, logit_gradient)
        self.chunk_logits = CHUNK_LOGITS

    def forward(self, x_BTD: Tensor, targets_BT: Tensor | None = None) -> Any:
        if targets_BT is None or self.losses == "plain":
            product = float32_product if self.float32_products else F.linear
            logits_BTV = product(x_BTD, self.weight)
            return logits_BTV if targets_BT is None else token_losses(logits_BTV, targets_BT)
        # Validation has shapes of its own, which are not worth compiling.
        elementwise = self.elementwise if torch.is_grad_enabled() else Elementwise(fold, logit_gradient)
        # Inside of `apply` gradients are always off, and what needs one does not tell whether one will be asked for.
        keeps = self.losses == "kept" and torch.is_grad_enabled()
        rows = chunk_rows(targets_BT.numel(), len(self.weight), self.chunk_logits)
        nll_N, log_z_N = _ChunkedLosses.apply(  # type: ignore[no-untyped-call]
            x_BTD.flatten(0, 1), self.weight, targets_BT.flatten(), rows, keeps, elementwise
        )
        return nll_N.view_as(targets_BT), log_z_N.view_as(targets_BT)


def float32_product(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T, multiplied and summed in float32 and rounded once to the dtype of x."""
    return (x.float() @ weight.float().t()).to(x.dtype)


def token_losses(logits_BTV: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
    """(-log p(target), log Z), float32, BT each; Z is the softmax's normaliser."""
    logits_BTV = logits_BTV.float()
    # The fused kernel's backward pass is three times faster than logsumexp's; log Z follows from its result.
    nll_BT = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none").view_as(targets_BT)
    target_BT = logits_BTV.gather(-1, targets_BT[..., None])[..., 0]
    return nll_BT, nll_BT + target_BT


def chunk_rows(tokens: int, vocab_size: int, limit: int) -> int:
    """Rows of the weight in each chunk (the last may have fewer), as equal as alignment allows."""
    chunks = -(-tokens * vocab_size // limit)
    rows = -(-vocab_size // chunks)
    return min(vocab_size, -(-rows // _ALIGNED_ROWS) * _ALIGNED_ROWS)


def fold(logits_NC: Tensor, targets_N: Tensor, log_z_N: Tensor, target_logit_N: Tensor) -> tuple[Tensor, Tensor]:
    """Add a chunk to log Z and to the target's logit; `targets_N` counts from the chunk's first row."""
    logits_NC = logits_NC.float()
    inside_N = (targets_N >= 0) & (targets_N < logits_NC.shape[1])
    here_N = logits_NC.gather(1, targets_N.clamp(0, logits_NC.shape[1] - 1)[:, None])[:, 0]
    return torch.logaddexp(log_z_N, logits_NC.logsumexp(1)), torch.where(inside_N, here_N, target_logit_N)


def logit_gradient(logits_NC: Tensor, targets_N: Tensor, log_z_N: Tensor, d_log_z_N: Tensor, d_nll_N: Tensor) -> None:
    """Overwrite a chunk's logits with their gradient: softmax x (d nll + d log Z) - [target] x d nll."""
    here_NC = torch.arange(logits_NC.shape[1], device=logits_NC.device) == targets_N[:, None]
    share_NC = torch.exp(logits_NC.float() - log_z_N[:, None])
    gradient_NC = share_NC * (d_nll_N + d_log_z_N)[:, None] - torch.where(here_NC, d_nll_N[:, None], 0.0)
    logits_NC.copy_(gradient_NC)


class Elementwise(NamedTuple):
    """The parts between matrix products, eager or compiled."""

    fold: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    gradient: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]


class _ChunkedLosses(torch.autograd.Function):
    """(hidden ND, weight VD, targets N) -> (nll N, log Z N). One backward pass, which overwrites kept logits."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, rows: int, keep: bool, elementwise: Elementwise
    ) -> tuple[Tensor, Tensor]:
        log_z_N = torch.full_like(targets_N, -torch.inf, dtype=torch.float32)
        target_logit_N = torch.zeros_like(log_z_N)
        kept = []
        for first, weight_CD in _chunks(weight_VD, rows):
            logits_NC = x_ND @ weight_CD.t()
            log_z_N, target_logit_N = elementwise.fold(logits_NC, targets_N - first, log_z_N, target_logit_N)
            if keep:
                kept.append(logits_NC)
        ctx.save_for_backward(x_ND, weight_VD, targets_N, log_z_N, *kept)
        ctx.rows, ctx.elementwise = rows, elementwise
        return log_z_N - target_logit_N, log_z_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_nll_N, d_log_z_N = gradients
        # The weight is the parameter itself, empty until the head's hook gathered it again.
        x_ND, weight_VD, targets_N, log_z_N, *kept = ctx.saved_tensors
        d_x_ND = torch.zeros_like(x_ND, dtype=torch.float32)
        d_weight_VD = torch.empty_like(weight_VD)
        for number, (first, weight_CD) in enumerate(_chunks(weight_VD, ctx.rows)):
            logits_NC = kept[number] if kept else x_ND @ weight_CD.t()
            ctx.elementwise.gradient(logits_NC, targets_N - first, log_z_N, d_log_z_N, d_nll_N)
            torch.mm(logits_NC.t(), x_ND, out=d_weight_VD[first : first + len(weight_CD)])
            d_x_ND += logits_NC @ weight_CD
        return d_x_ND.to(x_ND.dtype), d_weight_VD, None, None, None, None


def _chunks(weight_VD: Tensor, rows: int) -> Iterator[tuple[int, Tensor]]:
    """(first row, rows) of each chunk."""
    for first in range(0, len(weight_VD), rows):
        yield first, weight_VD[first : first + rows]
