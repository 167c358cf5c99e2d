"""The last phase's weights -> a Llama-format folder, and what the model says to the recipe's prompts.

    model/          config.json, *.safetensors, generation_config.json, tokenizer files
    samples.json    [{"prompt", "continuation"}, …], said by our own model

Contract: the checkpoint is written tensor by tensor; only the samples need the whole model in memory,
in the exported precision, and a recipe without prompts makes none. torch is imported by `build` alone,
so that asking for this stage's identity stays cheap.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from configs.schema import Recipe
from pretrain import layout
from pretrain.model.sizes import n_parameters
from twofold.artifacts import Artifact
from twofold.files import atomic_path, write_json
from twofold.stage import From, Stage

if TYPE_CHECKING:
    from torch import Tensor

CODE_VERSION: int = 3

MODEL_DIR = "model"
SAMPLES_FILE = "samples.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_TOKENIZER_FILES = ("tokenizer.json", "special_tokens_map.json")


def config(recipe: Recipe) -> dict[str, Any]:
    """What decides this stage's output beside its inputs."""
    last_phase = recipe.phases[-1].name
    return {"export": recipe.export.model_dump(mode="json"), "seed": recipe.seed, "last_phase": last_phase}


def build(
    recipe: Recipe, trained: Annotated[Artifact, From("train")], tokenizer: Artifact, out: Path, work: Path
) -> dict[str, Any]:
    """Write the model and its samples into `out`; return the counts."""
    import torch

    from pretrain.checkpoints import llama
    from pretrain.model import generate

    folder = out / MODEL_DIR
    weights = trained.path / layout.weights_file(recipe.phases[-1].name)
    dtype = getattr(torch, recipe.export.dtype)
    write_model(recipe, llama.read_file(weights), tokenizer, folder)
    samples = generate.samples(recipe, folder, dtype) if recipe.export.prompts else []
    write_json(out / SAMPLES_FILE, samples)
    return {
        "parameters": n_parameters(recipe.model, recipe.tokenizer.vocab_size),
        "dtype": recipe.export.dtype,
        "weight_files": len(list(folder.glob("*.safetensors"))),
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "samples": len(samples),
    }


STAGE = Stage(
    name="export",
    makes="Llama-format model",
    code_version=CODE_VERSION,
    config=config,
    build=build,
    in_recipe=lambda recipe: bool(recipe.phases),
)


def write_model(recipe: Recipe, weights: Iterable[tuple[str, Tensor]], tokenizer: Artifact, folder: Path) -> None:
    """A Llama-format folder with tokenizer and generation settings, in the memory of one tensor.

    `weights` come in the model's order, as float32; they are written in the recipe's `export.dtype`.
    """
    import torch

    from pretrain.checkpoints import llama

    dtype = getattr(torch, recipe.export.dtype)
    llama.write(folder, recipe.model, recipe.tokenizer.vocab_size, dtype, weights)
    for name in _TOKENIZER_FILES:
        with atomic_path(folder / name) as path:
            shutil.copyfile(tokenizer.path / name, path)
    settings = json.loads((tokenizer.path / _TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    # Without a limit, truncation in `transformers` does nothing.
    write_json(folder / _TOKENIZER_CONFIG, {**settings, "model_max_length": recipe.model.max_sequence_length})
