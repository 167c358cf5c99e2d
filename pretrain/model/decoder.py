"""EXAONE 3.0's decoder: pre-norm RMSNorm, grouped-query attention with rotary embedding, SwiGLU.

It is Llama's architecture, and the parameters have the names of Llama-format checkpoints, so weights move in and out
without translation. Everything is a function of the recipe's `model` section and the vocabulary size. There are no
buffers, no dropout and no randomness: the same weights and tokens give the same output. This is the plain reference;
backends.py installs faster versions of the same functions.

Shape suffixes:
    B sequences    T tokens     V vocabulary    D d_model    F d_ff
    N query heads  K key/value heads            H d_head

Sources: "EXAONE 3.0 7.8B Instruction Tuned Language Model" (arXiv 2408.03541), section 2.1; rotary embedding in the
half-split form of Llama checkpoints (the first half of a head turns with the second).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from configs.schema import Model
from pretrain.model.attention import attend, document_mask
from pretrain.model.linear_cross_entropy import Head

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis; the mean is taken in float32."""

    def __init__(self, d: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x_BTD: Tensor) -> Tensor:
        x32_BTD = x_BTD.float()
        scale_BT1 = torch.rsqrt(x32_BTD.square().mean(-1, keepdim=True) + self.eps)
        return (x32_BTD * scale_BT1).to(x_BTD.dtype) * self.weight


class Attention(nn.Module):
    """Causal grouped-query attention: N/K query heads share one key/value head."""

    def __init__(self, cfg: Model, linear: type[nn.Linear] = nn.Linear) -> None:
        super().__init__()
        self.d_head = cfg.d_head
        self.q_proj = linear(cfg.d_model, cfg.n_heads * cfg.d_head, bias=False)
        self.k_proj = linear(cfg.d_model, cfg.n_kv_heads * cfg.d_head, bias=False)
        self.v_proj = linear(cfg.d_model, cfg.n_kv_heads * cfg.d_head, bias=False)
        self.o_proj = linear(cfg.n_heads * cfg.d_head, cfg.d_model, bias=False)

    def forward(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor, documents: Tensor | None = None) -> Tensor:
        # On a CPU the fused kernel's backward pass is five times faster in float32 than in bf16.
        dtype = torch.float32 if x_BTD.device.type == "cpu" else x_BTD.dtype
        q_BNTH = rotate(self._heads(self.q_proj(x_BTD)), cos_TH, sin_TH).to(dtype)
        k_BKTH = rotate(self._heads(self.k_proj(x_BTD)), cos_TH, sin_TH).to(dtype)
        v_BKTH = self._heads(self.v_proj(x_BTD)).to(dtype)
        out_BNTH = attend(q_BNTH, k_BKTH, v_BKTH, documents)
        y_BTD: Tensor = self.o_proj(out_BNTH.transpose(1, 2).flatten(2).to(x_BTD.dtype))
        return y_BTD

    def _heads(self, x_BTE: Tensor) -> Tensor:
        B, T, _ = x_BTE.shape
        return x_BTE.view(B, T, -1, self.d_head).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, cfg: Model, linear: type[nn.Linear] = nn.Linear) -> None:
        super().__init__()
        self.gate_proj = linear(cfg.d_model, cfg.d_ff, bias=False)
        self.up_proj = linear(cfg.d_model, cfg.d_ff, bias=False)
        self.down_proj = linear(cfg.d_ff, cfg.d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return y_BTD


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, cfg: Model, linear: type[nn.Linear] = nn.Linear) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(cfg.d_model, cfg.norm_eps)
        self.self_attn = Attention(cfg, linear)
        self.post_attention_layernorm = RMSNorm(cfg.d_model, cfg.norm_eps)
        self.mlp = FeedForward(cfg, linear)

    def forward(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor, documents: Tensor | None = None) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos_TH, sin_TH, documents)
        x_BTD = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return x_BTD


