"""Whether a recipe goes on from a checkpoint: what decided the weights so far must be the same. No torch.

Contract: the identity of a training at step N is its data, tokenizer, imported weights, seed, model, optimizer and
arithmetic, and the first N steps of its plan: batches, mixtures, learning rates and loss settings, compared step by
step by their values. More tokens, a further phase, another rate in a phase that has not begun, another micro-batch,
cadence or limit concern the future only. `problems` names every part of the past that a recipe would change; the ways
out are to train anew (`--fresh`) and to start another run from the checkpoint (`twofold branch`).

Cost: if the phases are written alike, nothing; otherwise some microseconds for every trained step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from configs.phase_schema import Phase
from configs.recipe import load_recipe
from configs.schema import Recipe
from pretrain import layout
from pretrain.checkpoints.manifest import RECIPE_FILE, State
from pretrain.data.plan import Schedule, Step
from tokenizer.shards import INDEX_FILE, Index
from twofold.errors import Problem
from twofold.files import sha256_of

_HINT = (
    "undo the change, train anew with `twofold run RECIPE --fresh`, or start another run from a checkpoint with "
    "`twofold branch RECIPE --from RUN run_dir=NEW`"
)
_FIELDS = {"sequences": "global_batch_size", "first_sample": "global_batch_size", "lr": "lr_scheduler"}
"""Field of a step -> the recipe's field that decides it, where the names differ."""
_OF_PHASE = ("name", "sequence_length", "mixture", "mixture_block_size", "z_loss", "intra_document_masking")


def identity(recipe: Recipe, index: Index, start_from: str | None = None) -> dict[str, Any]:
    """What decides the weights, by part, as JSON values; `start_from`: the hash of imported weights."""
    data = {"data": sha256_of(index.folder / INDEX_FILE), "tokenizer": index.tokenizer_identity}
    return {**data, "start_from": start_from, **layout.past(recipe)}


def saved_identity(path: Path, state: State) -> dict[str, Any]:
    """The identity of a checkpoint; one of format 2 has its values in its recipe."""
    if not isinstance(state.identity.get("phases"), str):
        return dict(state.identity)
    recipe = layout.past(load_recipe(path / RECIPE_FILE))
    return {"data": state.identity["data"], "tokenizer": state.identity["tokenizer"], **recipe}


def problems(path: Path, saved: Mapping[str, Any], current: Mapping[str, Any], done: int) -> list[Problem]:
    """What `current` would change in the first `done` steps of the training that saved the checkpoint `path`."""
    found = [
        Problem(str(path), None, f"was trained with {name} {was!r}, and this recipe has {now!r}", _HINT)
        for part in current
        if part != "phases" and part in saved
        for name, was, now in _differences(part, saved[part], current[part])
    ]
    # As text, since the order of a mixture's sources decides the order of the data.
    if "phases" in current and json.dumps(current["phases"]) != json.dumps(saved["phases"]):
        old, new = ([Phase.model_validate(phase) for phase in one["phases"]] for one in (saved, current))
        found += [Problem(str(path), None, text, _HINT) for text in _of_plan(Schedule(old), Schedule(new), done)]
    return found


def _differences(name: str, was: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, former value, present value) of every difference."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*was, *now)):
            yield from _differences(f"{name}.{key}", was.get(key), now.get(key))
    elif was != now:
        yield name, was, now


def _of_plan(old: Schedule, new: Schedule, done: int) -> Iterator[str]:
    """The first difference within the first `done` steps of two plans."""
    if done > new.total_steps:
        yield f"is of step {done}, and this recipe's plan ends at step {new.total_steps}"
        return
    for number, phase in enumerate(old.phases):
        first = old.first_step(number)
        if first >= done:
            return
        other = new.phases[number]
        alike = old.phases[: number + 1] == new.phases[: number + 1]
        if alike and list(phase.mixture) == list(other.mixture):
            continue
        for name in _OF_PHASE:
            was, now = getattr(phase, name), getattr(other, name)
            if (list(was.items()) != list(now.items())) if isinstance(was, dict) else was != now:
                yield f"was trained with phases.{phase.name}.{name} {was!r}, and this recipe has {now!r}"
                return
        steps = range(first, min(done, first + phase.steps))
        if text := next((text for step in steps if (text := _of_step(old.at(step), new.at(step), old.phases))), None):
            yield text
            return


def _of_step(was: Step, now: Step, phases: Sequence[Phase]) -> str | None:
    for field in fields(Step):
        before, after = getattr(was, field.name), getattr(now, field.name)
        if before != after:
            name = f"phases.{phases[was.phase].name}.{_FIELDS.get(field.name, 'tokens')}"
            where = f"step {was.index + 1} had {field.name} {before}, and now has {after}"
            return f"was trained with another {name}: {where}"
    return None
