"""The planner's bytes against the trainer's own tensors, on a CPU, in every way to recompute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.recipe import load_recipe
from configs.schema import Recipe
from launch.planner import memory
from launch.planner.hardware import Constants
from launch.planner.memory import Setting
from pretrain.engine.ds_config import deepspeed_config
from pretrain.model.backends import Kernels
from pretrain.model.decoder import parameter_shapes
from tests.conftest import ROOT
from tests.launch.trainer_bytes import CASES, LENGTH, SEQUENCES, load_case

STATE = ("parameters", "master weights", "gradients", "moments", "reduce bucket")


def _setting(recipe: Recipe, kernels: Kernels | None) -> Setting:
    zero = deepspeed_config(recipe, 1, "cpu")["zero_optimization"]
    recompute = {False: "nothing", "selective": "selective", True: "blocks"}[recipe.engine.activation_checkpointing]
    return Setting(
        ranks=1,
        sequences=SEQUENCES,
        sequence_length=LENGTH,
        recompute=recompute,  # type: ignore[arg-type]
        compiled=bool(kernels and kernels.compiler),
        head=kernels.losses if kernels else "plain",
        bucket_elements=zero["reduce_bucket_size"],
        prefetch_elements=zero["stage3_prefetch_bucket_size"],
        persistence_threshold=zero["stage3_param_persistence_threshold"],
        bf16=recipe.engine.precision == "bf16",
        cpu=True,
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Case -> what the trainer holds; in a process of its own, as DeepSpeed changes torch's functions."""
    out = tmp_path_factory.mktemp("bytes") / "bytes.json"
    script = Path(__file__).with_name("trainer_bytes.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(out)]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    loaded: dict[str, Any] = json.loads(out.read_text())
    return loaded


@pytest.mark.parametrize("case", CASES)
def test_bytes_are_those_of_the_trainer(measured: dict[str, Any], case: str) -> None:
    """State to the byte; activations within 1 %, the peak within 5 %."""
    if case not in measured:
        pytest.skip("no C++ compiler for torch's inductor here")
    real, (recipe, kernels) = measured[case], load_case(case)
    model, vocab, setting = recipe.model, recipe.tokenizer.vocab_size, _setting(recipe, kernels)
    state = {**memory.state_bytes(model, vocab, setting), "reduce bucket": 4 * setting.bucket_elements}
    if recipe.engine.precision == "fp32":
        real["master weights"] = state["master weights"]  # one storage with the parameters in it
    assert {name: real[name] for name in STATE} == {name: state[name] for name in STATE}
    assert memory.activation_bytes(model, setting) == pytest.approx(real["activations"], rel=0.01)
    kept_logits = setting.tokens * vocab * {"plain": 8, "kept": setting.width, "recomputed": 0}[setting.head]
    assert kept_logits == pytest.approx(real["loss"], rel=0.01, abs=32_768)
    causes = memory.footprint(model, vocab, setting, Constants(), "cpu").causes
    held = {*memory.state_bytes(model, vocab, setting), "reduce bucket", "gradients for the update"}
    peak = sum(size for name, size in causes.items() if name not in held)
    assert peak == pytest.approx(real["peak"], rel=0.05)


def test_parameters_are_the_models_own() -> None:
    recipe = load_recipe("configs/exaone3_7p8b.yaml")
    sizes = memory.parameter_sizes(recipe.model, recipe.tokenizer.vocab_size)
    shapes = parameter_shapes(recipe.model, recipe.tokenizer.vocab_size)
    assert sorted(sizes.values()) == sorted(_elements(shape) for shape in shapes.values())
    whole = memory.state_bytes(recipe.model, recipe.tokenizer.vocab_size, _h100(1))
    assert whole["moments"] == 8 * 7_818_448_896
    parted = memory.state_bytes(recipe.model, recipe.tokenizer.vocab_size, _h100(512))
    assert 512 * parted["moments"] == pytest.approx(whole["moments"], rel=1e-4)
    assert 512 * parted["moments"] >= whole["moments"]


def _elements(shape: tuple[int, ...]) -> int:
    number = 1
    for side in shape:
        number *= side
    return number


def _h100(ranks: int, **changes: Any) -> Setting:
    return replace(Setting(ranks, 2, 4096, "nothing", True, "kept", 500_000_000, 218_103_808, 100_000), **changes)


def test_more_of_anything_takes_more_and_recomputing_takes_less() -> None:
    recipe = load_recipe("configs/exaone3_7p8b.yaml")

    def total(**changes: Any) -> int:
        setting = _h100(changes.pop("ranks", 64), **changes)
        return memory.footprint(recipe.model, recipe.tokenizer.vocab_size, setting, Constants()).total

    assert total(ranks=8) > total(ranks=64) > total(ranks=512)
    assert total(sequences=1) < total(sequences=2) < total(sequences=4)
    assert total() > total(recompute="selective") > total(recompute="blocks", head="recomputed")
    assert total(compiled=False, head="plain") > total()
    assert total(secondary_ranks=8) > total()
