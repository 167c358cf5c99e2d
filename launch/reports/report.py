"""`report.html`: the run on one page, drawn from manifests, metrics and samples.

Contract: self-contained, without scripts or network access, which its content policy also forbids; all text is
escaped, since documents and samples are hostile input. `build` declares the artifacts that the page reads; no
documents are read. Takes seconds.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from configs.recipe import dump_recipe
from configs.schema import Recipe
from configs.units import format_bytes, format_count
from launch import reports
from launch.progress import format_seconds, number
from launch.reports import plan, plots
from pretrain import goodput
from pretrain.hooks.metrics import METRICS_FILE, read_events
from pretrain.model.sizes import n_parameters
from twofold import VERSION
from twofold.artifacts import Artifact, git_revision
from twofold.stage import Stage

CODE_VERSION = 3
_REASONS_DRAWN = 8
_REASONS_LISTED = 3
_PII_POLICIES = {"mask": "masked", "drop": "dropped with its document", "keep": "kept"}
_DRAWN = ("event", "tokens", "loss", "lr", "grad_norm", "tps", "bits_per_byte")
Row = dict[str, Any]


def config(recipe: Recipe) -> dict[str, Any]:
    """The parts of the recipe that the page quotes."""
    return {"name": recipe.name, "personal_information": recipe.data.personal_information}


def build(
    recipe: Recipe,
    out: Path,
    classifiers: Artifact | None,
    extract: Artifact,
    score: Artifact,
    dedup: Artifact,
    decontaminate: Artifact | None,
    filter: Artifact,
    write: Artifact,
    tokenizer: Artifact,
    shards: Artifact,
    train: Artifact,
    export: Artifact,
) -> Mapping[str, Any]:
    """Draw the page; most artifacts are read for their counts and lineage only."""
    data = (classifiers, extract, score, dedup, decontaminate, filter, write)
    read = [artifact for artifact in (*data, tokenizer, shards, train, export) if artifact]
    return write_page(recipe, {artifact.manifest.stage: artifact for artifact in read}, out)


STAGE = Stage(
    name="report",
    makes="report.html",
    code_version=CODE_VERSION,
    config=config,
    build=build,
    in_recipe=lambda recipe: bool(recipe.phases),
)


def write_page(recipe: Recipe, artifacts: Mapping[str, Artifact], out: Path) -> Mapping[str, Any]:
    """Write `report.html`; return its counts."""
    train = [_drawn(event) for event in read_events(artifacts["train"].path / METRICS_FILE)]
    page = reports.render(
        "report.html",
        recipe=recipe,
        trained_phases=[phase["name"] for phase in artifacts["train"].counts["phases"]],
        version=VERSION,
        revision=git_revision(),
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cards=_cards(recipe, artifacts),
        funnel=_funnel(artifacts["filter"].counts),
        rejects=_listed(reports.summed(artifacts["extract"].counts, "rejects")),
        pii=_listed(reports.summed(artifacts["filter"].counts, "personal_information")),
        pii_policy=_PII_POLICIES[recipe.data.personal_information],
        compression=_compression(artifacts["tokenizer"].counts),
        shards=_shards(recipe, artifacts),
        validation=_validation(recipe, artifacts),
        groups=_groups(recipe, artifacts),
        samples=json.loads((artifacts["export"].path / "samples.json").read_text(encoding="utf-8")),
        training_note=_training_note(artifacts["train"].counts),
        times=_times(artifacts["train"].path),
        resolved=dump_recipe(_without_environment(recipe)),
        lineage=[_lineage_row(name, artifact) for name, artifact in artifacts.items()],
        figures={name: Markup(svg) for name, svg in _figures(recipe, artifacts, train).items()},
    )
    reports.write(out / "report.html", page)
    return {"bytes": len(page.encode("utf-8")), "training_events": len(train)}


def _drawn(event: Row) -> Row:
    """What the figures show of an event; a long training has millions of them."""
    return {name: event[name] for name in _DRAWN if name in event}


def _times(train: Path) -> list[Row]:
    """Seconds by cause since the first launch; none for a training of an earlier version."""
    starts = goodput.read(train)
    spent = goodput.account(starts, starts[-1].time, 0) if starts else {}
    total = sum(spent.values())
    return [
        {"cause": cause, "time": format_seconds(ns / 1e9), "share": ns / total} for cause, ns in spent.items() if ns
    ]


def _without_environment(recipe: Recipe) -> Recipe:
    """Variables may hold secrets, and a report is shared."""
    return recipe.model_copy(update={"launch": recipe.launch.model_copy(update={"environment": {}})})


def model_card(recipe: Recipe, artifacts: Mapping[str, Artifact], folder: Path) -> str:
    """README.md of a model in `folder`, for a model hub: Markdown with the hub's metadata."""
    counts, decontaminate = artifacts["filter"].counts, artifacts.get("decontaminate")
    found = json.loads((decontaminate.path / "benchmarks.json").read_text("utf-8")) if decontaminate else {}
    licenses = {name: source.license for name, source in recipe.sources.items()}
    policy = recipe.data.decontamination.policy if recipe.data.decontamination else "report"
    return reports.render(
        "hub_card.md",
        recipe=recipe,
        folder=Markup(json.dumps(str(folder), ensure_ascii=False)),
        version=VERSION,
        prompt=Markup(json.dumps(next(iter(recipe.export.prompts), "대한민국의"), ensure_ascii=False)),
        parameters=format_count(n_parameters(recipe.model, recipe.tokenizer.vocab_size)),
        phases=[phase["name"] for phase in artifacts["train"].counts["phases"]],
        training_note=_training_note(artifacts["train"].counts),
        shards=_shards(recipe, artifacts),
        licenses={name: licenses.get(name, "those of its sources") for name in recipe.destinations},
        funnel=_funnel(counts),
        pii=_listed(reports.summed(counts, "personal_information")),
        pii_policy=_PII_POLICIES[recipe.data.personal_information],
        benchmarks=found,
        contaminated_policy="dropped" if policy == "drop" else "kept",
        compression=_compression(artifacts["tokenizer"].counts),
        validation=_validation(recipe, artifacts),
    )


