"""The planner's predictions for this machine compared with measurements.

    python -m benchmarks.planner_check [--json OUT] [--device cpu]

Profiles the trainer's engine on the smoke recipe, then predicts other shapes (layers, width, sequence, micro-batch)
from these constants and measures them. `ours` is computed, `peers` measured, `ratio` computed over measured (1 is
exact). Memory is that of state and activations, time that of a micro-batch including transfers.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import common
from configs.recipe import load_recipe
from configs.schema import Recipe
from launch.actions import gpu_plan
from launch.planner import hardware, measured, memory
from launch.planner.estimate import setting_of
from launch.planner.hardware import Constants
from twofold.root import ROOT

RECIPE = ROOT / "configs" / "smoke.yaml"
SHAPE = {"d_model": 256, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "d_ff": 768}
LENGTH, SEQUENCES = 256, 8
SHAPES = {
    "profiled": ({}, LENGTH, SEQUENCES),
    "twice the layers": ({"n_layers": 8}, LENGTH, SEQUENCES),
    "twice the width": ({"d_model": 512, "n_heads": 8, "n_kv_heads": 4, "d_ff": 1536}, LENGTH, SEQUENCES),
    "wider feed-forward": ({"d_ff": 1536}, LENGTH, SEQUENCES),
    "half the sequence": ({}, LENGTH // 2, SEQUENCES),
    "half the micro-batch": ({}, LENGTH, SEQUENCES // 2),
}


def shaped(name: str, folder: Path, device: str) -> Recipe:
    """The smoke recipe with a shape's model and micro-batch."""
    changes, length, sequences = SHAPES[name]
    model = ", ".join(f"{key}: {value}" for key, value in {**SHAPE, **changes, "max_sequence_length": LENGTH}.items())
    phases = [
        f"phases.{phase}.{key}={value}"
        for phase in ("general", "domain")
        for key, value in {"sequence_length": length, "global_batch_size": 4 * SEQUENCES * LENGTH}.items()
    ]
    engine = [f"engine.micro_batch_size={sequences}", f"launch.device={device}", f"run_dir={folder / name}"]
    return load_recipe(RECIPE, [f"model={{{model}}}", *phases, *engine])


def compare(device: str, folder: Path, repetitions: int) -> tuple[dict[str, float], dict[str, float]]:
    """(computed, measured): seconds and bytes by shape."""
    computed: dict[str, float] = {}
    real: dict[str, list[float]] = {}
    constants: Constants | None = None
    for _ in range(repetitions):
        for name in SHAPES:
            recipe = shaped(name, folder, device)
            found = gpu_plan.measure(recipe, common.CONSOLE)
            constants = constants or measured.constants_of(recipe, found)
            gpu = hardware.gpu(hardware.MEASURED_DEVICE, constants)
            sequences = recipe.engine.micro_batch_size
            setting = setting_of(recipe, found["ranks"], gpu, sequences, "nothing")
            computed[f"{name}, micro_batch_seconds"] = (
                measured.modelled_pass(recipe, found["ranks"], gpu, constants, sequences) + constants.micro_batch_s
            )
            vocab = recipe.tokenizer.vocab_size
            state = memory.state_bytes(recipe.model, vocab, setting)
            computed[f"{name}, bytes"] = sum(state.values()) + memory.activation_bytes(recipe.model, setting)
            real.setdefault(f"{name}, micro_batch_seconds", []).append(found["seconds"]["micro_batch"][str(sequences)])
            measured_bytes = sum(found["bytes"][cause] for cause in (*state, "activations"))
            real.setdefault(f"{name}, bytes", []).append(measured_bytes)
    return computed, {name: statistics.median(values) for name, values in real.items()}


def main() -> int:
    parser = common.parser("planner_check", "the planner's seconds and bytes beside this machine's")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        computed, real = compare(options.device, Path(folder), options.repetitions)
    ratios = {name: computed[name] / real[name] for name in computed}
    result = {"ours": computed, "peers": {"measured": real}, "ratio": ratios, "repetitions": options.repetitions}
    common.report("planner_check", result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
