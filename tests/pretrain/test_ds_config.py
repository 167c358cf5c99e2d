"""Every key of the derived configuration is one that DeepSpeed knows, and means what we mean."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import world

from configs.checks import world_size
from configs.recipe import load_recipe
from pretrain.engine.ds_config import deepspeed_config
from pretrain.model.sizes import n_parameters


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """DeepSpeed's own reading of a configuration for one rank."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.config import DeepSpeedConfig

    return lambda recipe: DeepSpeedConfig(deepspeed_config(recipe, 1, "cpu"))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_deepspeed_reads_it_as_meant(parsed, precision: str) -> None:  # type: ignore[no-untyped-def]
    recipe = world.recipe(engine__precision=precision, optimizer__max_grad_norm=0.7)
    config = parsed(recipe)
    assert config.bfloat16_config.enabled == (precision == "bf16")
    assert config.grad_accum_dtype == "fp32"
    assert config.communication_data_type is torch.float32
    assert config.gradient_clipping == 0.7
    assert config.train_micro_batch_size_per_gpu == recipe.engine.micro_batch_size
    assert config.gradient_accumulation_steps == 1
    assert config.zero_allow_untested_optimizer
    zero = config.zero_config
    assert zero.stage == 3
    assert zero.param_persistence_threshold == 1000
    assert zero.reduce_bucket_size == n_parameters(recipe.model, world.VOCAB)
    assert not zero.overlap_comm


def test_no_key_is_ignored_in_silence() -> None:
    """DeepSpeed's `known_keys` are scattered constants: look each of ours up in its source."""
    import deepspeed

    folder = Path(deepspeed.__file__).parent / "runtime"
    files = ("constants.py", "config.py", "precision_config.py")
    source = "".join((folder / name).read_text(encoding="utf-8") for name in files)
    config = deepspeed_config(world.recipe(), 2, "cuda")
    unknown = [key for key in config if f'"{key}"' not in source and f"'{key}'" not in source]
    assert unknown == []
    assert config["zero_optimization"]["overlap_comm"]


def test_buckets_follow_the_recipe_where_the_model_is_larger() -> None:
    config = deepspeed_config(world.recipe(engine__bucket_elements=5000), 2, "cpu")
    assert config["zero_optimization"]["reduce_bucket_size"] == 5000


def test_a_whole_block_is_prefetched() -> None:
    """A compiled block is gathered as one module."""
    recipe = load_recipe(world.ROOT / "configs" / "exaone3_7p8b.yaml")
    block = 4096 * (2 * 4096 + 2 * 1024) + 3 * 4096 * 14336
    assert deepspeed_config(recipe, 8, "cuda")["zero_optimization"]["stage3_prefetch_bucket_size"] == block


def test_every_shipped_recipe_has_one() -> None:
    for path in sorted((world.ROOT / "configs").glob("*.yaml")):
        if path.name == "base.yaml":
            continue
        recipe = load_recipe(path)
        ranks = world_size(recipe, "cuda")
        assert json.loads(json.dumps(deepspeed_config(recipe, ranks, "cuda")))["train_batch_size"] % ranks == 0


def test_what_check_needs_imports_neither_torch_nor_deepspeed() -> None:
    modules = ", ".join(
        f"pretrain.{name}" for name in ("data.plan", "engine.ds_config", "model.sizes", "layout", "stages.export")
    )
    code = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=world.ROOT)
    assert not {"torch", "deepspeed", "wandb", "transformers"} & set(loaded.stdout.split())
