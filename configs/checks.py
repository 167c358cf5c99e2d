"""What no single section can know: combinations across sections of a recipe.

Contract: `check_recipe` raises one `UserError` with every problem it finds, in milliseconds,
without reading a file or asking the machine. What needs the inputs or the devices is checked by
`launch.preflight`, what needs token counts by `pretrain.plan`.
"""

from __future__ import annotations

from collections.abc import Iterator

from configs.errors import Problem, UserError
from configs.schema import Phase, Recipe

BYTE_TOKENS = 256
NAMED_SPECIALS = 4
"""pad, bos, eos, unk: always there, before the reserved slots."""


def check_recipe(recipe: Recipe) -> None:
    """Raise `UserError` for every impossible combination."""
    problems = [*_phases(recipe), *_routes(recipe), *_vocabulary(recipe), *_batches(recipe)]
    if problems:
        raise UserError(problems)


def world_size(recipe: Recipe, device: str) -> int:
    """Ranks that will train on `device` (cuda or cpu)."""
    assert device in ("cuda", "cpu"), device
    launch = recipe.launch
    return launch.nodes * launch.gpus_per_node if device == "cuda" else launch.cpu_ranks


def batch_problem(recipe: Recipe, phase: Phase, ranks: int, where: str) -> Problem | None:
    """Why `phase`'s batch cannot be cut over `ranks`, or None."""
    per_pass = ranks * recipe.engine.micro_batch_sequences
    if phase.batch_sequences % per_pass == 0:
        return None
    rounded = max(1, round(phase.batch_sequences / per_pass)) * per_pass * phase.sequence_length
    return Problem(
        where,
        phase.batch,
        f"is {phase.batch_sequences} sequences, not divisible by {ranks} ranks x "
        f"{recipe.engine.micro_batch_sequences} sequences a micro-batch",
        f"use {rounded} tokens, or change engine.micro_batch_sequences",
    )


def _phases(recipe: Recipe) -> Iterator[Problem]:
    names = [phase.name for phase in recipe.phases]
    for position, phase in enumerate(recipe.phases):
        where = f"phases.{phase.name}"
        if phase.name in names[:position]:
            yield Problem(where, phase.name, "is the name of an earlier phase too", "give each phase its own name")
        for source in phase.mixture:
            if source not in recipe.destinations:
                known = ", ".join(recipe.destinations)
                yield Problem(f"{where}.mixture", source, "is neither a source nor a route", f"use one of {known}")
        if phase.sequence_length > recipe.model.max_sequence_length:
            yield Problem(
                f"{where}.sequence_length",
                phase.sequence_length,
                f"is above model.max_sequence_length {recipe.model.max_sequence_length}",
                "lower it, or raise the model's",
            )


def _routes(recipe: Recipe) -> Iterator[Problem]:
    for name, route in recipe.data.routes.items():
        where = f"data.routes.{name}"
        if name in recipe.sources:
            yield Problem(where, name, "is the name of a source too", "give the route its own name")
        for source in route.sources:
            if source not in recipe.sources:
                known = ", ".join(recipe.sources)
                yield Problem(f"{where}.sources", source, "is not one of the sources", f"use one of {known}")
        if recipe.data.classifiers.domain is None:
            yield Problem(
                where, name, "needs the domain classifier", "add data.classifiers.domain, or remove the route"
            )


def _vocabulary(recipe: Recipe) -> Iterator[Problem]:
    tokenizer = recipe.tokenizer
    fixed = NAMED_SPECIALS + tokenizer.reserved_ids + BYTE_TOKENS
    if tokenizer.vocab_size <= fixed:
        yield Problem(
            "tokenizer.vocab_size",
            tokenizer.vocab_size,
            f"leaves no room for merges beside {fixed} specials, reserved ids and bytes",
            f"use more than {fixed}, or lower tokenizer.reserved_ids",
        )
    for source in tokenizer.weights:
        if source not in recipe.destinations:
            known = ", ".join(recipe.destinations)
            yield Problem("tokenizer.weights", source, "is neither a source nor a route", f"use one of {known}")


def _batches(recipe: Recipe) -> Iterator[Problem]:
    device = recipe.launch.device
    for phase in recipe.phases:
        # `auto` is judged for the GPUs it hopes for only if they are there: launch.preflight does.
        if device == "auto":
            continue
        found = batch_problem(recipe, phase, world_size(recipe, device), f"phases.{phase.name}.batch")
        if found:
            yield found