def _cards(recipe: Recipe, artifacts: Mapping[str, Artifact]) -> list[tuple[str, str]]:
    funnel = _funnel(artifacts["filter"].counts)
    trained = artifacts["train"].counts
    read, kept = (sum(row[key] for row in funnel) for key in ("read", "kept"))
    return [
        (f"{kept:,} of {read:,}", "documents kept"),
        (f"{recipe.tokenizer.vocab_size:,}", "token ids"),
        (format_count(n_parameters(recipe.model, recipe.tokenizer.vocab_size)), "parameters"),
        (format_count(trained["tokens"]), "tokens trained"),
        (number(trained["phases"][-1]["last_loss"], ".3f"), "final loss"),
        (number(trained["tps"], ",.0f"), "tokens per second"),
    ]


def _funnel(counts: Mapping[str, Any]) -> list[Row]:
    return [
        {
            "source": source,
            "read": row["read"],
            "kept": row["kept"],
            "share": row["kept"] / max(1, row["read"]),
            "size": format_bytes(row["kept_bytes"]),
            "dropped": row["dropped"],
            "reasons": _listed(row["dropped"], _REASONS_LISTED),
        }
        for source, row in counts["sources"].items()
    ]


def _listed(numbers: Mapping[str, int], most: int = 20) -> str:
    """`near duplicate (3), words < 30 (2)`: the largest numbers first."""
    largest = sorted((item for item in numbers.items() if item[1]), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{_in_words(name)} ({count:,})" for name, count in largest[:most])


def _in_words(reason: str) -> str:
    """`words<30` -> `words < 30`, `near_duplicate` -> `near duplicate`."""
    return re.sub(r"\s*([<>]=?)\s*", r" \1 ", reason).replace("_", " ")


def _compression(counts: Mapping[str, Any]) -> list[Row]:
    return [{"language": language, **numbers} for language, numbers in counts["held_out"].items()]


def _shards(recipe: Recipe, artifacts: Mapping[str, Artifact]) -> list[Row]:
    index = json.loads((artifacts["shards"].path / "index.json").read_text(encoding="utf-8"))["splits"]
    taken = {phase["name"]: phase["tokens_by_source"] for phase in artifacts["train"].counts["phases"]}
    return [
        {
            "source": source,
            "domain": entry["domain"],
            "tokens": entry["tokens"],
            "documents": entry["documents"],
            "held_out": index["validation"].get(source, {"tokens": 0})["tokens"],
            "epochs": [by_source.get(source, 0) / max(1, entry["tokens"]) for by_source in taken.values()],
        }
        for source, entry in index["train"].items()
    ]


def _validation(recipe: Recipe, artifacts: Mapping[str, Artifact]) -> list[Row]:
    """Bits per byte before training and at the end of each phase; general sources first."""
    counts = artifacts["train"].counts
    start, phases = counts["start_bits_per_byte"], counts["phases"]
    rows = []
    for source, first in start.items():
        ends = [phase["bits_per_byte"][source] for phase in phases]
        before = ends[-2] if len(ends) > 1 else first
        domain = recipe.destinations[source]
        change = None if None in (ends[-1], before) else ends[-1] - before
        rows.append({"source": source, "domain": domain, "start": first, "ends": ends, "change": change})
    return sorted(rows, key=lambda row: (row["domain"] != "general", row["domain"], row["source"]))


def _groups(recipe: Recipe, artifacts: Mapping[str, Artifact]) -> list[Row]:
    """Mean bits per byte of the general and of the expert sources, and their change per million tokens."""
    counts = artifacts["train"].counts
    phases = counts["phases"]
    millions = [sum(phase["tokens_by_source"].values()) / 1e6 for phase in phases]
    groups: dict[str, list[str]] = {}
    for source in counts["start_bits_per_byte"]:
        kind = "general" if recipe.destinations[source] == "general" else "expert domains"
        groups.setdefault(kind, []).append(source)
    rows = []
    for kind, sources in groups.items():
        means = [
            _mean([table[source] for source in sources])
            for table in (counts["start_bits_per_byte"], *(phase["bits_per_byte"] for phase in phases))
        ]
        changes = [
            None if after is None or before is None else (after - before) / size
            for before, after, size in zip(means, means[1:], millions, strict=False)
        ]
        rows.append({"group": kind, "start": means[0], "phases": list(zip(means[1:], changes, strict=True))})
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    """None if a value is missing: the mean of the others would be of other sources."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _training_note(counts: Mapping[str, Any]) -> str:
    made_with = ", ".join(f"{name} {version}" for name, version in counts.get("made_with", {}).items())
    versions = f" Trained with {made_with}." if made_with else ""
    branches = [f" Branched at step {one['step']:,} from {one['run']}." for one in counts.get("lineage", ())]
    return (
        f"{counts['steps']:,} steps on {counts['world_size']} ranks ({counts.get('hardware', counts['device'])}), "
        f"{format_count(counts['tokens'])} tokens in {counts['wall_time_s']:,.0f} s.{versions}" + "".join(branches)
    )


def _lineage_row(name: str, artifact: Artifact) -> Row:
    manifest = artifact.manifest
    return {
        "stage": name,
        "identity": manifest.identity[:12],
        "inputs": ", ".join(f"{source} {identity[:8]}" for source, identity in manifest.inputs.items()),
        "files": len(manifest.files),
        "size": format_bytes(sum(entry.bytes for entry in manifest.files)),
        "seconds": manifest.made_by.get("seconds", "–"),
        "made_by": f"{manifest.made_by['revision']}, {manifest.made_by.get('machine', '')}".rstrip(", "),
        "created": manifest.created[:16].replace("T", " "),
    }


def _figures(recipe: Recipe, artifacts: Mapping[str, Artifact], events: Sequence[Row]) -> dict[str, str]:
    steps = [event for event in events if event["event"] == "train"]
    held_out = [event for event in events if event["event"] == "validation"]
    bands = plan.bands(recipe)
    by_source = {
        source: _curve(held_out, lambda event, s=source: event["bits_per_byte"].get(s))
        for source in (held_out[0]["bits_per_byte"] if held_out else ())
    }
    x = "tokens trained"
    return {
        "funnel": plots.stacked_bars(_bars(artifacts["filter"].counts), "documents"),
        "training": plots.panels(
            {
                "loss (nats per token)": ({"loss": _curve(steps, lambda e: e["loss"])}, 2.8),
                "learning rate": ({"rate": _curve(steps, lambda e: e["lr"])}, 1.6),
                "gradient norm": ({"norm": _curve(steps, lambda e: e["grad_norm"])}, 1.6),
                "tokens per second": ({"speed": _curve(steps, lambda e: e["tps"])}, 1.7),
            },
            x,
            bands,
        ),
        "validation": plots.lines(by_source, x, "bits per byte, held-out text", bands, 3.8),
    }


def _curve(events: Iterable[Row], value: Any) -> tuple[list[float], list[float]]:
    points = [(event["tokens"], value(event)) for event in events]
    known = [(x, y) for x, y in points if y is not None]
    return [x for x, _ in known], [y for _, y in known]


def _bars(counts: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Kept documents and first reasons by source; rare reasons are combined."""
    totals = reports.summed(counts, "dropped")
    drawn = sorted(totals, key=lambda reason: (-totals[reason], reason))[:_REASONS_DRAWN]
    bars: dict[str, dict[str, float]] = {}
    for source, row in counts["sources"].items():
        parts = {"kept": row["kept"], **{_in_words(reason): row["dropped"].get(reason, 0) for reason in drawn}}
        other = sum(count for reason, count in row["dropped"].items() if reason not in drawn)
        bars[source] = {**parts, **({"other": other} if len(totals) > len(drawn) else {})}
    return bars
