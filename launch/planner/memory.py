"""Bytes on each device by cause, from the recipe's shapes and what ZeRO-3 and the kernels keep.

Contract: pure; no rounding but ZeRO-3's own padding. State (parameters, masters, gradients, moments) is exact.
Activations follow pretrain/model.py operator by operator: what autograd saves, each storage once. A step has
three moments that can be the peak: the head's backward pass, a block's backward pass, the update; the
footprint is that of the largest, and names it. Held against the trainer's real tensors in
tests/launch/test_planner_memory.py.

From DeepSpeed 0.19.8's source (runtime/zero/stage3.py): the reduce bucket has the type of communication
(float32) and its full size from the start; a bucket of several gradients is joined anew before it is reduced;
the update makes one contiguous copy of a sub-group's gradients, and the first one's is allocated at the start.
A module's weights are kept where the next use is nearer than `stage3_max_reuse_distance` parameters.

Shape letters as in pretrain/model.py: D d_model, F d_ff, Q = N x H query width, K = kv heads x H.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from configs.schema import Model
from launch.planner.hardware import Constants, Gpu

Recompute = Literal["nothing", "selective", "blocks"]
Head = Literal["plain", "kept", "recomputed"]
"""How the loss is made: all logits at once in float32; by chunks whose logits wait; by chunks made twice (head.py)."""

CHUNK_LOGITS = 2**27
"""Largest chunk of the chunked heads (pretrain/head.py)."""
_REUSE_DISTANCE = 1_000_000_000
_SUB_GROUP = 1_000_000_000
"""DeepSpeed's defaults of stage3_max_reuse_distance and sub_group_size."""
_PLAIN_LOGIT_BYTES = 16
"""A logit's float32 values alive at once: softmax, its gradient, and those of the two ways that use it."""
_EAGER_CHUNK_BYTES, _COMPILED_CHUNK_BYTES = 18, 4
"""A chunk's float32 copies, a logit (head.py measured the eager way with eight chunks)."""


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


@dataclass(frozen=True)
class Footprint:
    """Bytes by cause at the peak of a step."""

    causes: dict[str, int]
    moment: str
    """`head`, `block` or `update`."""

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
    D, F, Q = cfg.d_model, cfg.d_ff, cfg.n_heads * cfg.d_head
    s = setting.width
    norm = 4 * D + 4 + (s * D if setting.bf16 else 4 * D)  # x in float32, 1 / rms, x / rms before the weight
    into = s * D  # what the norm gives to projections
    return 2 * (norm + into) + _attention(cfg, setting) + s * Q + 4 * s * F  # o_proj's input; gate, silu, up, product


def _compiled_block(cfg: Model, setting: Setting) -> float:
    """Bytes a token that a compiled block keeps: its inputs and the products; what lies between is made again."""
    D, F = cfg.d_model, cfg.d_ff
    s = setting.width
    return 2 * s * D + 2 * 4 + _attention(cfg, setting) + 2 * s * F  # two residual streams, 1 / rms; gate and up


def _attention(cfg: Model, setting: Setting) -> float:
    """Bytes a token of q, k, v, the output and the log of the softmax's sum."""
    Q, K = cfg.n_heads * cfg.d_head, cfg.n_kv_heads * cfg.d_head
    width = 4 if setting.cpu else setting.width
    return width * (2 * Q + 2 * K) + 4 * cfg.n_heads


def activation_bytes(cfg: Model, setting: Setting) -> int:
    """What all blocks and the last norm keep until the backward pass reaches them."""
    if setting.recompute == "blocks":
        return cfg.n_layers * setting.tokens * setting.width * cfg.d_model + _outer_bytes(cfg, setting)
    return cfg.n_layers * block_bytes(cfg, setting) + _outer_bytes(cfg, setting)


