"""Checks across sections of a recipe.

Contract: `check_recipe` raises one `UserError` with every problem, in milliseconds, without reading files or
probing the machine. `launch.preflight` checks inputs and devices, `pretrain.data.plan` token counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import get_args

from configs.data_schema import Domain
from configs.phase_schema import Phase
from configs.schema import Recipe
from twofold.errors import Problem, UserError, user_error
from twofold.special_ids import SPECIAL_TOKENS

BYTE_TOKENS = 256
NAMED_SPECIALS = len(SPECIAL_TOKENS)
"""pad, bos, eos and unk, which come before the reserved slots."""


def check_recipe(recipe: Recipe) -> None:
    """Raise `UserError` for every impossible combination."""
    problems = [
        *_run_dir(recipe),
        *_phases(recipe),
        *_rates(recipe),
        *_epochs(recipe),
        *_routes(recipe),
        *_repeated_lines(recipe),
        *_vocabulary(recipe),
        *_batches(recipe),
    ]
    if problems:
        raise UserError(problems)


def _run_dir(recipe: Recipe) -> Iterator[Problem]:
    if "://" in recipe.run_dir:
        hint = "name a folder that all machines share; sources may be addresses"
        yield Problem("run_dir", recipe.run_dir, "is an address, and a run is written to a folder", hint)


def check_trains(recipe: Recipe) -> None:
    """Raise `UserError` for a recipe that only prepares data."""
    if not recipe.phases:
        raise user_error("phases", None, "is missing: this recipe only prepares data", "add `model` and `phases`")


def world_size(recipe: Recipe, device: str) -> int:
    """Ranks that will train on `device` (cuda or cpu)."""
    assert device in ("cuda", "cpu"), device
    launch = recipe.launch
    return launch.nodes * (launch.gpus_per_node if device == "cuda" else launch.cpu_ranks)


def batch_problem(recipe: Recipe, phase: Phase, ranks: int, where: str) -> Problem | None:
    """Why `phase`'s batch cannot be cut over `ranks`, or None."""
    per_pass = ranks * recipe.engine.micro_batch_size * phase.sequence_length
    for batch in phase.batches:
        if batch % per_pass:
            return Problem(
                where,
                batch,
                f"is {batch // phase.sequence_length} sequences, not divisible by {ranks} ranks x "
                f"{recipe.engine.micro_batch_size} sequences a micro-batch",
                f"use {max(1, round(batch / per_pass)) * per_pass} tokens, or change engine.micro_batch_size",
            )
    return None


def _phases(recipe: Recipe) -> Iterator[Problem]:
    names = [phase.name for phase in recipe.phases]
    for position, phase in enumerate(recipe.phases):
        where = f"phases.{phase.name}"
        if phase.name in names[:position]:
            yield Problem(where, phase.name, "is also the name of an earlier phase", "give each phase its own name")
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


def _rates(recipe: Recipe) -> Iterator[Problem]:
    """Each phase must start at the learning rate where the previous one ended, unless it re-warms or jumps."""
    for former, phase in pairwise(recipe.phases):
        rate = phase.lr_scheduler
        meets = math.isclose(former.last_rate, rate.lr, rel_tol=1e-9)
        if not (meets or rate.warmup or rate.jump):
            yield Problem(
                f"phases.{phase.name}.lr_scheduler.lr",
                rate.lr,
                f"does not match the {former.last_rate:g} that phase {former.name} ends with",
                "start from it, set lr_scheduler.warmup to re-warm, or set lr_scheduler.jump: true",
            )


def _epochs(recipe: Recipe) -> Iterator[Problem]:
    for phase in recipe.phases:
        for source in phase.max_epochs if isinstance(phase.max_epochs, dict) else ():
            if source not in phase.mixture:
                known = ", ".join(phase.mixture)
                yield Problem(
                    f"phases.{phase.name}.max_epochs", source, "is not in the phase's mixture", f"use one of {known}"
                )


def _routes(recipe: Recipe) -> Iterator[Problem]:
    for name, route in recipe.data.routes.items():
        where = f"data.routes.{name}"
        if name in recipe.sources:
            yield Problem(where, name, "is also the name of a source", "give the route its own name")
        for source in route.sources:
            if source not in recipe.sources:
                known = ", ".join(recipe.sources)
                yield Problem(f"{where}.sources", source, "is not one of the sources", f"use one of {known}")
        if recipe.data.classifiers.domain is None:
            yield Problem(
                where, name, "needs the domain classifier", "add data.classifiers.domain, or remove the route"
            )


def _repeated_lines(recipe: Recipe) -> Iterator[Problem]:
    known = (*recipe.sources, *get_args(Domain))
    for name in recipe.data.lines.repeated_stay_in if recipe.data.lines else ():
        if name not in known:
            yield Problem(
                "data.lines.repeated_stay_in",
                name,
                "is neither a source nor a domain",
                f"use one of {', '.join(known)}",
            )


def _vocabulary(recipe: Recipe) -> Iterator[Problem]:
    if not recipe.tokenizes:
        return
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
        # With `auto` the devices are known only at run time; launch.preflight checks them.
        if device == "auto":
            continue
        found = batch_problem(recipe, phase, world_size(recipe, device), f"phases.{phase.name}.global_batch_size")
        if found:
            yield found
