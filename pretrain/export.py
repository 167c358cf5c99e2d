"""The last phase's weights -> a Llama-format folder, and what the model says to the recipe's prompts.

    model/          config.json, *.safetensors, generation_config.json, tokenizer files
    samples.json    [{"prompt", "continuation"}, …], said by our own model

Contract: the checkpoint is written tensor by tensor; only the samples need the whole model in memory,
in the exported precision, and a recipe without prompts makes none. The samples are a function of the
weights and the recipe's seed. Each new token costs one pass over the text so far (no cache).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from configs.files import atomic_path, write_json
from configs.manifest import Artifact
from configs.schema import Recipe
from pretrain import llama, stage
from pretrain.model import Decoder
from pretrain.sizes import n_parameters

CODE_VERSION: int = 1

MODEL_DIR = "model"
SAMPLES_FILE = "samples.json"
TEMPERATURE = 0.8
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def config(recipe: Recipe) -> dict[str, Any]:
    """What decides this stage's output beside its inputs."""
    last_phase = recipe.phases[-1].name
    return {"export": recipe.export.model_dump(mode="json"), "seed": recipe.seed, "last_phase": last_phase}


def build(recipe: Recipe, trained: Artifact, tokenizer: Artifact, out: Path, work: Path) -> dict[str, Any]:
    """Write the model and its samples into `out`; return the counts."""
    vocab_size = recipe.tokenizer.vocab_size
    folder = out / MODEL_DIR
    weights = trained.path / stage.weights_file(recipe.phases[-1].name)
    dtype = getattr(torch, recipe.export.dtype)
    llama.write(folder, recipe.model, vocab_size, dtype, llama.read_file(weights))
    for name in _TOKENIZER_FILES:
        if (tokenizer.path / name).exists():
            with atomic_path(folder / name) as path:
                shutil.copyfile(tokenizer.path / name, path)
    samples = _samples(recipe, folder, dtype) if recipe.export.prompts else []
    write_json(out / SAMPLES_FILE, samples)
    return {
        "parameters": n_parameters(recipe.model, vocab_size),
        "dtype": recipe.export.dtype,
        "weight_files": len(list(folder.glob("*.safetensors"))),
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "samples": len(samples),
    }


def load(recipe: Recipe, folder: Path, dtype: torch.dtype) -> Decoder:
    """Our model with the weights of a Llama-format folder."""
    with torch.device("meta"):
        model = Decoder(recipe.model, recipe.tokenizer.vocab_size)
    weights = llama.read(folder, recipe.model, recipe.tokenizer.vocab_size)
    model.load_state_dict({name: value.to(dtype) for name, value in weights}, assign=True)
    return model.eval()


@torch.no_grad()
def generate(model: Decoder, prompt: list[int], new_tokens: int, window: int, generator: torch.Generator) -> list[int]:
    """`prompt` and what the model says after it, up to `new_tokens` or the end of the document.

    Samples at TEMPERATURE; the model sees the last `window` tokens.
    """
    tokens = list(prompt)
    for _ in range(new_tokens):
        logits_BTV: Tensor = model(torch.tensor([tokens[-window:]]))
        shares_V = torch.softmax(logits_BTV[0, -1].float() / TEMPERATURE, dim=-1)
        token = int(torch.multinomial(shares_V, 1, generator=generator))
        if token == llama.EOS_ID:
            break
        tokens.append(token)
    return tokens


def _samples(recipe: Recipe, folder: Path, dtype: torch.dtype) -> list[dict[str, str]]:
    model = load(recipe, folder, dtype)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    samples = []
    for number, prompt in enumerate(recipe.export.prompts):
        generator = torch.Generator().manual_seed(recipe.seed + number)
        # A document begins after the end of another one: so does a prompt.
        start = [llama.EOS_ID, *tokenizer.encode(prompt, add_special_tokens=False).ids]
        tokens = generate(model, start, recipe.export.new_tokens, recipe.model.max_sequence_length, generator)
        samples.append({"prompt": prompt, "continuation": tokenizer.decode(tokens[len(start) :])})
    return samples
