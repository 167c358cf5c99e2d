"""Bytes on each device by cause, from the recipe's shapes and what ZeRO-3 and the kernels keep.

Contract: pure; no rounding but ZeRO-3's own padding. State (parameters, masters, gradients, moments) is exact.
Activations follow pretrain/model/decoder.py operator by operator: what autograd saves, each storage once; they equal
what torch's allocator gave on a CPU, in each way to recompute. The peak is looked for at the head's backward
pass, at each block's, and at the end; the footprint is that of the largest, and names it. Held against the
trainer's real tensors in tests/launch/test_planner_memory.py.

From DeepSpeed 0.19.8's source (runtime/zero/stage3.py): the reduce bucket has the type of communication
(float32) and its full size from the start; a bucket of several gradients is joined anew before it is reduced;
the update makes one contiguous copy of a sub-group's gradients, and the first one's is allocated at the start.
A module's weights are kept where the next use is nearer than `stage3_max_reuse_distance` parameters.

Shape letters as in pretrain/model/decoder.py: D d_model, F d_ff, Q = N x H query width, K = kv heads x H.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from configs.schema import Model
from launch.planner.hardware import Constants, Gpu
from pretrain.model.sizes import CHUNK_LOGITS

Recompute = Literal["nothing", "selective", "blocks"]
Head = Literal["plain", "kept", "recomputed"]
"""How the loss is made: all logits at once in float32; by chunks whose logits wait; by chunks made twice (head.py)."""

_REUSE_DISTANCE = 1_000_000_000
_SUB_GROUP = 1_000_000_000
"""DeepSpeed's defaults of stage3_max_reuse_distance and sub_group_size."""
_PLAIN_LOGIT_BYTES = 16
"""A logit's float32 values alive at once: softmax, its gradient, and those of the two ways that use it."""
_PLAIN_KEPT_BYTES = 4
"""What is still there of a logit while blocks go backward."""
_JOINED = 2
"""Copies of a full bucket: its gradients in a row, and the ranks' parts of them in a row."""
_EAGER_CHUNK_BYTES = 18
"""A chunk's float32 copies, a logit; compiled, there are none."""


@dataclass(frozen=True)
class Setting:
    """One way to train on one device: what decides its memory beside the model."""

    ranks: int
    sequences: int
    """Of a micro-batch."""
    sequence_length: int
    recompute: Recompute
    compiled: bool
    """Blocks by torch.compile; each is then gathered whole."""
    head: Head
    bucket_elements: int
    prefetch_elements: int
    persistence_threshold: int
    bf16: bool = True
    cpu: bool = False
    """Attention in float32, as the model does on a CPU."""
    secondary_ranks: int = 0
    """ZeRO++ hpZ: ranks that share a second copy of the weights; 0: none."""
    quantised_weights: bool = False
    quantised_gradients: bool = False

    @property
    def tokens(self) -> int:
        """Of a micro-batch."""
        return self.sequences * self.sequence_length

    @property
    def width(self) -> int:
        """Bytes of a number in the precision of training."""
        return 2 if self.bf16 else 4

    @property
    def attention_width(self) -> int:
        """The same within attention."""
        return 4 if self.cpu else self.width


@dataclass(frozen=True)
class Footprint:
    """Bytes by cause at the peak of a step."""

    causes: dict[str, int]
    moment: str
    """`head`, `block` or `end` of the backward pass."""

    @property
    def total(self) -> int:
        return sum(self.causes.values())


def parameter_sizes(cfg: Model, vocab_size: int) -> dict[str, int]:
    """Elements of every kind of parameter with its number: `name x count` in order of use."""
    queries, keys = cfg.n_heads * cfg.d_head, cfg.n_kv_heads * cfg.d_head
    block = {
        "q_proj": cfg.d_model * queries, "k_proj": cfg.d_model * keys, "v_proj": cfg.d_model * keys,
        "o_proj": queries * cfg.d_model, "gate_proj": cfg.d_model * cfg.d_ff, "up_proj": cfg.d_model * cfg.d_ff,
        "down_proj": cfg.d_ff * cfg.d_model, "input_layernorm": cfg.d_model, "post_attention_layernorm": cfg.d_model,
    }  # fmt: skip
    layers = {f"layers.{layer}.{name}": size for layer in range(cfg.n_layers) for name, size in block.items()}
    outer = vocab_size * cfg.d_model
    return {"embed_tokens": outer, **layers, "norm": cfg.d_model, "lm_head": outer}


