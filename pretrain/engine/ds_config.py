"""Recipe -> DeepSpeed's configuration, the only place where its keys are written.

Contract: pure, and importable without deepspeed and torch, so that `twofold validate` prints exactly what a cluster
will run. DeepSpeed 0.19.8 ignores unknown top-level keys in silence; a test checks every key against its own
configuration classes.

What is deliberate:
    accumulation   DeepSpeed is given single micro-batches, and `zero3.Engine` accumulates. Phases differ in batch
                   size, but DeepSpeed finds the boundary by counting micro-batches modulo one number.
    float32 sums   gradients are reduced and accumulated in float32; DeepSpeed's default is the parameters' bf16,
                   which loses small contributions (DeepSpeed issues 2352, 2768).
    buckets        never larger than the model, since DeepSpeed allocates a whole one at start.
    prefetch       at least one decoder block: a compiled block is gathered as a whole, and training waits for what is
                   not prefetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.schema import Recipe
from pretrain.model.sizes import n_matrix_parameters, n_parameters


def deepspeed_config(recipe: Recipe, world_size: int, device: str) -> dict[str, Any]:
    """DeepSpeed's configuration for `world_size` ranks on `device` (cuda or cpu)."""
    assert device in ("cuda", "cpu"), device
    engine = recipe.engine
    bucket = min(engine.bucket_elements, n_parameters(recipe.model, recipe.tokenizer.vocab_size))
    block = n_matrix_parameters(recipe.model, vocab_size=0) // recipe.model.n_layers
    derived: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": engine.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "train_batch_size": engine.micro_batch_size * world_size,
        "gradient_clipping": recipe.optimizer.max_grad_norm,
        "bf16": {"enabled": engine.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": 3,
            # A CPU has one stream, so there is nothing to overlap.
            "overlap_comm": device == "cuda",
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": bucket,
            "stage3_prefetch_bucket_size": max(bucket // 10, block),
            "stage3_param_persistence_threshold": engine.persistence_threshold,
        },
        "wall_clock_breakdown": False,
    }
    return merged(derived, engine.deepspeed)


def merged(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `override` replaced, section by section."""
    found = dict(base)
    for key, value in override.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = merged(found[key], value) if both else value
    return found
