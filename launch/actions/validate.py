"""`twofold validate`: show what a valid recipe would train, without a GPU or the data.

Contract: seconds, no allocation of the model, no reading of documents. Raises `UserError` for what
the recipe alone can tell is impossible; inputs that are not here are listed, since a cluster's data
seldom lies where the recipe is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from configs.checks import world_size
from configs.schema import Recipe
from configs.units import format_count
from data_pipeline.readers import sources
from launch.preflight import check_start_from, choose_device
from pretrain.data.plan import Plan
from pretrain.engine.ds_config import deepspeed_config
from pretrain.model.sizes import flops_per_token, n_parameters

Facts = dict[str, Any]


def facts(recipe: Recipe) -> Facts:
    """Inputs and whether they are here; if the recipe trains, also model, phases, ranks and DeepSpeed's settings."""
    found: Facts = {"name": recipe.name, "inputs": _inputs(recipe), "training": None}
    if recipe.phases:
        if recipe.model.start_from is not None and Path(recipe.model.start_from).exists():
            check_start_from(recipe)
        device, ranks = _devices(recipe)
        vocab_size = recipe.tokenizer.vocab_size
        found["training"] = {
            "parameters": n_parameters(recipe.model, vocab_size),
            "vocab_size": vocab_size,
            "device": device,
            "ranks": ranks,
            "phases": _phases(recipe),
            "flops_per_token": flops_per_token(recipe.model, vocab_size, recipe.phases[0].sequence_length),
            "deepspeed": deepspeed_config(recipe, ranks, device),
        }
    return found


def show(found: Facts, console: Console) -> None:
    """Print the facts; the last line says whether the recipe can run here."""
    training = found["training"]
    if training:
        console.print(
            f"[bold]{found['name']}[/bold]  {training['parameters']:,} parameters, "
            f"vocabulary {training['vocab_size']:,}, {training['ranks']} ranks ({training['device']})"
        )
        _show_training(training, console)
    else:
        console.print(f"[bold]{found['name']}[/bold]  prepares data; it has no phases, so nothing is trained")
    for kind, inputs in found["inputs"].items():
        present = sum(one["present"] for one in inputs)
        console.print(f"  inputs: {present} of {len(inputs)} {kind} are on this machine")
        for one in inputs:
            if not one["present"]:
                text = escape(f"{one['name']} ({one['path']})")
                console.print(f"    [yellow]not here[/yellow]  {text}", soft_wrap=True)
    missing = sum(not one["present"] for inputs in found["inputs"].values() for one in inputs)
    if missing:
        console.print(f"[yellow]cannot run here[/yellow]: {missing} inputs are missing; the recipe has no mistake")
    else:
        console.print("[green]valid[/green]")


def _show_training(training: Facts, console: Console) -> None:
    columns = ("  phase", "tokens", "steps", "batch", "sequence", "learning rate")
    table = Table(*(Column(name, no_wrap=True) for name in columns), box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for phase in training["phases"]:
        table.add_row(
            f"  {phase['name']}",
            format_count(phase["tokens"]),
            *(f"{phase[name]:,}" for name in ("steps", "global_batch_size", "sequence_length")),
            f"{phase['schedule']} {phase['lr']:.3g} to {phase['last_lr']:.2g}",
        )
    console.print(table)
    for phase in training["phases"]:
        shares = ", ".join(f"{name} {share:.3g}" for name, share in phase["mixture"].items())
        console.print(f"  {phase['name']}: {shares}", soft_wrap=True)
    for convention, flops in training["flops_per_token"].items():
        amount = f"{flops / 1e9:.1f} G" if flops >= 1e9 else f"{flops / 1e6:.1f} M"
        console.print(f"  {amount}FLOP per token, forward and backward, {convention} attention counted")
    console.print("  DeepSpeed", style="dim")
    for name, value in training["deepspeed"].items():
        nested = value if isinstance(value, dict) else {}
        console.print(f"    {name}" + ("" if nested else f" = {json.dumps(value)}"), style="dim", markup=False)
        for key, inner in nested.items():
            console.print(f"      {key} = {json.dumps(inner)}", style="dim", markup=False)


def _devices(recipe: Recipe) -> tuple[str, int]:
    """Device and ranks: a cluster's as the recipe says, `auto` as this machine is."""
    if recipe.launch.device == "cuda":
        return "cuda", world_size(recipe, "cuda")
    return choose_device(recipe)


def _inputs(recipe: Recipe) -> dict[str, list[Facts]]:
    """Sources and benchmarks: which of them are on this machine."""
    found = {"sources": [(name, source.path, sources.exists(source)) for name, source in recipe.sources.items()]}
    if recipe.data.decontamination:
        benchmarks = recipe.data.decontamination.benchmarks
        found["benchmarks"] = [(name, path, Path(path).exists()) for name, path in benchmarks.items()]
    fields = ("name", "path", "present")
    return {kind: [dict(zip(fields, row, strict=True)) for row in rows] for kind, rows in found.items()}


def _phases(recipe: Recipe) -> list[Facts]:
    plan = Plan(recipe)
    return [
        {
            "name": phase.name,
            "tokens": phase.trained_tokens,
            "steps": phase.steps,
            "global_batch_size": phase.global_batch_size,
            "sequence_length": phase.sequence_length,
            "schedule": phase.lr_scheduler.schedule,
            "lr": phase.lr_scheduler.lr,
            "last_lr": plan.at(plan.first_step(number + 1) - 1).lr,
            "mixture": phase.mixture,
        }
        for number, phase in enumerate(recipe.phases)
    ]
