"""What a trained model says: our decoder, seeded sampling.

Contract: a function of weights, prompt and seed. Each new token costs one pass over the text so far (no
cache): right for a handful of short samples, not for serving.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from configs.schema import Recipe
from pretrain import llama
from pretrain.model import Decoder

TEMPERATURE = 0.8


def samples(recipe: Recipe, folder: Path, dtype: torch.dtype) -> list[dict[str, str]]:
    """The recipe's prompts, each with what the model in `folder` (Llama-format) says after it."""
    model = load(recipe, folder, dtype)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    said = []
    for number, prompt in enumerate(recipe.export.prompts):
        generator = torch.Generator().manual_seed(recipe.seed + number)
        # A document begins after the end of another one: so does a prompt.
        start = [llama.EOS_ID, *tokenizer.encode(prompt, add_special_tokens=False).ids]
        tokens = generate(model, start, recipe.export.new_tokens, recipe.model.max_sequence_length, generator)
        said.append({"prompt": prompt, "continuation": tokenizer.decode(tokens[len(start) :])})
    return said


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
