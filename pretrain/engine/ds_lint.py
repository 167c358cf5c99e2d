"""DeepSpeed's traps in the configuration that it will be given.

Contract: pure, importable without deepspeed. `lint` returns what must not be (`errors`) and what has not been tested
(`cautions`), each with its hint. The derived configuration has neither; a recipe's `engine.deepspeed` is merged into
it first. Written for DeepSpeed 0.19.8; tests compare the known and the removed keys with its source.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from twofold.errors import Problem

_WHERE = "engine.deepspeed"
KNOWN = frozenset(
    """
    activation_checkpointing aio autotuning bf16 bfloat16 checkpoint comms_logger communication_data_type
    compile csv_monitor data_efficiency data_types dataloader_drop_last disable_allgather
    disable_python_gc dump_state flops_profiler fp16 gradient_allreduce_op gradient_accumulation_steps
    gradient_clipping gradient_predivide_factor managed_gradient_accumulation memory_breakdown pipeline
    prescale_gradients seq_parallel_communication_data_type steps_per_print log_level tensor_parallel
    tensorboard timers torch_autocast train_batch_size train_micro_batch_size_per_gpu
    use_data_before_expert_parallelism use_node_local_storage wall_clock_breakdown wandb weight_quantization
    zero_allow_untested_optimizer zero_force_ds_cpu_optimizer zero_optimization
    """.split()  # noqa: SIM905
)
"""Top-level keys that 0.19.8 reads; it ignores others in silence."""
REMOVED = frozenset(
    """
    amp compression_training curriculum_learning eigenvalue elasticity graph_harvesting nebula
    progressive_layer_drop quantize_training sparse_attention sparse_gradients
    """.split()  # noqa: SIM905
)
"""Top-level keys on which 0.19.8 refuses to start."""
REMOVED_ZERO = frozenset(("mics_hierarchical_params_gather", "mics_shard_size", "zeropp_loco_param"))
"""The same, within zero_optimization."""
_OURS = {
    "optimizer": "use the recipe's section `optimizer`",
    "scheduler": "use phases.*.lr_scheduler: DeepSpeed's scheduler does not advance on a skipped step",
    "train_batch_size": "use phases.*.global_batch_size",
    "train_micro_batch_size_per_gpu": "use engine.micro_batch_size",
    "gradient_clipping": "use optimizer.max_grad_norm",
    "wandb": "use the section `monitor`: DeepSpeed's takes no run id and cannot resume",
    "tensorboard": "use the section `monitor`",
    "csv_monitor": "use metrics.jsonl",
    "fp16": "use engine.precision bf16 or fp32",
}
_UNTESTED_ZERO = {
    "zero_hpz_partition_size": "wrong losses were reported (DeepSpeed issues 4851, 7164, 6926)",
    "zero_quantized_weights": "it changes the weights that every rank computes with",
    "zero_quantized_gradients": "it changes the gradients",
    "offload_optimizer": "checkpoints have not been tried with it",
    "offload_param": "checkpoints have not been tried with it",
}


class Findings(NamedTuple):
    errors: list[Problem]
    cautions: list[Problem]


def lint(config: Mapping[str, Any], override: Mapping[str, Any]) -> Findings:
    """Check `config`, into which the user's `override` was merged."""
    return Findings([*_keys(override), *_values(config)], list(_untested(config)))


def _keys(override: Mapping[str, Any]) -> Iterator[Problem]:
    for key, value in override.items():
        where = f"{_WHERE}.{key}"
        if key in REMOVED:
            yield Problem(where, value, "is gone from DeepSpeed 0.19, which refuses to start with it", "remove it")
        elif key in _OURS:
            yield Problem(where, value, "is derived from the recipe", _OURS[key])
        elif key not in KNOWN:
            near = difflib.get_close_matches(key, KNOWN, n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            yield Problem(where, value, "is unknown to DeepSpeed, which would ignore it", hint)
    zero = override.get("zero_optimization")
    zero = zero if isinstance(zero, Mapping) else {}
    for key in sorted(REMOVED_ZERO & set(zero)):
        where = f"{_WHERE}.zero_optimization.{key}"
        yield Problem(where, zero[key], "is gone from DeepSpeed 0.19, which refuses to start with it", "remove it")


def _values(config: Mapping[str, Any]) -> Iterator[Problem]:
    wanted: tuple[tuple[str, Any, str], ...] = (
        ("gradient_accumulation_steps", 1, "phases differ in batch size, so the trainer accumulates by itself"),
        ("managed_gradient_accumulation", True, "the trainer marks the last micro-batch of a step by itself"),
        ("data_types.grad_accum_dtype", "fp32", "sums in bf16 lose small gradients (DeepSpeed issues 2352, 2768)"),
        ("communication_data_type", "fp32", "gradients are summed over ranks in it"),
        ("zero_optimization.stage", 3, "checkpoints and initialisation are made for ZeRO-3"),
        ("bf16.bf16_master_weights_and_grads", False, "weight updates are smaller than bf16 can tell"),
        ("bf16.check_grad_overflow", True, "a gradient that is not finite must be dropped by all ranks alike"),
    )
    for path, value, reason in wanted:
        found = _at(config, path)
        if found is not None and found != value:
            yield Problem(f"{_WHERE}.{path}", found, f"must be {value}: {reason}", "remove it")


def _untested(config: Mapping[str, Any]) -> Iterator[Problem]:
    zero = config.get("zero_optimization", {})
    for key, reason in _UNTESTED_ZERO.items():
        if zero.get(key) not in (None, False, 1):
            where, hint = f"{_WHERE}.zero_optimization.{key}", "compare losses with and without it before a long run"
            yield Problem(where, zero[key], f"is untested here: {reason}", hint)


def _at(tree: Mapping[str, Any], path: str) -> Any:
    value: Any = tree
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value
