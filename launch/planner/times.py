"""Seconds of one step on each device, by cause, from operations, bytes and transfers.

Contract: pure. A micro-batch computes (products, attention, element-wise work, the loss, accumulation of gradients)
while ZeRO-3's transfers run beside it; the part that computing cannot hide is `exposed`. A step is its
micro-batches, the update and fixed costs. Each rate is a datasheet's number times a share from `Constants`.

Sources: ZeRO-3 gathers every weight for the forward and again for the backward pass of every micro-batch, and
reduces every gradient after it (Rajbhandari et al., arXiv 1910.02054, section 7; here in float32). Ring transfers
carry (R - 1) / R of the whole through each device and take R - 1 hops. ZeRO++ (arXiv 2306.10209): hpZ gathers for
the backward pass within a node, qwZ gathers 8 bits per weight, qgZ reduces 4 bits per gradient.

Shape letters as in memory.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema import Model
from launch.planner.hardware import Constants, Gpu
from launch.planner.memory import Setting
from pretrain.model.sizes import flops_per_token, n_matrix_parameters, n_parameters

_ADAM_BYTES = 30
"""Per parameter in the update: gradient, master and moments read; master, moments and bf16 written; norm."""
_GRADIENT_BYTES, _GRADIENT_PART_BYTES = 28, 12
"""Per gradient: into the bucket, concatenated, ordered by rank; and the sum of a rank's own part."""
_EAGER = 3.0
"""Bytes that eager element-wise operators move, relative to one fused kernel each."""
_EAGER_CALLS, _COMPILED_CALLS = 9, 1
"""Gathers per block: one for each of its parameters, or one for all."""
_QUANTISED_WEIGHT_BYTES, _QUANTISED_GRADIENT_BYTES = 1.0, 0.5


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step."""

    computing: dict[str, float]
    """By cause, for all micro-batches."""
    transfers: dict[str, float]
    """By cause, for all micro-batches; mostly hidden behind computing."""
    exposed: float
    """The part of the transfers that computing cannot hide."""
    update: float
    fixed: float
    micro_batches: int

    @property
    def total(self) -> float:
        return sum(self.computing.values()) + self.exposed + self.update + self.fixed

    @property
    def causes(self) -> dict[str, float]:
        """Parts that add up to the total."""
        return {**self.computing, "transfers not hidden": self.exposed, "update": self.update, "fixed": self.fixed}


def step_time(
    cfg: Model, vocab_size: int, setting: Setting, gpu: Gpu, constants: Constants, micro_batches: int, float8: bool
) -> StepTime:
    """One step of `micro_batches` on each of `setting.ranks` devices."""
    one = computing(cfg, vocab_size, setting, gpu, constants, float8)
    moved = transfers(cfg, vocab_size, setting, gpu, constants)
    hidden = constants.overlap_share * sum(one.values()) if gpu.kind == "cuda" else 0.0
    exposed = max(0.0, sum(moved.values()) - hidden)
    parameters = n_parameters(cfg, vocab_size) / setting.ranks
    return StepTime(
        {cause: seconds * micro_batches for cause, seconds in one.items()},
        {cause: seconds * micro_batches for cause, seconds in moved.items()},
        exposed * micro_batches,
        _ADAM_BYTES * parameters / _memory_rate(gpu, constants),
        constants.micro_batch_s * micro_batches + constants.step_s,
        micro_batches,
    )


def computing(
    cfg: Model, vocab_size: int, setting: Setting, gpu: Gpu, constants: Constants, float8: bool
) -> dict[str, float]:
    """Seconds of a micro-batch's forward and backward pass by cause, without transfers."""
    tokens, rate = setting.tokens, _memory_rate(gpu, constants)
    blocks = n_matrix_parameters(cfg, 0)
    again = 8 / 6 if setting.recompute == "blocks" else 1.0
    head_again = 8 / 6 if setting.head == "recomputed" else 1.0
    full = flops_per_token(cfg, vocab_size, setting.sequence_length)["full"]
    pairs = (full - 6 * n_matrix_parameters(cfg, vocab_size)) / 2
    product_flops = gpu.peak_flops * constants.matmul_share
    block_flops = 2 * gpu.peak_flops * constants.float8_share if float8 else product_flops
    attention_again = 4 / 3 if setting.recompute == "blocks" else 1.0
    head = vocab_size * cfg.d_model * head_again
    gradient_bytes = _GRADIENT_BYTES + _GRADIENT_PART_BYTES / setting.ranks
    found = {
        "matrix products": 6 * tokens * (blocks * again / block_flops + head / product_flops),
        "attention": tokens * pairs * attention_again / (gpu.peak_flops * constants.attention_share),
        "element-wise": tokens * cfg.n_layers * elementwise_bytes(cfg, setting) / rate,
        "loss": tokens * vocab_size * (3 * setting.width if setting.compiled else 40) / rate,
        "gradients to their sums": n_parameters(cfg, vocab_size) * gradient_bytes / rate,
    }
    return {cause: seconds * constants.pass_factor for cause, seconds in found.items()}


