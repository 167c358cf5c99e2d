"""The page of a plan: tokens, learning rate, batch and mixture by step.

Contract: reads only the recipe; given the sources' training tokens, the page also shows the epochs over each source.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from configs.schema import Recipe
from configs.units import format_count
from launch import reports
from launch.reports import plots
from pretrain.data.order import Order, quotas
from pretrain.data.plan import Plan
from tokenizer.shards import read_index
from twofold.artifacts import Artifact

_POINTS = 600
"""Steps at which curves are drawn, in addition to the borders of segments and phases."""


def write(recipe: Recipe, path: Path, supply: Mapping[str, int]) -> Path:
    """Write the page; return its path."""
    return reports.write(path, render(recipe, supply))


def render(recipe: Recipe, supply: Mapping[str, int]) -> str:
    """The page as HTML; `supply` has the training tokens of each source, or nothing if there are no shards yet."""
    steps = Plan(recipe)
    marked = [steps.at(index) for index in _drawn(recipe, steps)]
    tokens = [step.tokens_before for step in marked]
    bounds = bands(recipe)
    names = list(dict.fromkeys(name for phase in recipe.phases for name in phase.mixture))
    batches, rates = [step.tokens for step in marked], [step.lr for step in marked]
    shares = {name: [recipe.phases[step.phase].mixture.get(name, 0.0) for step in marked] for name in names}
    figures = {
        "Learning rate": plots.lines({"rate": (tokens, rates)}, "tokens", "learning rate", bounds, 2.6),
        "Batch": plots.lines({"batch": (tokens, batches)}, "tokens", "tokens per step", bounds, 2.2, from_zero=True),
        "Mixture": plots.areas(tokens, shares, "tokens", "share of the tokens", bounds),
    }
    cards = [(format_count(steps.total_tokens), "tokens"), (f"{steps.total_steps:,}", "steps")]
    cards += [(str(len(recipe.phases)), "phases"), (str(len(names)), "sources")]
    return reports.render(
        "plan.html",
        recipe=recipe,
        cards=cards,
        phases=[phase_row(recipe, number) for number in range(len(recipe.phases))],
        mixtures=mixture_rows(recipe, supply),
        figures={title: Markup(figure) for title, figure in figures.items()},
    )


def bands(recipe: Recipe) -> list[plots.Band]:
    """The tokens at which each phase starts and ends."""
    ends = itertools.accumulate((phase.trained_tokens for phase in recipe.phases), initial=0)
    ranges = zip(itertools.pairwise(ends), recipe.phases, strict=True)
    return [(float(start), float(end), phase.name) for (start, end), phase in ranges]


def _drawn(recipe: Recipe, steps: Plan) -> list[int]:
    total = steps.total_steps
    spread = {round(n * (total - 1) / (_POINTS - 1)) for n in range(_POINTS)}
    borders = {
        steps.first_step(number) + segment.first_step
        for number, phase in enumerate(recipe.phases)
        for segment in phase.segments
    }
    return sorted(spread | borders | {max(0, border - 1) for border in borders})


def phase_row(recipe: Recipe, number: int) -> dict[str, str]:
    phase, steps = recipe.phases[number], Plan(recipe)
    first, last = steps.first_step(number), steps.first_step(number + 1) - 1
    rate = phase.lr_scheduler
    return {
        "phase": phase.name,
        "tokens": format_count(phase.trained_tokens),
        "steps": f"{phase.steps:,}",
        "sequences": f"{phase.samples:,}",
        "batch": " → ".join(f"{batch:,}" for batch in phase.batches),
        "length": f"{phase.sequence_length:,}",
        "schedule": rate.schedule + (f", {rate.decay_type}" if rate.schedule == "wsd" else ""),
        "learning rate": f"{steps.at(first).lr:.1e} → {rate.lr:.3g} → {steps.at(last).lr:.1e}",
        "z-loss": f"{phase.z_loss:g}",
        "documents": "masked" if phase.intra_document_masking else "joined",
    }


def mixture_rows(recipe: Recipe, supply: Mapping[str, int]) -> list[dict[str, str]]:
    """A row per phase and source: its exact share, its tokens, its epochs by the phase's end."""
    rows = []
    order = Order(recipe.seed, recipe.phases, supply) if supply else None
    for number, phase in enumerate(recipe.phases):
        exact = quotas(phase)
        for name, share in phase.mixture.items():
            row = {
                "phase": phase.name,
                "source": name,
                "share": f"{share:.4f}",
                "sequences per block": f"{exact[name]} of {phase.mixture_block_size}",
                "tokens": format_count(round(share * phase.trained_tokens)),
                "epochs by its end": f"{order.tokens_taken(name, number) / supply[name]:.2f}" if order else "–",
                "allowed": f"{phase.epochs_allowed(name):g}",
            }
            rows.append(row)
    return rows


def supply_of(shards: Artifact) -> dict[str, int]:
    """Training tokens by source."""
    return read_index(shards.path).tokens("train")
