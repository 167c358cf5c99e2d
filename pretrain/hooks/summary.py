"""A finished training in a few numbers: the counts of the artifact's manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.schema import Recipe
from pretrain.data.plan import TokenCounts
from pretrain.engine.distributed import Ranks
from pretrain.hooks.metrics import METRICS_FILE, read_events
from pretrain.model.sizes import n_parameters

Event = dict[str, Any]


def summarize(
    recipe: Recipe,
    out: Path,
    taken: TokenCounts,
    seconds: float,
    ranks: Ranks,
    lineage: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Counts from the metrics file, which covers all restarts, as `seconds` does."""
    events = read_events(out / METRICS_FILE)
    steps = [event for event in events if event["event"] == "train"]
    checks = [event for event in events if event["event"] == "validation"]
    step_seconds = sum(event["step_seconds"] for event in steps)
    return {
        "steps": steps[-1]["step"],
        "tokens": steps[-1]["tokens"],
        "parameters": n_parameters(recipe.model, recipe.tokenizer.vocab_size),
        "start_bits_per_byte": checks[0]["bits_per_byte"],
        "phases": [
            _phase(name, by_source, steps, checks)
            for name, by_source in taken.by_phase.items()
            if any(event["phase"] == name for event in steps)  # imported weights may start at a later one
        ],
        "skipped_steps": sum(event["skipped"] for event in steps),
        "skipped_tokens": sum(sum(lost.values()) for lost in taken.skipped.values()),
        "wall_time_s": round(seconds, 3),
        "tps": round(sum(e["tps"] * e["step_seconds"] for e in steps) / step_seconds, 1),
        "world_size": ranks.size,
        "device": ranks.device.type,
        "lineage": list(lineage),
    }


def _phase(name: str, tokens_by_source: dict[str, int], steps: list[Event], checks: list[Event]) -> Event:
    losses = [event["loss"] for event in steps if event["phase"] == name]
    return {
        "name": name,
        "tokens_by_source": tokens_by_source,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "bits_per_byte": [event["bits_per_byte"] for event in checks if event["phase"] == name][-1],
    }