def elementwise_bytes(cfg: Model, setting: Setting) -> float:
    """Bytes per token that a block's norms, rotary embedding, residuals and SwiGLU move, forward and backward."""
    D, F, Q, K = cfg.d_model, cfg.d_ff, cfg.n_heads * cfg.d_head, cfg.n_kv_heads * cfg.d_head
    forward = 9 * D + 2 * (Q + K) + 3 * F
    passes = 3 if setting.recompute == "nothing" else 4  # backward reads and writes twice as much
    return forward * passes * setting.width * (1.0 if setting.compiled else _EAGER)


def transfers(cfg: Model, vocab_size: int, setting: Setting, gpu: Gpu, constants: Constants) -> dict[str, float]:
    """Seconds of a micro-batch's collectives by cause, each without contention."""
    if setting.ranks == 1:
        return {}
    elements = n_parameters(cfg, vocab_size)
    calls = cfg.n_layers * (_COMPILED_CALLS if setting.compiled else _EAGER_CALLS) + 3
    weight_bytes = _QUANTISED_WEIGHT_BYTES if setting.quantised_weights else setting.width
    gradient_bytes = _QUANTISED_GRADIENT_BYTES if setting.quantised_gradients else 4
    whole = collective_s(elements * weight_bytes, calls, setting.ranks, gpu, constants)
    near = setting.secondary_ranks
    backward = collective_s(elements * setting.width, calls, near, gpu, constants) if near else whole
    buckets = max(1, -(-elements // setting.bucket_elements))
    return {
        "gather, forward": whole,
        "gather, backward": backward,
        "reduce gradients": collective_s(elements * gradient_bytes, buckets, setting.ranks, gpu, constants),
    }


def collective_s(size: float, calls: int, ranks: int, gpu: Gpu, constants: Constants) -> float:
    """Seconds in which `ranks` devices gather or reduce `size` bytes in total, in `calls` equal rings."""
    if ranks == 1:
        return 0.0
    nodes = -(-ranks // gpu.per_node)
    link = gpu.link_bytes_per_s * constants.link_share
    if nodes > 1:  # as many rings as network cards: each device's share of the node's traffic
        link = min(link, gpu.per_node * gpu.network_bytes_per_s * constants.network_share)
    hops = (ranks - nodes) * constants.link_hop_s + (nodes if nodes > 1 else 0) * constants.network_hop_s
    return size * (ranks - 1) / ranks / link + calls * (constants.collective_s + hops)


def utilisation(cfg: Model, vocab_size: int, setting: Setting, gpu: Gpu, time: StepTime) -> dict[str, float]:
    """Share of the dense bf16 peak: {"full": …, "causal": …} (pretrain/model/sizes.py has the conventions)."""
    tokens = setting.tokens * time.micro_batches
    flops = flops_per_token(cfg, vocab_size, setting.sequence_length)
    return {name: tokens * value / (gpu.peak_flops * time.total) for name, value in flops.items()}


def _memory_rate(gpu: Gpu, constants: Constants) -> float:
    return gpu.memory_bytes_per_s * constants.memory_share
