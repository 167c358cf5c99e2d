"""`twofold export`, `merge` and `inspect-batch`: use a run's checkpoints, finished or not.

Contract: reads the training folder of exactly this recipe (the artifact, or the one in progress) and never
writes there. Checkpoints are compared with their manifests, byte by byte, before use.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from configs.schema import Recipe
from launch.runner import existing
from launch.stages import stage_named
from pretrain import layout
from pretrain.checkpoints.manifest import committed, step_of, verified
from tokenizer.gguf import fields as gguf_fields
from twofold.artifacts import Artifact, partial_dir
from twofold.errors import user_error

GGUF_FILE = "model.gguf"


def export(recipe: Recipe, step: int | None, out: Path, gguf: bool, console: Console) -> None:
    """Write one checkpoint (default: the newest) as a Llama-format folder, with `gguf` as a GGUF file in it too.

    The end of a finished training gets a model card.
    """
    made, folder = training_folder(recipe)
    fields = gguf_fields(made["tokenizer"].path) if gguf else {}  # refuse before the weights are written
    found = _committed(folder)
    chosen = found[-1] if step is None else _of_step(found, step)
    _write(recipe, [chosen], made["tokenizer"], out, console)
    if "train" in made and chosen == found[-1]:
        from launch.reports import write as write_page
        from launch.reports.report import model_card

        write_page(out / "README.md", model_card(recipe, made, out))
        console.print(f"  {out / 'README.md'}: model card; add the license under which you publish")
    if gguf:
        from pretrain.checkpoints.gguf import write as write_gguf

        write_gguf(out / GGUF_FILE, out, recipe.model, recipe.tokenizer.vocab_size, recipe.export.dtype, fields)
        console.print(f"  {out / GGUF_FILE}: the same for llama.cpp and Ollama")


def merge(recipe: Recipe, last: int, out: Path, console: Console) -> None:
    """Write the mean of the last checkpoints as a Llama-format folder."""
    made, folder = training_folder(recipe)
    found = _committed(folder)
    if not 1 <= last <= len(found):
        raise user_error(
            "--last",
            last,
            f"does not fit the {len(found)} checkpoints of {folder}",
            f"use 1 to {len(found)}, or keep more with checkpoints.keep",
        )
    _write(recipe, found[-last:], made["tokenizer"], out, console)


def inspect_batch(recipe: Recipe, number: int, as_json: bool, console: Console) -> None:
    """Name the documents in the batch of a step, counted from 1."""
    from pretrain.data import provenance as tracing
    from pretrain.data.order import Order
    from pretrain.data.plan import Plan
    from tokenizer.shards import read_index

    plan = Plan(recipe)
    if not 1 <= number <= plan.total_steps:
        raise user_error(
            "--step", number, f"is not among the plan's {plan.total_steps} steps", "count steps from 1, as the log does"
        )
    made = existing(recipe)
    if "shards" not in made:
        raise user_error(
            "run_dir", recipe.run_dir, "has no token shards of this recipe", "run `twofold tokenize RECIPE` first"
        )
    step = plan.at(number - 1)
    index = read_index(made["shards"].path)
    spans = tracing.documents(index, Order(recipe.seed, recipe.phases, index.tokens("train")), step)
    if as_json:
        rows = [span.as_json() for span in spans]
        print(json.dumps({"step": number, "phase": recipe.phases[step.phase].name, "documents": rows}))
        return
    table = Table("row", "source", "pass", "document", "tokens", "of shard", box=None, pad_edge=False)
    for span in spans:
        place = f"{span.shard}#{span.document}"
        table.add_row(str(span.row), span.source, str(span.epoch + 1), span.id, f"{span.first}-{span.end - 1}", place)
    console.print(f"step {number}: {step.sequences} sequences of {step.sequence_length} tokens, {len(spans)} pieces")
    console.print(table)
    console.print("  why a document was kept: twofold explain RECIPE DOC_ID", style="dim")


def training_folder(recipe: Recipe) -> tuple[dict[str, Artifact], Path]:
    """The recipe's artifacts and its training folder, finished or in progress."""
    made = existing(recipe)
    if "train" in made:
        return made, made["train"].path
    if "shards" in made:
        folder = partial_dir(Path(recipe.run_dir), stage_named("train", recipe).specify(recipe, made))
        if (folder / layout.CHECKPOINTS_DIR).exists():
            return made, folder
    raise user_error("run_dir", recipe.run_dir, "holds no training of this recipe", "run `twofold run RECIPE` first")


def _committed(folder: Path) -> list[Path]:
    found = committed(folder / layout.CHECKPOINTS_DIR)
    if not found:
        raise user_error(str(folder), None, "has no committed checkpoint yet", "wait for the first one")
    return found


def _of_step(found: Sequence[Path], step: int) -> Path:
    by_step = {step_of(path): path for path in found}
    if step not in by_step:
        steps = ", ".join(map(str, by_step))
        raise user_error("--step", step, f"has no checkpoint; the steps with one are {steps}", "name one of them")
    return by_step[step]


def _write(recipe: Recipe, checkpoints: Sequence[Path], tokenizer: Artifact, out: Path, console: Console) -> None:
    from pretrain.checkpoints import merge as averaging
    from pretrain.stages.export import write_model

    states: list[Any] = [verified(path) for path in checkpoints]
    write_model(recipe, averaging.weights(recipe, checkpoints), tokenizer, out)
    steps = ", ".join(str(state.step) for state in states)
    console.print(f"  {out}: weights of step {steps}, {recipe.export.dtype}, Llama format")
