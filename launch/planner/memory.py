"""Bytes on each device by cause, from the recipe's shapes and from what ZeRO-3 and the compiled blocks keep.

Contract: pure; rounds only where ZeRO-3 pads. State (parameters, master weights, gradients, moments) is exact.
Activations follow pretrain/model/decoder.py operator by operator: everything that autograd saves, each storage
once. The footprint is that of the largest peak: the head's backward pass, one block's, or the end; it names which.
tests/launch/test_planner_memory.py compares all of this with the trainer's real tensors.

From DeepSpeed 0.19.8's source (runtime/zero/stage3.py): the reduce bucket has the communication type (float32) and
its full size from the start. A bucket of several gradients is concatenated before it is reduced. The update makes
one contiguous copy of a sub-group's gradients; the first one's is allocated at the start. A module's weights stay
gathered if their next use is nearer than `stage3_max_reuse_distance` parameters.

Shape letters as in pretrain/model/decoder.py: D d_model, F d_ff, Q = N x H query width, K = kv heads x H.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from configs.schema import Model
from launch.planner.hardware import Constants
from pretrain.model.sizes import CHUNK_LOGITS

Recompute = Literal["nothing", "selective", "blocks"]
Head = Literal["plain", "kept", "recomputed"]
"""How the loss is computed (pretrain/model/linear_cross_entropy.py): all logits at once in float32; in chunks whose
logits are kept; in chunks that are recomputed."""

_REUSE_DISTANCE = 1_000_000_000
_SUB_GROUP = 1_000_000_000
"""DeepSpeed's defaults of stage3_max_reuse_distance and sub_group_size."""
_PLAIN_LOGIT_BYTES = 16
"""Per logit, the float32 values alive at once: softmax, its gradient, and those of its two uses."""
_PLAIN_KEPT_BYTES = 4
"""Per logit, what is still allocated during the blocks' backward pass."""
_JOINED = 2
"""Copies of a full bucket: its gradients concatenated, and again ordered by rank."""
_EAGER_CHUNK_BYTES = 18
"""Per logit of a chunk, its float32 copies; compiled code makes none."""


@dataclass(frozen=True)
class Setting:
    """Everything besides the model that determines one device's memory."""

    ranks: int
    sequences: int
    """Per micro-batch."""
    sequence_length: int
    recompute: Recompute
    compiled: bool
    """torch.compile runs over blocks, so that each is gathered in one call."""
    head: Head
    bucket_elements: int
    prefetch_elements: int
    persistence_threshold: int
    bf16: bool = True
    cpu: bool = False
    """Attention in float32, as the model does on a CPU."""
    secondary_ranks: int = 0
    """ZeRO++ hpZ: number of ranks that share a second copy of the weights; 0: none."""
    quantised_weights: bool = False
    quantised_gradients: bool = False

    @property
    def tokens(self) -> int:
        """Per micro-batch."""
        return self.sequences * self.sequence_length

    @property
    def width(self) -> int:
        """Bytes per number in the training precision."""
        return 2 if self.bf16 else 4

    @property
    def attention_width(self) -> int:
        """Bytes per number within attention."""
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
    """Elements of each parameter by name, in order of use."""
    D, F, Q, K = cfg.d_model, cfg.d_ff, cfg.n_heads * cfg.d_head, cfg.n_kv_heads * cfg.d_head
    block = {"q_proj": D * Q, "k_proj": D * K, "v_proj": D * K, "o_proj": Q * D}
    block |= {"gate_proj": D * F, "up_proj": D * F, "down_proj": F * D}
    block |= {"input_layernorm": D, "post_attention_layernorm": D}
    layers = {f"layers.{layer}.{name}": size for layer in range(cfg.n_layers) for name, size in block.items()}
    return {"embed_tokens": vocab_size * D, **layers, "norm": D, "lm_head": vocab_size * D}