def _outer_bytes(cfg: Model, setting: Setting) -> int:
    """The last norm, the head's input, token ids, and the rotary tables."""
    D, s = cfg.d_model, setting.width
    norm = 2 * s * D + 4 if setting.compiled else 4 * D + 4 + s * D
    return setting.tokens * (norm + s * D + 2 * 8) + 2 * 4 * setting.sequence_length * cfg.d_head


def working_bytes(cfg: Model, setting: Setting) -> int:
    """A block's backward pass beside what was kept: gradients of its widest tensors, and what is made again."""
    again = block_bytes(cfg, setting) if setting.recompute == "blocks" else 0
    return again + setting.tokens * setting.width * (3 * cfg.d_ff + 3 * cfg.d_model)


def loss_bytes(cfg: Model, vocab_size: int, setting: Setting) -> int:
    """The head's backward pass: logits, their copies and gradient, and the gradient of its input."""
    tokens = setting.tokens
    if setting.head == "plain":
        return tokens * vocab_size * _PLAIN_LOGIT_BYTES
    chunk = min(tokens * vocab_size, CHUNK_LOGITS)
    copies = chunk * (_COMPILED_CHUNK_BYTES if setting.compiled else _EAGER_CHUNK_BYTES)
    logits = setting.width * (tokens * vocab_size if setting.head == "kept" else chunk)
    return logits + copies + 4 * tokens * cfg.d_model


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


def reduced_bytes(cfg: Model, vocab_size: int, setting: Setting) -> tuple[int, int]:
    """Gradients on their way out, at the head and at a block: as they come, and joined for the reduction."""
    head, block = vocab_size * cfg.d_model, _block_elements(cfg)
    fits = max(1, setting.bucket_elements // block) * block
    joined = 4 * min(fits, setting.bucket_elements, cfg.n_layers * block)
    fresh = block if setting.compiled else cfg.d_model * cfg.d_ff
    # A gradient larger than the bucket goes by itself, in a float32 copy.
    alone = 4 * head if head > setting.bucket_elements else 0
    return setting.width * head + alone, setting.width * fresh + joined


def footprint(cfg: Model, vocab_size: int, setting: Setting, constants: Constants, kind: str = "cuda") -> Footprint:
    """Bytes by cause at the peak."""
    state = state_bytes(cfg, vocab_size, setting)
    bucket = 4 * setting.bucket_elements
    # Allocated with the engine and free after the first update: it counts at every moment of the first step.
    update = update_bytes(cfg, vocab_size, setting)
    at_head, at_block = gathered_bytes(cfg, vocab_size, setting)
    out_head, out_block = reduced_bytes(cfg, vocab_size, setting)
    kept = activation_bytes(cfg, setting)
    moments = {
        "head": {"activations": kept, "logits and loss": loss_bytes(cfg, vocab_size, setting),
                 "gathered weights": at_head, "gradients in reduction": out_head},
        "block": {"activations": kept, "block in work": working_bytes(cfg, setting),
                  "gathered weights": at_block, "gradients in reduction": out_block},
        "update": {},
    }  # fmt: skip
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    causes = {
        **{name: size for name, size in state.items() if size},
        "reduce bucket": bucket, "gradients for the update": update, **moments[moment],
    }  # fmt: skip
    tensors = sum(causes.values())
    if kind == "cuda":
        causes["CUDA and NCCL"] = round(
            constants.context_bytes + (constants.communicator_bytes if setting.ranks > 1 else 0)
        )
        causes["fragmentation"] = math.ceil(constants.fragmentation_share * tensors)
    return Footprint({name: size for name, size in causes.items() if size}, moment)


def most_sequences(cfg: Model, vocab_size: int, setting: Setting, gpu: Gpu, constants: Constants) -> int:
    """Sequences a micro-batch that fit, 0 when not even one does."""
    number = 0
    while number < 1024:
        more = replace(setting, sequences=number + 1)
        if footprint(cfg, vocab_size, more, constants, gpu.kind).total > gpu.memory_bytes:
            break
        number += 1
    return number
