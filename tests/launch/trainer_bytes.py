"""Bytes that the trainer really holds on a CPU, by case, as JSON: `python trainer_bytes.py OUT`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path

from configs.recipe import load_recipe
from configs.schema import Recipe
from pretrain.model.backends import Kernels

LENGTH, SEQUENCES = 256, 4
SHAPE = (
    "model={d_model: 256, n_layers: 6, n_heads: 8, n_kv_heads: 2, d_ff: 768, max_sequence_length: 512}",
    f"phases.general.sequence_length={LENGTH}",
    f"phases.domain.sequence_length={LENGTH}",
    f"engine.micro_batch_size={SEQUENCES}",
)
_PLAIN = ("engine.backend=plain",)  # without the float32 copies that CPUs without AVX-512 keep
_CHUNKED = Kernels(losses="kept")
CASES: dict[str, tuple[tuple[str, ...], Kernels | None]] = {
    "plain": (_PLAIN, None),
    "float32": (("engine.precision=fp32",), None),
    "blocks recomputed": ((*_PLAIN, "engine.activation_checkpointing=true"), None),
    "head in chunks": ((), _CHUNKED),
    "head in chunks, made twice": ((), replace(_CHUNKED, losses="recomputed")),
    "compiled": ((), replace(_CHUNKED, compiler="inductor")),
    "compiled, selective": (
        ("engine.activation_checkpointing=selective",),
        replace(_CHUNKED, compiler="inductor", recompute="selective"),
    ),
}


def load_case(name: str) -> tuple[Recipe, Kernels | None]:
    overrides, kernels = CASES[name]
    root = Path(__file__).parents[2]
    return load_recipe(root / "configs" / "smoke.yaml", [*SHAPE, *overrides]), kernels


def main(out: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "DS_ACCELERATOR": "cpu",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    from pretrain.engine.deepspeed_adapter import start_ranks
    from pretrain.engine.zero3 import Engine
    from pretrain.profiling import hardware_profile

    ranks = start_ranks("cpu")
    found = {}
    for name in CASES:
        recipe, kernels = load_case(name)
        if kernels and kernels.compiler and shutil.which("g++") is None:
            continue
        engine = Engine(recipe, ranks, kernels)
        engine.set_initial_weights()
        found[name] = hardware_profile.memory(recipe, engine, LENGTH)
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
