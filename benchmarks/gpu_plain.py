"""The plain PyTorch peer: the same model and step without ZeRO, as a careful user of torch.compile writes it.

Contract: `PlainDecoder` has our decoder's parameter names and computes what it computes (a test compares
them); each block is compiled, attention is scaled_dot_product_attention with cuDNN's kernel first, the loss
is a compiled float32 cross-entropy, the optimizer is fused AdamW. How weights are kept is `case.masters`:

    float32   bf16 weights, float32 sums of gradients, float32 masters: as Megatron; our own precision
    autocast  float32 weights, bf16 by torch.autocast: as torchtitan on one GPU
    none      everything in bf16, optimizer included: less precise than ours, what nobody can be faster than

Tokens are drawn on the device before the clock starts: this peer reads no data, logs and saves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from benchmarks import gpu_cases
from benchmarks.gpu_cases import Case
from benchmarks.gpu_device import Memory
from configs.schema import Model

_BACKENDS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_ADAM = {"betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
LEARNING_RATE = 3e-4
CLIP = 1.0


def measure(case: Case, peak_tflops: float | None) -> dict[str, Any]:
    """Figures of the case: median seconds of whole steps, the device waited for at the end of each."""
    torch.manual_seed(0)
    memory = Memory(case.device)
    trained = Trained(case)
    batches = [_tokens(case) for _ in range(case.accumulation)]
    seconds, losses = [], []
    for _ in range(case.all_steps):
        begin = time.perf_counter()
        losses.append(trained.step(batches))
        if case.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    figures = gpu_cases.figures(case, seconds[-case.steps :], peak_tflops)
    return {"case": case.as_json(), "losses": losses, **figures, **memory.peaks()}


class Trained:
    """Model, optimizer and one step of both."""

    def __init__(self, case: Case) -> None:
        self._case = case
        dtype = torch.float32 if case.masters == "autocast" else torch.bfloat16
        with torch.device(case.device):
            self.model = PlainDecoder(case.model(), case.vocab_size, bool(case.recompute)).to(dtype)
        if case.precision == "float8":
            _to_float8(self.model)
        compile_blocks(self.model, case.device)
        self._loss: Callable[..., Tensor] = _compiled(_mean_loss, case.device)
        self._sums = Masters(list(self.model.parameters())) if case.masters == "float32" else None
        trained = self._sums.masters if self._sums else list(self.model.parameters())
        matrices, others = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() == 1]
        groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True, **_ADAM)
        self._parameters = trained

    def step(self, batches_BU: list[Tensor]) -> float:
        """One optimizer step over the micro-batches; the mean loss."""
        total = torch.zeros((), device=self._case.device)
        for micro_BU in batches_BU:
            with self._precision(), sdpa_kernel(_BACKENDS, set_priority=True):
                logits_BTV = self.model(micro_BU[:, :-1])
                loss = self._loss(logits_BTV, micro_BU[:, 1:]) / len(batches_BU)
                del logits_BTV
                loss.backward()  # within the context: recomputation must choose the same attention
            total += loss.detach()
        if self._sums:
            self._sums.give_gradients()
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIP, foreach=True)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=not self._sums)
        if self._sums:
            self._sums.give_weights()
        return float(total)

    def _precision(self) -> AbstractContextManager[Any]:
        if self._case.masters != "autocast":
            return nullcontext()
        return torch.autocast(self._case.device, dtype=torch.bfloat16)


class Masters:
    """Float32 copies of bf16 weights, and float32 sums of their gradients."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self._weights = weights
        self.masters = [weight.detach().float().requires_grad_() for weight in weights]
        self._sums = [torch.zeros_like(master) for master in self.masters]
        for weight, total in zip(weights, self._sums, strict=True):
            weight.register_post_accumulate_grad_hook(_adder(total))

    def give_gradients(self) -> None:
        for master, total in zip(self.masters, self._sums, strict=True):
            master.grad = total

    @torch.no_grad()
    def give_weights(self) -> None:
        torch._foreach_copy_(self._weights, self.masters)


def _adder(total: Tensor) -> Callable[[Tensor], None]:
    def add(weight: Tensor) -> None:
        total.add_(weight.grad)
        weight.grad = None

    return add


