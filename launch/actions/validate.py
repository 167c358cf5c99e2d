"""`twofold validate`: show what a valid recipe would train, without a GPU or the data.

Contract: seconds, no allocation of the model, no reading of documents. Raises `UserError` for what
the recipe alone can tell is impossible; inputs that are not here are listed, since a cluster's data
seldom lies where the recipe is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from configs.checks import world_size
from configs.schema import Recipe
from configs.units import format_count
from data_pipeline.readers import sources
from launch.preflight import choose_device
from pretrain.data.plan import Plan
from pretrain.engine.ds_config import deepspeed_config
from pretrain.model.sizes import flops_per_token, n_parameters


def describe(recipe: Recipe, console: Console) -> None:
    """Print model, phases, devices, inputs and the derived DeepSpeed configuration."""
    vocab_size, model = recipe.tokenizer.vocab_size, recipe.model
    device, ranks = _devices(recipe)
    console.print(
        f"[bold]{recipe.name}[/bold]  {n_parameters(model, vocab_size):,} parameters, vocabulary {vocab_size:,}, "
        f"{ranks} ranks ({device})"
    )
    console.print(_phases(recipe))
    for phase in recipe.phases:
        shares = ", ".join(f"{name} {share:.3g}" for name, share in phase.mixture.items())
        console.print(f"  {phase.name}: {shares}", soft_wrap=True)
    for convention, flops in flops_per_token(model, vocab_size, recipe.phases[0].sequence_length).items():
        amount = f"{flops / 1e9:.1f} G" if flops >= 1e9 else f"{flops / 1e6:.1f} M"
        console.print(f"  {amount}FLOP per token, forward and backward, {convention} attention counted")
    _inputs(recipe, console)
    console.print(
        f"  DeepSpeed: {escape(json.dumps(deepspeed_config(recipe, ranks, device)))}", style="dim", soft_wrap=True
    )


def _devices(recipe: Recipe) -> tuple[str, int]:
    """Device and ranks: a cluster's as the recipe says, `auto` as this machine is."""
    if recipe.launch.device == "cuda":
        return "cuda", world_size(recipe, "cuda")
    return choose_device(recipe)


def _inputs(recipe: Recipe, console: Console) -> None:
    """Which sources and benchmarks are on this machine."""
    here = {name: (source.path, sources.exists(source)) for name, source in recipe.sources.items()}
    _list("sources", here, console)
    if recipe.data.decontamination:
        benchmarks = recipe.data.decontamination.benchmarks
        _list("benchmarks", {name: (path, Path(path).exists()) for name, path in benchmarks.items()}, console)


def _list(what: str, inputs: Mapping[str, tuple[str, bool]], console: Console) -> None:
    present = sum(exists for _, exists in inputs.values())
    console.print(f"  inputs: {present} of {len(inputs)} {what} are on this machine")
    for name, (path, exists) in inputs.items():
        if not exists:
            console.print(f"    [yellow]not here[/yellow]  {escape(f'{name} ({path})')}", soft_wrap=True)


def _phases(recipe: Recipe) -> Table:
    plan = Plan(recipe)
    columns = ("  phase", "tokens", "steps", "batch", "sequence", "learning rate")
    table = Table(*(Column(name, no_wrap=True) for name in columns), box=None, padding=(0, 2, 0, 0), pad_edge=False)
    done = 0
    for phase in recipe.phases:
        done += phase.steps
        rate = phase.lr_scheduler
        table.add_row(
            f"  {phase.name}",
            format_count(phase.trained_tokens),
            f"{phase.steps:,}",
            f"{phase.global_batch_size:,}",
            f"{phase.sequence_length:,}",
            f"{rate.schedule} {rate.lr:.3g} to {plan.at(done - 1).lr:.2g}",
        )
    return table
