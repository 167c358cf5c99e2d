"""Constants of the planner from a hardware profile.

Contract: pure. Reads what pretrain/profiling/hardware_profile.py wrote. On a GPU of the planner's table, rates become
shares of its datasheet; any other device becomes the device `measured` with the measured rates and shares of 1. The
time of a whole pass beyond the sum of its parts becomes `pass_factor` (the part that grows with the work) and
`micro_batch_s` (the fixed part), from passes of two sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from configs.schema import Recipe
from launch.planner import times
from launch.planner.estimate import setting_of
from launch.planner.hardware import GPUS, MEASURED_DEVICE, Constants, Gpu
from launch.planner.memory import Recompute

HARDWARE_PROFILE_FILE = "hardware_profile.json"
_RECOMPUTES: dict[Any, Recompute] = {False: "nothing", "selective": "selective", True: "blocks"}


def constants_of(recipe: Recipe, found: Mapping[str, Any]) -> Constants:
    """The constants measured by a profile of `recipe`."""
    rates = found["rates"]
    gpu = _device(found)
    where = f"pretrain.profiling.hardware_profile on {found['ranks']} x {found['device']}"
    values = {
        "matmul_share": rates["products_flops"] / gpu.peak_flops,
        "attention_share": rates["attention_flops"] / gpu.peak_flops,
        "memory_share": rates["copy_bytes_per_s"] / gpu.memory_bytes_per_s,
    }
    if "link_bytes_per_s" in rates:
        values |= {
            "link_share": rates["link_bytes_per_s"] / gpu.link_bytes_per_s,
            "collective_s": rates["collective_s"],
            "link_hop_s": 0.0,
        }
    constants = replace(Constants(), **values, device=gpu)
    factor, fixed = _pass(recipe, found, gpu, constants)
    values |= {"pass_factor": factor, "micro_batch_s": fixed, "step_s": _update_rest(recipe, found, gpu, constants)}
    return replace(constants, **values, measured=dict.fromkeys(values, where))


def _pass(recipe: Recipe, found: Mapping[str, Any], gpu: Gpu, constants: Constants) -> tuple[float, float]:
    """(measured over modelled seconds, fixed seconds) of a micro-batch."""
    seconds = {int(sequences): value for sequences, value in found["seconds"]["micro_batch"].items()}
    modelled = {sequences: modelled_pass(recipe, found["ranks"], gpu, constants, sequences) for sequences in seconds}
    small, large = min(seconds), max(seconds)
    if small == large:
        return seconds[large] / modelled[large], 0.0
    factor = (seconds[large] - seconds[small]) / (modelled[large] - modelled[small])
    fixed = seconds[large] - factor * modelled[large]
    # If the two sizes do not separate the parts, all of the time counts as growing with the work.
    return (factor, fixed) if fixed >= 0 < factor else (seconds[large] / modelled[large], 0.0)


def modelled_pass(recipe: Recipe, ranks: int, gpu: Gpu, constants: Constants, sequences: int) -> float:
    """Seconds of one micro-batch with transfers, without fixed costs."""
    recompute = _RECOMPUTES[recipe.engine.activation_checkpointing]
    setting = setting_of(recipe, ranks, gpu, sequences, recompute)
    model, vocab = recipe.model, recipe.tokenizer.vocab_size
    step = times.step_time(model, vocab, setting, gpu, constants, 1, recipe.engine.float8)
    return step.total - step.update - step.fixed


def _update_rest(recipe: Recipe, found: Mapping[str, Any], gpu: Gpu, constants: Constants) -> float:
    """Seconds of the measured update beyond the modelled one."""
    setting = setting_of(recipe, found["ranks"], gpu, 1, "nothing")
    step = times.step_time(recipe.model, recipe.tokenizer.vocab_size, setting, gpu, constants, 1, False)
    return max(0.0, float(found["seconds"]["update"]) - step.update)


def _device(found: Mapping[str, Any]) -> Gpu:
    if found["kind"] == "cuda":
        families = {name.split("-")[0] for name in GPUS}
        for family in sorted(families, key=len, reverse=True):  # a GB200's name holds that of the B200
            if family in found["device"].lower():
                alike = [gpu for name, gpu in GPUS.items() if name.split("-")[0] == family]
                return min(alike, key=lambda gpu: abs(gpu.memory_bytes - int(found["memory_bytes"])))
    rates = found["rates"]
    link = float(rates.get("link_bytes_per_s", rates["copy_bytes_per_s"]))
    return Gpu(
        name=MEASURED_DEVICE,
        memory_bytes=int(found["memory_bytes"]),
        peak_flops=rates["products_flops"],
        memory_bytes_per_s=rates["copy_bytes_per_s"],
        link_bytes_per_s=link,
        network_bytes_per_s=link,
        per_node=int(found["ranks"]),
        kind=found["kind"],
    )