class Trunk(nn.Module):
    """Embedding, blocks, last norm."""

    def __init__(self, cfg: Model, vocab_size: int, recompute: bool, linear: type[nn.Linear]) -> None:
        super().__init__()
        self.d_head, self.rope_theta, self.recompute = cfg.d_head, cfg.rope_theta, recompute
        self.embed_tokens = nn.Embedding(vocab_size, cfg.d_model)
        self.layers = nn.ModuleList(Block(cfg, linear) for _ in range(cfg.n_layers))
        self.norm = RMSNorm(cfg.d_model, cfg.norm_eps)

    def forward(self, tokens_BT: Tensor, documents: Tensor | None = None) -> Tensor:
        cos_TH, sin_TH = rotary_angles(tokens_BT.shape[1], self.d_head, self.rope_theta, tokens_BT.device)
        x_BTD: Tensor = self.embed_tokens(tokens_BT)
        for block in self.layers:
            if self.recompute and torch.is_grad_enabled():
                x_BTD = checkpoint(block, x_BTD, cos_TH, sin_TH, documents, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, cos_TH, sin_TH, documents)
        x_BTD = self.norm(x_BTD)
        return x_BTD


class Decoder(nn.Module):
    """The language model; embedding and head are untied.

    `recompute` drops each block's activations and computes them again in the backward pass (activation
    checkpointing): about a third more work for one layer's memory. `linear` is the class of the blocks' projections.
    """

    def __init__(
        self, cfg: Model, vocab_size: int, recompute: bool = False, linear: type[nn.Linear] = nn.Linear
    ) -> None:
        super().__init__()
        self.model = Trunk(cfg, vocab_size, recompute, linear)
        self.lm_head = Head(cfg.d_model, vocab_size)

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        intra_document_masking: bool = False,
        bounds_S: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits BTV; or, with targets, (-log p(target), log Z), BT each (see `linear_cross_entropy.Head`).

        `intra_document_masking` keeps attention within documents; `bounds_S` (`attention.document_bounds`) does the
        same with a faster kernel.
        """
        documents = document_mask(tokens_BT) if intra_document_masking and bounds_S is None else bounds_S
        result: Tensor | tuple[Tensor, Tensor] = self.lm_head(self.model(tokens_BT, documents), targets_BT)
        return result


def rotary_angles(length: int, d_head: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin TH (float32) of position x theta^(-2i/H), the H/2 frequencies written twice."""
    exponents_H2 = torch.arange(0, d_head, 2, dtype=torch.float32, device=device) / d_head
    positions_T = torch.arange(length, dtype=torch.float32, device=device)
    angles_TH2 = torch.outer(positions_T, 1.0 / theta**exponents_H2)
    angles_TH = torch.cat((angles_TH2, angles_TH2), dim=-1)
    return angles_TH.cos(), angles_TH.sin()


def rotate(x_BNTH: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
    """Turn each pair (i, i + H/2) of a head by its position's angle; float32.

    The halves are joined last: a compiled backward pass then writes no intermediate of a head's size.
    """
    first, second = x_BNTH.float().chunk(2, dim=-1)
    (cos_first, cos_second), (sin_first, sin_second) = cos_TH.chunk(2, dim=-1), sin_TH.chunk(2, dim=-1)
    return torch.cat((first * cos_first - second * sin_first, second * cos_second + first * sin_second), dim=-1)


def initial_weights(cfg: Model, vocab_size: int, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Every parameter's (name, float32 value on CPU): a pure function of seed and name.

    Normal(0, init_std); projections into the residual stream are scaled by 1/sqrt(2 x layers)
    (GPT-2, section 2.3), norms are 1. One parameter is alive at a time.
    """
    for name, shape in parameter_shapes(cfg, vocab_size).items():
        if len(shape) == 1:
            yield name, torch.ones(shape)
            continue
        into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        std = cfg.init_std / math.sqrt(2 * cfg.n_layers) if into_residual else cfg.init_std
        key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)
        yield name, torch.empty(shape).normal_(0.0, std, generator=generator)


def parameter_shapes(cfg: Model, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape in the model's order, without allocating anything."""
    with torch.device("meta"):
        model = Decoder(cfg, vocab_size)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
