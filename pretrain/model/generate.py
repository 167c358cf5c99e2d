"""What a model says: our decoder, seeded sampling after training, greedy in the loop.

Contract: a function of weights, prompt and seed. Each new token costs one pass over the text so far (no
cache): right for a handful of short samples, not for serving.
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
    """The prompts of a recipe's validation, continued greedily by the model in training. Collective.

    Every rank makes the same number of passes, however its own continuation ends: ranks that differ in
    that would hang ZeRO-3.
    """

    def __init__(self, recipe: Recipe, tokenizer: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
        self._prompts = recipe.validation.prompts
        self._new_tokens = recipe.validation.new_tokens
        self._window = recipe.model.max_sequence_length

    def say(self, next_logits: NextLogits) -> list[dict[str, str]]:
        """[{"prompt", "continuation"}, …], each cut at the end of its document."""
        said = []
        for prompt in self._prompts:
            tokens = [EOS_ID, *self._tokenizer.encode(prompt, add_special_tokens=False).ids]
            start = len(tokens)
            for _ in range(self._new_tokens):
                tokens.append(int(next_logits(torch.tensor([tokens[-self._window :]])).argmax()))
            new = tokens[start:]
            new = new[: new.index(EOS_ID)] if EOS_ID in new else new
            said.append({"prompt": prompt, "continuation": self._tokenizer.decode(new)})
        return said


def samples(recipe: Recipe, folder: Path, dtype: torch.dtype) -> list[dict[str, str]]:
    """The recipe's prompts, each with what the model in `folder` (Llama-format) says after it."""
    model = load(recipe, folder, dtype)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    said = []
    for number, prompt in enumerate(recipe.export.prompts):
        generator = torch.Generator().manual_seed(recipe.seed + number)
        # A document begins after the end of another one: so does a prompt.
        start = [EOS_ID, *tokenizer.encode(prompt, add_special_tokens=False).ids]
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
        if token == EOS_ID:
            break
        tokens.append(token)
    return tokens
