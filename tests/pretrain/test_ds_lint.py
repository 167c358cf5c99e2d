"""DeepSpeed's traps are found, and the derived configuration has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.recipe import load_recipe
from pretrain.engine.ds_config import deepspeed_config, merged
from pretrain.engine.ds_lint import KNOWN, REMOVED, REMOVED_ZERO, Findings, lint
from tests.pretrain import world


def linted(override: dict[str, Any]) -> Findings:
    recipe = world.recipe(engine__deepspeed=override)
    return lint(deepspeed_config(recipe, 2, "cuda"), override)


def test_shipped_recipes_have_no_trap() -> None:
    for path in sorted((world.ROOT / "configs").glob("*.yaml")):
        if path.name != "base.yaml":
            recipe = load_recipe(path)
            assert lint(deepspeed_config(recipe, 8, "cuda"), recipe.engine.deepspeed) == ([], [])


@pytest.mark.parametrize(
    ("override", "where", "says"),
    [
        ({"elasticity": {"enabled": True}}, "elasticity", "gone from DeepSpeed"),
        ({"zero_optimisation": {}}, "zero_optimisation", "did you mean zero_optimization"),
        ({"train_batch_size": 32}, "train_batch_size", "phases.*.global_batch_size"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler", "lr_scheduler"),
        ({"wandb": {"enabled": True}}, "wandb", "monitor"),
        ({"data_types": {"grad_accum_dtype": "bf16"}}, "data_types.grad_accum_dtype", "lose small gradients"),
        ({"communication_data_type": "bf16"}, "communication_data_type", "summed over ranks"),
        ({"bf16": {"bf16_master_weights_and_grads": True}}, "bf16.bf16_master_weights_and_grads", "bf16 can tell"),
        ({"zero_optimization": {"stage": 2}}, "zero_optimization.stage", "must be 3"),
        ({"zero_optimization": {"mics_shard_size": 8}}, "zero_optimization.mics_shard_size", "refuses to start"),
        ({"managed_gradient_accumulation": False}, "managed_gradient_accumulation", "must be True"),
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps", "accumulates by itself"),
    ],
)
def test_a_trap_is_named_with_its_hint(override: dict[str, Any], where: str, says: str) -> None:
    (problem,) = linted(override).errors
    assert problem.field == f"engine.deepspeed.{where}"
    assert says in str(problem)


def test_what_was_never_tested_is_a_caution() -> None:
    found = linted({"zero_optimization": {"zero_hpz_partition_size": 8}})
    assert not found.errors
    assert "4851" in str(found.cautions[0])


def test_an_override_is_merged_section_by_section() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "d": {"e": 5}}) == {
        "a": {"b": 1, "c": 4},
        "d": {"e": 5},
    }
    config = deepspeed_config(world.recipe(engine__deepspeed={"zero_optimization": {"sub_group_size": 7}}), 2, "cpu")
    assert config["zero_optimization"]["sub_group_size"] == 7
    assert config["zero_optimization"]["stage"] == 3


def test_known_keys_stand_in_deepspeeds_source() -> None:
    import deepspeed

    source = "".join(path.read_text(errors="ignore") for path in Path(deepspeed.__file__).parent.rglob("*.py"))
    assert [key for key in sorted(KNOWN) if f'"{key}"' not in source and f"'{key}'" not in source] == []


def test_removed_keys_are_exactly_those_that_deepspeed_refuses() -> None:
    from deepspeed.runtime import config

    assert set(config._REMOVED_TOP_LEVEL_CONFIG_KEYS) == REMOVED
    assert set(config._REMOVED_ZERO_CONFIG_KEYS) == REMOVED_ZERO
    assert not KNOWN & REMOVED


@pytest.mark.parametrize("key", sorted(REMOVED))
def test_a_key_that_deepspeed_refuses_is_named_before_ranks_start(key: str) -> None:
    (problem,) = linted({key: {}}).errors
    assert problem.field == f"engine.deepspeed.{key}"
    assert "refuses to start" in problem.problem


def test_a_key_that_deepspeed_knows_is_accepted() -> None:
    assert linted({"managed_gradient_accumulation": True}) == ([], [])
