"""The second peer: transformers' LlamaForCausalLM under DeepSpeed ZeRO-3, as its users set it up.

Contract: the model is made by transformers inside ZeRO-3's own context (`HfDeepSpeedConfig`); DeepSpeed's
configuration is the one that transformers' documentation gives for ZeRO-3, its "auto" values filled in as the
Trainer fills them; AdamW is the Trainer's default (torch's fused one). It sums gradients in bf16, DeepSpeed's
default, where ours sums them in float32: that is in its favour, in time and in memory. Training is a bare
loop, faster than the Trainer's; tokens are drawn on the device before the clock starts.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks import gpu_cases
from benchmarks.gpu_cases import Case
from benchmarks.gpu_device import Memory
from benchmarks.gpu_plain import CLIP, LEARNING_RATE


def measure(case: Case, peak_tflops: float | None) -> dict[str, Any]:
    """Figures of the case: median seconds of whole steps, the device waited for at the end of each."""
    memory = Memory(case.device)
    torch.manual_seed(0)
    engine = _engine(case)
    size = (case.micro_batch, case.sequence_length)
    batches = [torch.randint(5, case.vocab_size, size, device=case.device) for _ in range(case.accumulation)]
    seconds, losses = [], []
    for _ in range(case.all_steps):
        begin = time.perf_counter()
        total = torch.zeros((), device=case.device)
        for tokens in batches:
            loss = engine(input_ids=tokens, labels=tokens, use_cache=False).loss
            engine.backward(loss)
            engine.step()
            total += loss.detach() / len(batches)
        losses.append(float(total))
        if case.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    figures = gpu_cases.figures(case, seconds[-case.steps :], peak_tflops)
    return {"case": case.as_json(), "losses": losses, "gradient_sums": "bf16", **figures, **memory.peaks()}


def _engine(case: Case) -> Any:
    import deepspeed
    import deepspeed.ops
    from transformers import AutoModelForCausalLM, LlamaConfig
    from transformers.integrations import HfDeepSpeedConfig

    if case.device == "cpu":
        # DeepSpeed would compile a shared-memory collective with the user's C++ compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("nccl" if case.device == "cuda" else "gloo")
    config = zero3(case)
    kept = HfDeepSpeedConfig(config)  # transformers asks for it as long as it lives
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(**_shape(case)), dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    if case.recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    fused = torch.optim.AdamW(model.parameters(), LEARNING_RATE, (0.9, 0.95), 1e-8, 0.1, fused=True)
    engine, *_ = deepspeed.initialize(model=model, optimizer=fused, config=config)
    engine.hf_deepspeed_config = kept
    return engine


def zero3(case: Case) -> dict[str, Any]:
    """DeepSpeed's configuration of transformers' ZeRO-3 guide, "auto" as its Trainer fills it."""
    width = case.model().d_model
    return {
        "bf16": {"enabled": True}, "gradient_clipping": CLIP, "steps_per_print": 10**9,
        "train_micro_batch_size_per_gpu": case.micro_batch, "gradient_accumulation_steps": case.accumulation,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": 3, "overlap_comm": True, "contiguous_gradients": True, "sub_group_size": 10**9,
            "reduce_bucket_size": width * width, "stage3_prefetch_bucket_size": int(0.9 * width * width),
            "stage3_param_persistence_threshold": 10 * width, "stage3_max_live_parameters": 10**9,
            "stage3_max_reuse_distance": 10**9,
        },
    }  # fmt: skip


def _shape(case: Case) -> dict[str, Any]:
    model = case.model()
    return {
        "vocab_size": case.vocab_size, "hidden_size": model.d_model, "intermediate_size": model.d_ff,
        "num_hidden_layers": model.n_layers, "num_attention_heads": model.n_heads,
        "num_key_value_heads": model.n_kv_heads, "max_position_embeddings": model.max_sequence_length,
        "rms_norm_eps": model.norm_eps, "tie_word_embeddings": False,
    }  # fmt: skip
