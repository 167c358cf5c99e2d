"""Opens what training reads, and refuses inputs that do not fit together before anything is allocated.

Contract: `open_inputs` returns ready objects or raises `UserError`; it reads the index, the byte table and the
held-out windows (a few MB), and maps shards lazily. Only the first rank asks for the size of every shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.checks import batch_problem
from configs.schema import Recipe
from pretrain.data.batches import Batches, TokenStream
from pretrain.data.order import Order
from pretrain.data.plan import check_supply
from pretrain.data.validation import Validation, read_token_bytes
from pretrain.engine.distributed import Ranks
from tokenizer.shards import Index, check_files, read_index
from twofold.artifacts import MANIFEST_FILE
from twofold.errors import UserError, user_error
from twofold.files import read_json


@dataclass(frozen=True)
class Inputs:
    """Everything that training reads."""

    index: Index
    order: Order
    batches: Batches
    validation: Validation


def open_inputs(recipe: Recipe, shards: Path, tokenizer: Path, ranks: Ranks) -> Inputs:
    """The shards and the tokenizer's byte table, checked against the recipe and each other."""
    cuts = [
        batch_problem(recipe, phase, ranks.size, f"phases.{phase.name}.global_batch_size") for phase in recipe.phases
    ]
    if any(cuts):
        raise UserError([problem for problem in cuts if problem is not None])
    identity = _identity_of(tokenizer)
    # The first rank looks at every shard; hundreds of others that did so too would busy a file server for minutes.
    ranks.on_first(lambda: check_files(read_index(shards, identity)))
    index = read_index(shards, identity)
    if index.vocab_size != recipe.tokenizer.vocab_size:
        problem = f"differs from the {index.vocab_size} that the shards in {index.folder} were built with"
        raise user_error(
            "tokenizer.vocab_size", recipe.tokenizer.vocab_size, problem, "use shards and recipe of one run"
        )
    check_supply(recipe.phases, index.tokens("train"))
    order = Order(recipe.seed, recipe.phases, index.tokens("train"))
    # Every held-out source, mixed or not, so that forgetting shows as well.
    held_out = index.tokens("validation")
    validation = Validation(
        {source: TokenStream(index, "validation", source) for source in held_out},
        read_token_bytes(tokenizer, index.vocab_size),
        length=recipe.phases[0].sequence_length,
        sequences=recipe.validation.sequences_per_source,
        ranks=ranks,
    )
    return Inputs(index, order, Batches(index, order), validation)


def _identity_of(tokenizer: Path) -> str | None:
    """The artifact's identity; None for a folder that is not an artifact."""
    manifest = tokenizer / MANIFEST_FILE
    if not manifest.exists():
        return None
    identity: str = read_json(manifest)["identity"]
    return identity
