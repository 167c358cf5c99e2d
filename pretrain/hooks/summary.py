"""A finished training in a few numbers: the counts of the artifact's manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configs.schema import Recipe
from pretrain.data.plan import TokenCounts
from pretrain.engine.distributed import Ranks
from pretrain.hooks.metrics import METRICS_FILE, read_events
from pretrain.model.sizes import n_parameters
from pretrain.profiling.timing import device_name
from twofold import VERSION

Event = dict[str, Any]


def summarize(
    recipe: Recipe,
    out: Path,
    taken: TokenCounts,
    seconds: float,
    ranks: Ranks,
    lineage: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Counts from the metrics file, which is read once and covers all restarts, as `seconds` does."""
    found = _Found()
    for event in read_events(out / METRICS_FILE):
        found.add(event)
    assert found.last is not None, "a training that is done has steps"
    return {
        "steps": found.last["step"],
        "tokens": found.last["tokens"],
        "parameters": n_parameters(recipe.model, recipe.tokenizer.vocab_size),
        "start_bits_per_byte": found.start_bits_per_byte,
        "phases": [
            {
                "name": name,
                "tokens_by_source": by_source,
                "first_loss": found.first_loss[name],
                "last_loss": found.last_loss[name],
                "bits_per_byte": found.bits_per_byte[name],
            }
            for name, by_source in taken.by_phase.items()
            if name in found.last_loss  # imported weights may start at a later one
        ],
        "skipped_steps": found.skipped_steps,
        "skipped_tokens": sum(sum(lost.values()) for lost in taken.skipped.values()),
        "wall_time_s": round(seconds, 3),
        "tps": round(found.logged_tokens / found.logged_seconds, 1) if found.logged_seconds else None,
        "world_size": ranks.size,
        "device": ranks.device.type,
        "hardware": device_name(ranks.device),
        "made_with": made_with(),
        "lineage": list(lineage),
    }


class _Found:
    """What the summary needs of the events."""

    def __init__(self) -> None:
        self.last: Event | None = None
        self.start_bits_per_byte: dict[str, float] | None = None
        self.first_loss: dict[str, float | None] = {}
        self.last_loss: dict[str, float | None] = {}
        """By phase; the loss of a step whose update was skipped may be missing, which is None."""
        self.bits_per_byte: dict[str, dict[str, float]] = {}
        self.skipped_steps, self.logged_tokens, self.logged_seconds = 0, 0.0, 0.0

    def add(self, event: Event) -> None:
        if event["event"] == "train":
            self.last = event
            self.first_loss.setdefault(event["phase"], event["loss"])
            self.last_loss[event["phase"]] = event["loss"]
            self.skipped_steps += event["skipped"]
            if event["tps"] is not None:
                self.logged_tokens += event["tps"] * event["step_seconds"]
                self.logged_seconds += event["step_seconds"]
        elif event["event"] == "validation":
            self.start_bits_per_byte = self.start_bits_per_byte or event["bits_per_byte"]
            self.bits_per_byte[event["phase"]] = event["bits_per_byte"]


def made_with() -> dict[str, str]:
    """Versions of what decides the arithmetic."""
    return {"twofold": VERSION, **{name: version(name) for name in ("torch", "deepspeed")}}
