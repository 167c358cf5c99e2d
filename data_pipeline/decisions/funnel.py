"""The funnel: how many documents and bytes were kept, and why the rest was dropped.

Contract: `count` counts one task's decisions, and `gather` adds tasks up into the counts of filter's manifest, from
which a report can be drawn without opening the decisions. In total, by source, and by source and language:
documents and UTF-8 bytes read, kept and in each split. By source: `dropped` by first reason, `failed` by every
reason, personal information by type, and `no_host`, the documents whose address names no host. `routes` counts the
documents that each route keeps, and `by_host` says whether the recipe has lists of hosts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from configs.data_schema import Names
from configs.schema import Recipe
from data_pipeline.features import pii
from data_pipeline.readers import addresses

SPLITS = ("train", "validation")
TALLIES = tuple(f"{name}{unit}" for name in ("read", "kept", *SPLITS) for unit in ("", "_bytes"))
_REASON_TALLIES = ("dropped", "failed", "personal_information")


def count(decisions: pa.Table) -> dict[str, Any]:
    """The counts of one task, as JSON values."""
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
    tallies = {"dropped": dropped, "failed": failed, "personal_information": found}
    no_host = sum(not addresses.host(url or "") for url in decisions["url"].to_pylist())
    return {"languages": languages, **tallies, "destinations": destinations, "no_host": no_host}


def gather(recipe: Recipe, task_counts: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The counts of all tasks: totals, `sources` and `routes`."""
    sources = {name: _of_source(source.domain, task_counts[name]) for name, source in recipe.sources.items()}
    totals = {tally: sum(found[tally] for found in sources.values()) for tally in TALLIES}
    tasks = [task for counted in task_counts.values() for task in counted]
    routes = {
        name: {"documents": sum(task["destinations"].get(name, 0) for task in tasks)} for name in recipe.data.routes
    }
    return {**totals, "sources": sources, "routes": routes, "by_host": recipe.data.compliance.hosts != Names()}


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
        "no_host": sum(task["no_host"] for task in tasks),
    }


def _added(tallies: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of counts, most frequent first, without zeros."""
    total: Counter[str] = Counter()
    for tally in tallies:
        total.update(tally)
    return {name: number for name, number in sorted(total.items(), key=lambda item: (-item[1], item[0])) if number}
