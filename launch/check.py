"""`twofold check`: what a valid recipe would train, without a GPU or the data.

Contract: seconds, no allocation of the model, no reading of documents. Raises `UserError` for what
the recipe alone can tell is impossible; inputs that are not here are listed, since a cluster's data
seldom lies where the recipe is written.
"""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from configs.checks import world_size
from configs.schema import Recipe
from configs.units import format_count
from pretrain.ds_config import deepspeed_config
from pretrain.model_size import flops_per_token, n_parameters
from pretrain.plan import Plan


def describe(recipe: Recipe, console: Console) -> None:
    """Print model, phases, devices, inputs and the derived DeepSpeed configuration."""
    vocab_size, model = recipe.tokenizer.vocab_size, recipe.model
    device = "cpu" if recipe.launch.device == "cpu" else "cuda"
    ranks = world_size(recipe, device)
    console.print(
        f"[bold]{recipe.name}[/bold]  {n_parameters(model, vocab_size):,} parameters, vocabulary {vocab_size:,}, "
        f"{ranks} ranks ({device})"
    )
    console.print(_phases(recipe))
    for convention in ("full", "causal"):
        flops = flops_per_token(model, vocab_size, recipe.phases[0].sequence_length, convention)
        console.print(f"  {flops / 1e9:.1f} GFLOP a token, forward and backward, {convention} attention counted")
    missing = [f"{name} ({source.path})" for name, source in recipe.sources.items() if not Path(source.path).exists()]
    console.print(f"  inputs: {len(recipe.sources) - len(missing)} of {len(recipe.sources)} sources are on this machine")
    for name in missing:
        console.print(f"    [yellow]not here[/yellow]  {name}")
    for index, phase in enumerate(recipe.phases):
        config = json.dumps(deepspeed_config(recipe, ranks, index))
        console.print(f"  [dim]DeepSpeed, phase {phase.name}: {config}[/dim]", soft_wrap=True)


def _phases(recipe: Recipe) -> Table:
    plan = Plan(recipe.phases)
    table = Table("phase", "tokens", "steps", "batch tokens", "sequence", "rate", "mixture", box=None, padding=(0, 2))
    for index, phase in enumerate(recipe.phases):
        first = plan.first_step(index)
        last = plan.at(first + phase.steps - 1)
        mixture = ", ".join(f"{name} {share:.3g}" for name, share in phase.mixture.items())
        table.add_row(
            phase.name, format_count(phase.steps * phase.batch), f"{phase.steps:,}", f"{phase.batch:,}",
            f"{phase.sequence_length:,}", f"{phase.learning_rate.peak:.3g} → {last.learning_rate:.3g}", mixture,
        )  # fmt: skip
    return table
