"""How large a model is and what a token costs, by formula: no torch, nothing allocated.

Conventions of FLOPs differ between publications, so both are computed and always printed by name: `full` counts every
query-key pair of attention (Megatron, NeMo), `causal` the half that the mask keeps. Only matrix products count; a
multiply-add is two operations; the backward pass costs twice the forward one; recomputed activations are not counted
(model FLOPs utilization, PaLM, appendix B).
"""

from __future__ import annotations

from configs.schema import Model

CHUNK_LOGITS = 2**27
"""Logits that the chunked loss holds at once (linear_cross_entropy.py); the planner counts their bytes."""


def n_parameters(cfg: Model, vocab_size: int) -> int:
    """All parameters: matrices, embedding and norms."""
    norms = cfg.d_model * (2 * cfg.n_layers + 1)
    return n_matrix_parameters(cfg, vocab_size) + vocab_size * cfg.d_model + norms


def n_matrix_parameters(cfg: Model, vocab_size: int) -> int:
    """Parameters that take part in matrix products: blocks and head, not the embedding."""
    queries = cfg.n_heads * cfg.d_head
    keys = cfg.n_kv_heads * cfg.d_head
    attention = cfg.d_model * (2 * queries + 2 * keys)
    feed_forward = 3 * cfg.d_model * cfg.d_ff
    return cfg.n_layers * (attention + feed_forward) + vocab_size * cfg.d_model


def flops_per_token(cfg: Model, vocab_size: int, sequence_length: int) -> dict[str, float]:
    """Forward and backward FLOPs a trained token costs: {"full": …, "causal": …}."""
    matrices = 6 * n_matrix_parameters(cfg, vocab_size)
    attention = 12 * cfg.n_layers * cfg.n_heads * cfg.d_head * sequence_length
    return {"full": float(matrices + attention), "causal": matrices + attention / 2}
