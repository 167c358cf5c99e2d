"""The funnel: how many documents and bytes came through, and why the rest did not.

Contract: `count` tallies one task's decisions, `gather` adds tasks up into the counts of filter's manifest,
from which a report can be drawn without opening the decisions: in all, by source, and within a source by
language: documents and UTF-8 bytes read, kept and in each split; `dropped` by first reason; `failed` by
every reason; personal data by type. `routes` counts the kept documents that each route took from its
sources. A document is in one language and one first reason only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from configs.schema import Recipe
from data_pipeline.features import pii

SPLITS = ("train", "validation")
TALLIES = tuple(f"{name}{unit}" for name in ("read", "kept", *SPLITS) for unit in ("", "_bytes"))
_REASON_TALLIES = ("dropped", "failed", "personal_information")


def count(decisions: pa.Table) -> dict[str, Any]:
    """One task's tallies (JSON values)."""
    languages: dict[str, Counter[str]] = defaultdict(Counter)
    dropped: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    names = ("language", "bytes", "reason", "reasons", "split")
    for language, size, reason, reasons, split in zip(*(decisions[name].to_pylist() for name in names), strict=True):
        tally = languages[language]
        tally.update(read=1, read_bytes=size)
        if split:
            tally.update({"kept": 1, "kept_bytes": size, split: 1, f"{split}_bytes": size})
        else:
            dropped[reason] += 1
            failed.update(reasons)
    found = {kind: pc.sum(decisions[f"pii_{kind}"]).as_py() or 0 for kind in pii.TYPES}
    kept = decisions.filter(pc.field("split").is_valid())
    destinations = Counter(kept["destination"].to_pylist())
    return {
        "languages": languages, "dropped": dropped, "failed": failed, "personal_information": found,
        "destinations": destinations,
    }  # fmt: skip


def gather(recipe: Recipe, task_counts: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """All tasks' tallies: totals, and `sources` with each source's."""
    sources = {name: _of_source(source.domain, task_counts[name]) for name, source in recipe.sources.items()}
    totals = {tally: sum(found[tally] for found in sources.values()) for tally in TALLIES}
    tasks = [task for counted in task_counts.values() for task in counted]
    routes = {
        name: {"documents": sum(task["destinations"].get(name, 0) for task in tasks)} for name in recipe.data.routes
    }
    return {**totals, "sources": sources, "routes": routes}


def _of_source(domain: str, tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    languages: dict[str, Counter[str]] = defaultdict(Counter)
    for task in tasks:
        for language, tally in task["languages"].items():
            languages[language].update(tally)
    return {
        "domain": domain,
        **{tally: sum(counted[tally] for counted in languages.values()) for tally in TALLIES},
        "languages": {
            language: {tally: counted[tally] for tally in TALLIES} for language, counted in sorted(languages.items())
        },
        **{kind: _added(task[kind] for task in tasks) for kind in _REASON_TALLIES},
    }


def _added(tallies: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum of counts, most frequent first, zeros left out."""
    total: Counter[str] = Counter()
    for tally in tallies:
        total.update(tally)
    return {name: number for name, number in sorted(total.items(), key=lambda item: (-item[1], item[0])) if number}