class PlainDecoder(nn.Module):
    """Pre-norm RMSNorm, grouped-query attention with rotary embedding, SwiGLU; untied head."""

    def __init__(self, cfg: Model, vocab_size: int, recompute: bool) -> None:
        super().__init__()
        self.recompute, self.d_head, self.theta = recompute, cfg.d_head, cfg.rope_theta
        self.model = nn.ModuleDict({
            "embed_tokens": nn.Embedding(vocab_size, cfg.d_model),
            "layers": nn.ModuleList(_Block(cfg) for _ in range(cfg.n_layers)),
            "norm": nn.RMSNorm(cfg.d_model, cfg.norm_eps),
        })  # fmt: skip
        self.lm_head = nn.Linear(cfg.d_model, vocab_size, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, 0.0, cfg.init_std)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.model["embed_tokens"](tokens_BT)
        turns_TH = _turns(tokens_BT.shape[1], self.d_head, self.theta, x_BTD)
        for block in self.model["layers"]:
            if self.recompute:
                x_BTD = checkpoint(block, x_BTD, *turns_TH, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, *turns_TH)
        logits_BTV: Tensor = self.lm_head(self.model["norm"](x_BTD))
        return logits_BTV


class _Block(nn.Module):
    def __init__(self, cfg: Model) -> None:
        super().__init__()
        width, keys = cfg.n_heads * cfg.d_head, cfg.n_kv_heads * cfg.d_head
        self.d_head, self.groups = cfg.d_head, cfg.n_heads // cfg.n_kv_heads
        self.input_layernorm = nn.RMSNorm(cfg.d_model, cfg.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(cfg.d_model, cfg.norm_eps)
        self.self_attn = nn.ModuleDict({
            "q_proj": nn.Linear(cfg.d_model, width, bias=False), "k_proj": nn.Linear(cfg.d_model, keys, bias=False),
            "v_proj": nn.Linear(cfg.d_model, keys, bias=False), "o_proj": nn.Linear(width, cfg.d_model, bias=False),
        })  # fmt: skip
        self.mlp = nn.ModuleDict({
            "gate_proj": nn.Linear(cfg.d_model, cfg.d_ff, bias=False),
            "up_proj": nn.Linear(cfg.d_model, cfg.d_ff, bias=False),
            "down_proj": nn.Linear(cfg.d_ff, cfg.d_model, bias=False),
        })  # fmt: skip

    def forward(self, x_BTD: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
        normed_BTD = self.input_layernorm(x_BTD)
        q_BNTH, k_BKTH, v_BKTH = (
            self._heads(self.self_attn[name](normed_BTD)) for name in ("q_proj", "k_proj", "v_proj")
        )
        q_BNTH, k_BKTH = _turned(q_BNTH, cos_TH, sin_TH), _turned(k_BKTH, cos_TH, sin_TH)
        k_BNTH, v_BNTH = (each.repeat_interleave(self.groups, 1) for each in (k_BKTH, v_BKTH))
        out_BNTH = F.scaled_dot_product_attention(q_BNTH, k_BNTH, v_BNTH, is_causal=True)
        x_BTD = x_BTD + self.self_attn["o_proj"](out_BNTH.transpose(1, 2).flatten(2))
        normed_BTD = self.post_attention_layernorm(x_BTD)
        inner_BTF = F.silu(self.mlp["gate_proj"](normed_BTD)) * self.mlp["up_proj"](normed_BTD)
        result_BTD: Tensor = x_BTD + self.mlp["down_proj"](inner_BTF)
        return result_BTD

    def _heads(self, x_BTE: Tensor) -> Tensor:
        return x_BTE.unflatten(-1, (-1, self.d_head)).transpose(1, 2)


def _turns(length: int, d_head: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    frequencies = theta ** (-torch.arange(0, d_head, 2, dtype=torch.float32, device=like.device) / d_head)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=like.device), frequencies)
    return angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)


def _turned(x_BNTH: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
    first, second = x_BNTH.float().chunk(2, -1)
    turned = x_BNTH.float() * cos_TH + torch.cat((-second, first), -1) * sin_TH
    return turned.to(x_BNTH.dtype)


def _mean_loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())


def compile_blocks(model: PlainDecoder, device: str) -> None:
    """Each block compiled once: one graph serves all layers."""
    for block in model.model["layers"]:
        block.forward = _compiled(block.forward, device)


def _compiled(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """torch.compile; on a CPU its tracing alone, for which no C++ compiler is needed."""
    options = {} if device == "cuda" else {"backend": "aot_eager"}
    compiled: Callable[..., Any] = torch.compile(function, dynamic=False, **options)
    return compiled


def _to_float8(model: PlainDecoder) -> None:
    """torchao's float8 training of the blocks' linear layers, its fastest recipe."""
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    config = Float8LinearConfig.from_recipe_name("tensorwise")
    convert_to_float8_training(model, config=config, module_filter_fn=lambda _module, name: "lm_head" not in name)


def _tokens(case: Case) -> Tensor:
    size = (case.micro_batch, case.sequence_length + 1)
    return torch.randint(5, case.vocab_size, size, device=case.device)
