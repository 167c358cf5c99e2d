"""Continuations of prompts: by a trained model with seeded sampling, and greedily during training.

Contract: a function of weights, prompt and seed. Each new token costs one pass over the text so far (there is no
cache): fine for a handful of short samples, not for serving.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from configs.schema import Recipe
from pretrain.checkpoints import llama
from pretrain.model.decoder import Decoder
from twofold.special_ids import EOS_ID

TEMPERATURE = 0.8

NextLogits = Callable[[Tensor], Tensor]
"""[1, T] tokens -> logits of the token after them, V."""


class Speaker:
    """Continues the prompts of a recipe's validation greedily with the model in training. Collective.

    Every rank makes the same number of passes, wherever its continuation ends: otherwise ZeRO-3 would hang.
    """

    def __init__(self, recipe: Recipe, tokenizer: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
        self._prompts = recipe.validation.prompts
        self._new_tokens = recipe.validation.new_tokens
        self._window = recipe.model.max_sequence_length

    def say(self, next_logits: NextLogits) -> list[dict[str, str]]:
        """[{"prompt", "continuation"}, …], each cut at the end of its document."""
        samples = []
        for prompt in self._prompts:
            tokens = [EOS_ID, *self._tokenizer.encode(prompt, add_special_tokens=False).ids]
            start = len(tokens)
            for _ in range(self._new_tokens):
                tokens.append(int(next_logits(torch.tensor([tokens[-self._window :]])).argmax()))
            new = tokens[start:]
            new = new[: new.index(EOS_ID)] if EOS_ID in new else new
            samples.append({"prompt": prompt, "continuation": self._tokenizer.decode(new)})
        return samples


def samples(recipe: Recipe, folder: Path, dtype: torch.dtype) -> list[dict[str, str]]:
    """The recipe's prompts, each with a continuation by the Llama-format model in `folder`."""
    model = load(recipe, folder, dtype)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = []
    for number, prompt in enumerate(recipe.export.prompts):
        generator = torch.Generator().manual_seed(recipe.seed + number)
        # A prompt begins where a document does: after the end of another one.
        start = [EOS_ID, *tokenizer.encode(prompt, add_special_tokens=False).ids]
        tokens = generate(model, start, recipe.export.new_tokens, recipe.model.max_sequence_length, generator)
        found.append({"prompt": prompt, "continuation": tokenizer.decode(tokens[len(start) :])})
    return found


def load(recipe: Recipe, folder: Path, dtype: torch.dtype) -> Decoder:
    """Our model with the weights of a Llama-format folder."""
    with torch.device("meta"):
        model = Decoder(recipe.model, recipe.tokenizer.vocab_size)
    weights = llama.read(folder, recipe.model, recipe.tokenizer.vocab_size)
    model.load_state_dict({name: value.to(dtype) for name, value in weights}, assign=True)
    return model.eval()


@torch.no_grad()
def generate(model: Decoder, prompt: list[int], new_tokens: int, window: int, generator: torch.Generator) -> list[int]:
    """`prompt` and its continuation, up to `new_tokens` or the end of the document.

    Samples at TEMPERATURE; the model sees the last `window` tokens.
    """
    tokens = list(prompt)
    for _ in range(new_tokens):
        logits_BTV: Tensor = model(torch.tensor([tokens[-window:]]))
        shares_V = torch.softmax(logits_BTV[0, -1].float() / TEMPERATURE, dim=-1)
        token = int(torch.multinomial(shares_V, 1, generator=generator))
        if token == EOS_ID:
            break
        tokens.append(token)
    return tokens