def state_bytes(cfg: Model, vocab_size: int, setting: Setting) -> dict[str, int]:
    """What a rank holds between steps: ZeRO-3's part of each parameter is padded to an equal length."""
    sizes = parameter_sizes(cfg, vocab_size)
    part = sum(-(-size // setting.ranks) for size in sizes.values())
    kept = sum(size for size in sizes.values() if size <= setting.persistence_threshold)
    secondary = sum(-(-size // setting.secondary_ranks) for size in sizes.values()) if setting.secondary_ranks else 0
    return {
        "parameters": setting.width * (part + secondary),
        "master weights": 4 * part,  # in float32 training, too
        "gradients": 4 * part,
        "moments": 8 * part,
        "whole small parameters": setting.width * kept if setting.ranks > 1 else 0,
    }


def update_bytes(cfg: Model, vocab_size: int, setting: Setting) -> int:
    """The contiguous gradients of the largest sub-group: one of the two optimizer groups, or what it is cut into."""
    sizes = parameter_sizes(cfg, vocab_size)
    decayed = [size for name, size in sizes.items() if "norm" not in name and name != "embed_tokens"]
    plain = [size for name, size in sizes.items() if "norm" in name or name == "embed_tokens"]
    return 4 * max(_largest_sub_group([-(-size // setting.ranks) for size in group]) for group in (decayed, plain))


def _largest_sub_group(parts: list[int]) -> int:
    largest = filled = 0
    for part in parts:
        filled += part
        largest = max(largest, filled)
        filled = 0 if filled >= _SUB_GROUP else filled
    return largest


def block_bytes(cfg: Model, setting: Setting) -> int:
    """What one block keeps of a micro-batch for its backward pass, nothing recomputed."""
    return round(setting.tokens * (_compiled_block(cfg, setting) if setting.compiled else _eager_block(cfg, setting)))


def _eager_block(cfg: Model, setting: Setting) -> float:
    """Bytes a token that autograd saves, operator by operator."""
    D, F, s = cfg.d_model, cfg.d_ff, setting.width
    norm = 4 * D + 4 + s * D  # x in float32, 1 / rms, x / rms before the weight
    into = s * D  # what the norm gives to projections
    return 2 * (norm + into) + _attention(cfg, setting) + 4 * s * F  # gate, silu, up, product


def _compiled_block(cfg: Model, setting: Setting) -> float:
    """Bytes a token that a compiled block keeps: what its products take and give; the rest is made again."""
    D, F, s = cfg.d_model, cfg.d_ff, setting.width
    Q, K = cfg.n_heads * cfg.d_head, cfg.n_kv_heads * cfg.d_head
    if setting.recompute == "selective":  # the block's input, outputs of products and of attention
        return 2 * s * D + s * (Q + 2 * K) + setting.attention_width * Q + 4 * cfg.n_heads + 2 * s * F
    # Two residual streams and what the norms make of them, 1 / rms; gate, up and their product.
    return 4 * s * D + 8 + _attention(cfg, setting) + 3 * s * F


def _attention(cfg: Model, setting: Setting) -> float:
    """Bytes a token of q, k, v, the output and the log of the softmax's sum; o_proj's input where it is a copy."""
    Q, K = cfg.n_heads * cfg.d_head, cfg.n_kv_heads * cfg.d_head
    copied = setting.width * Q if setting.cpu else 0  # CUDA's kernels lay the output out as o_proj reads it
    return setting.attention_width * (2 * Q + 2 * K) + 4 * cfg.n_heads + copied


def activation_bytes(cfg: Model, setting: Setting) -> int:
    """What all blocks and the last norm keep until the backward pass reaches them."""
    if setting.recompute == "blocks":
        return cfg.n_layers * setting.tokens * setting.width * cfg.d_model + _outer_bytes(cfg, setting)
    return cfg.n_layers * block_bytes(cfg, setting) + _outer_bytes(cfg, setting)


def _outer_bytes(cfg: Model, setting: Setting) -> int:
    """The last norm, the head's input, and the rotary tables."""
    D, s = cfg.d_model, setting.width
    norm = s * D + 4 if setting.compiled else 4 * D + 4 + s * D
    return setting.tokens * (norm + s * D) + 2 * 4 * setting.sequence_length * cfg.d_head


def working_bytes(cfg: Model, setting: Setting) -> int:
    """A block's backward pass at its peak, beyond what is kept: gradients in flight, and what is made again."""
    D, F, s = cfg.d_model, cfg.d_ff, setting.width
    if setting.recompute == "selective":
        return setting.tokens * s * (4 * F + 2 * D)
    flying = 2 * s * D if setting.compiled else max(0, 2 * s * F - (4 + s) * D)
    again = block_bytes(cfg, setting) if setting.recompute == "blocks" else 0
    return again + setting.tokens * flying


def loss_bytes(cfg: Model, vocab_size: int, setting: Setting) -> int:
    """The head's backward pass: logits, their copies and gradient, and the gradient of its input."""
    tokens = setting.tokens
    if setting.head == "plain":
        return tokens * vocab_size * _PLAIN_LOGIT_BYTES
    chunk = min(tokens * vocab_size, CHUNK_LOGITS)
    copies = 0 if setting.compiled else chunk * _EAGER_CHUNK_BYTES
    logits = setting.width * (tokens * vocab_size if setting.head == "kept" else chunk)
    return logits + copies + tokens * (4 + 3 * setting.width) * cfg.d_model


def kept_logits_bytes(vocab_size: int, setting: Setting) -> int:
    """What the head's forward pass keeps: nothing where it is done again."""
    width = {"plain": 8, "kept": setting.width, "recomputed": 0}[setting.head]
    return setting.tokens * vocab_size * width


def gathered_bytes(cfg: Model, vocab_size: int, setting: Setting) -> tuple[int, int]:
    """Whole weights alive at the head's and at a block's backward pass; none where one rank has them all."""
    if setting.ranks == 1:
        return 0, 0
    head, block = vocab_size * cfg.d_model, _block_elements(cfg)
    ahead = min(max(setting.prefetch_elements, block), cfg.n_layers * block)
    # After the last blocks come head and head again; what is used within the distance is not let go.
    kept = min(cfg.n_layers, max(0, -(-(_REUSE_DISTANCE - 2 * head) // (2 * block))))
    last = max(kept * block, 0)
    at_head = min(head + last + ahead, sum(parameter_sizes(cfg, vocab_size).values()))
    return setting.width * at_head, setting.width * min(max(block, last) + ahead, head + cfg.n_layers * block)


def _block_elements(cfg: Model) -> int:
    return sum(size for name, size in parameter_sizes(cfg, 0).items() if name.startswith("layers.0."))


def footprint(cfg: Model, vocab_size: int, setting: Setting, constants: Constants, kind: str = "cuda") -> Footprint:
    """Bytes by cause at the peak."""
    # The update's copy is allocated with the engine, and free after the first step: it counts at every moment.
    held = {
        **state_bytes(cfg, vocab_size, setting), "reduce bucket": 4 * setting.bucket_elements,
        "gradients for the update": update_bytes(cfg, vocab_size, setting),
    }  # fmt: skip
    moment, peak = max(_moments(cfg, vocab_size, setting), key=lambda named: sum(named[1].values()))
    causes = held | peak
    tensors = sum(causes.values())
    if kind == "cuda":
        causes["CUDA and NCCL"] = round(
            constants.context_bytes + (constants.communicator_bytes if setting.ranks > 1 else 0)
        )
        causes["fragmentation"] = math.ceil(constants.fragmentation_share * tensors)
    return Footprint({name: size for name, size in causes.items() if size}, moment)


def _moments(cfg: Model, vocab_size: int, setting: Setting) -> Iterator[tuple[str, dict[str, int]]]:
    """What is alive beside the state as the backward pass goes: head, each block from the last, the end."""
    kept, outer = activation_bytes(cfg, setting), _outer_bytes(cfg, setting)
    a_block = (kept - outer) // cfg.n_layers
    head, block = vocab_size * cfg.d_model, _block_elements(cfg)
    gathered_head, gathered_block = gathered_bytes(cfg, vocab_size, setting)
    # A gradient larger than the bucket goes by itself, in a float32 copy.
    alone = head > setting.bucket_elements
    yield "head", {
        "activations": kept, "logits and loss": loss_bytes(cfg, vocab_size, setting), "gathered weights": gathered_head,
        "gradients in reduction": setting.width * head + (4 * head if alone else 0),
    }  # fmt: skip
    plain = setting.tokens * vocab_size * _PLAIN_KEPT_BYTES if setting.head == "plain" else 0
    fresh = setting.width * (block if setting.compiled else cfg.d_model * cfg.d_ff)
    filled = 0 if alone else head
    for behind in range(cfg.n_layers):
        sent, filled = (filled, block) if filled + block > setting.bucket_elements else (0, filled + block)
        yield "block", {
            "activations": kept - behind * a_block, "block in work": working_bytes(cfg, setting),
            "logits and loss": plain, "gathered weights": gathered_block,
            "gradients in reduction": fresh + _JOINED * 4 * sent,
        }  # fmt: skip
    yield "end", {
        "activations": outer, "logits and loss": plain, "gathered weights": gathered_block,
        "gradients in reduction": fresh + _JOINED * 4 * min(filled + head, setting.bucket_elements),
    }  # fmt: skip


def most_sequences(cfg: Model, vocab_size: int, setting: Setting, gpu: Gpu, constants: Constants) -> int:
    """Sequences a micro-batch that fit, 0 when not even one does."""
    number = 0
    while number < 1024:
        more = replace(setting, sequences=number + 1)
        if footprint(cfg, vocab_size, more, constants, gpu.kind).total > gpu.memory_bytes:
            break
        number += 1
    return number