def state_bytes(cfg: Model, vocab_size: int, setting: Setting) -> dict[str, int]:
    """What a rank holds between steps; ZeRO-3 pads each parameter so that all ranks' parts are equally long."""
    sizes = parameter_sizes(cfg, vocab_size)
    part = sum(-(-size // setting.ranks) for size in sizes.values())
    kept = sum(size for size in sizes.values() if size <= setting.persistence_threshold)
    secondary = sum(-(-size // setting.secondary_ranks) for size in sizes.values()) if setting.secondary_ranks else 0
    return {
        "parameters": setting.width * (part + secondary),
        "master weights": 4 * part,  # also in float32 training
        "gradients": 4 * part,
        "moments": 8 * part,
        "whole small parameters": setting.width * kept if setting.ranks > 1 else 0,
    }


def update_bytes(cfg: Model, vocab_size: int, setting: Setting) -> int:
    """The contiguous gradients of the largest sub-group of the two optimizer groups (with and without decay)."""
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
    """What one block keeps of a micro-batch for its backward pass without recomputation."""
    return round(setting.tokens * (_compiled_block(cfg, setting) if setting.compiled else _eager_block(cfg, setting)))


def _eager_block(cfg: Model, setting: Setting) -> float:
    """Bytes per token that autograd saves, operator by operator."""
    D, F, s = cfg.d_model, cfg.d_ff, setting.width
    norm = 4 * D + 4 + s * D  # x in float32, 1 / rms, x / rms before the weight
    into = s * D  # the norm's output, which the projections read
    return 2 * (norm + into) + _attention(cfg, setting) + 4 * s * F  # gate, silu, up, product


def _compiled_block(cfg: Model, setting: Setting) -> float:
    """Bytes per token that a compiled block keeps: inputs and outputs of its products; the rest is recomputed."""
    D, F, s = cfg.d_model, cfg.d_ff, setting.width
    Q, K = cfg.n_heads * cfg.d_head, cfg.n_kv_heads * cfg.d_head
    if setting.recompute == "selective":  # the block's input, outputs of products and attention
        return 2 * s * D + s * (Q + 2 * K) + setting.attention_width * Q + 4 * cfg.n_heads + 2 * s * F
    # Two residual streams and their norms' outputs, 1 / rms; gate, up and their product.
    return 4 * s * D + 8 + _attention(cfg, setting) + 3 * s * F


def _attention(cfg: Model, setting: Setting) -> float:
    """Bytes per token of q, k, v, the output and the log-sum-exp; also of o_proj's input if that is a copy."""
    Q, K = cfg.n_heads * cfg.d_head, cfg.n_kv_heads * cfg.d_head
    copied = setting.width * Q if setting.cpu else 0  # CUDA's kernels write the layout that o_proj reads
    return setting.attention_width * (2 * Q + 2 * K) + 4 * cfg.n_heads + copied


def activation_bytes(cfg: Model, setting: Setting) -> int:
    """What all blocks and the final norm keep until the backward pass reaches them."""
    if setting.recompute == "blocks":
        return cfg.n_layers * setting.tokens * setting.width * cfg.d_model + _outer_bytes(cfg, setting)
    return cfg.n_layers * block_bytes(cfg, setting) + _outer_bytes(cfg, setting)


def _outer_bytes(cfg: Model, setting: Setting) -> int:
    """The final norm, the head's input and the rotary tables."""
    D, s = cfg.d_model, setting.width
    norm = s * D + 4 if setting.compiled else 4 * D + 4 + s * D
    return setting.tokens * (norm + s * D) + 2 * 4 * setting.sequence_length * cfg.d_head


def working_bytes(cfg: Model, setting: Setting) -> int:
    """A block's backward pass at its peak, beyond what is kept: gradients in flight and recomputed activations."""
    D, F, s = cfg.d_model, cfg.d_ff, setting.width
    if setting.recompute == "selective":
        return setting.tokens * s * (4 * F + 2 * D)
    flying = 2 * s * D if setting.compiled else max(0, 2 * s * F - (4 + s) * D)
    again = block_bytes(cfg, setting) if setting.recompute == "blocks" else 0
    return again + setting.tokens * flying


def loss_bytes(cfg: Model, vocab_size: int, setting: Setting) -> int:
    """The head's backward pass: logits, their copies and gradient, and the gradient of the head's input."""
    tokens = setting.tokens
    if setting.head == "plain":
        return tokens * vocab_size * _PLAIN_LOGIT_BYTES
    chunk = min(tokens * vocab_size, CHUNK_LOGITS)
    copies = 0 if setting.compiled else chunk * _EAGER_CHUNK_BYTES
    logits = setting.width * (tokens * vocab_size if setting.head == "kept" else chunk)
    return logits + copies + tokens * (4 + 3 * setting.width) * cfg.d_model


def gathered_bytes(cfg: Model, vocab_size: int, setting: Setting) -> tuple[int, int]:
    """Gathered weights at the head's and at a block's backward pass; none if a single rank holds them all."""
    if setting.ranks == 1:
        return 0, 0
    head, block = vocab_size * cfg.d_model, _block_elements(cfg)
    ahead = min(max(setting.prefetch_elements, block), cfg.n_layers * block)
    # The head's forward and backward follow the last blocks; weights used again within the distance stay.
    kept = min(cfg.n_layers, max(0, -(-(_REUSE_DISTANCE - 2 * head) // (2 * block))))
    last = max(kept * block, 0)
    at_head = min(head + last + ahead, sum(parameter_sizes(cfg, vocab_size).values()))
    return setting.width * at_head, setting.width * min(max(block, last) + ahead, head + cfg.n_layers * block)


def _block_elements(cfg: Model) -> int:
    return sum(size for name, size in parameter_sizes(cfg, 0).items() if name.startswith("layers.0."))


def footprint(cfg: Model, vocab_size: int, setting: Setting, constants: Constants, kind: str = "cuda") -> Footprint:
    """Bytes by cause at the peak."""
    causes = state_bytes(cfg, vocab_size, setting)
    causes["reduce bucket"] = 4 * setting.bucket_elements
    # The update's copy is allocated with the engine and is free only after the first step: it always counts.
    causes["gradients for the update"] = update_bytes(cfg, vocab_size, setting)
    moment, peak = max(_moments(cfg, vocab_size, setting), key=lambda named: sum(named[1].values()))
    causes |= peak
    tensors = sum(causes.values())
    if kind == "cuda":
        communicators = constants.communicator_bytes if setting.ranks > 1 else 0
        causes["CUDA and NCCL"] = round(constants.context_bytes + communicators)
        causes["fragmentation"] = math.ceil(constants.fragmentation_share * tensors)
    return Footprint({name: size for name, size in causes.items() if size}, moment)


def _moments(cfg: Model, vocab_size: int, setting: Setting) -> Iterator[tuple[str, dict[str, int]]]:
    """What is allocated beside the state during the backward pass: at the head, each block from the last, the end."""
    kept, outer = activation_bytes(cfg, setting), _outer_bytes(cfg, setting)
    kept_by_block = (kept - outer) // cfg.n_layers
    head, block, bucket = vocab_size * cfg.d_model, _block_elements(cfg), setting.bucket_elements
    gathered_head, gathered_block = gathered_bytes(cfg, vocab_size, setting)
    # A gradient larger than the bucket is reduced by itself, in a float32 copy.
    alone = head > bucket
    yield (
        "head",
        {
            "activations": kept,
            "logits and loss": loss_bytes(cfg, vocab_size, setting),
            "gathered weights": gathered_head,
            "gradients in reduction": setting.width * head + (4 * head if alone else 0),
        },
    )
    plain = setting.tokens * vocab_size * _PLAIN_KEPT_BYTES if setting.head == "plain" else 0
    in_blocks = {"logits and loss": plain, "gathered weights": gathered_block}
    fresh = setting.width * (block if setting.compiled else cfg.d_model * cfg.d_ff)
    filled = 0 if alone else head
    for behind in range(cfg.n_layers):
        sent, filled = (filled, block) if filled + block > bucket else (0, filled + block)
        yield (
            "block",
            {
                **in_blocks,
                "activations": kept - behind * kept_by_block,
                "block in work": working_bytes(cfg, setting),
                "gradients in reduction": fresh + _JOINED * 4 * sent,
            },
        )
    reduced = fresh + _JOINED * 4 * min(filled + head, bucket)
    yield "end", {**in_blocks, "activations": outer, "gradients in reduction": reduced}
