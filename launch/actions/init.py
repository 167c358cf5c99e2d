"""`twofold init DIR`: look at a folder of documents and write a recipe for them that runs.

Contract: writes `recipe.yaml` and `recipe.schema.json` into DIR and nothing else; an existing recipe is never
overwritten. What is written was seen in a sample of the documents or is marked as a guess. Sources that give no
document, and files that no format reads, are named in the recipe and on the terminal.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from configs.json_schema import recipe_schema
from configs.recipe import load_recipe
from configs.units import format_bytes, format_count
from data_pipeline.readers.survey import Found, Survey, survey
from launch import reports
from launch.preflight import visible_gpus
from twofold.errors import user_error
from twofold.files import write_json

_BYTES_PER_TOKEN = 4
_KEPT = 0.3
"""Cautious guess of the share of text that passes the filters; a budget above four times that is refused."""
_CPU = {"vocab": 4096, "d_model": 128, "n_layers": 4, "heads": 4, "kv": 2, "d_ff": 384, "length": 128, "batch": 4096}
_GPU = {"vocab": 32768, "d_model": 768, "n_layers": 16, "heads": 12, "kv": 4, "d_ff": 2048, "length": 1024}
_SIZES = {
    "cpu": {**_CPU, "micro": 8, "lr": "4e-3", "most": 400_000},
    "gpu": {**_GPU, "batch": 131_072, "micro": 16, "lr": "1e-3", "most": 3_000_000_000},
}
"""Model and batch by device, and the most tokens of a phase: minutes on two CPU cores, hours on one GPU."""
_FEWEST_STEPS = 20


def init(folder: Path, documents: Path, console: Console) -> Path:
    """Write a recipe for `documents` into `folder`; return its path."""
    target = folder / "recipe.yaml"
    if target.exists():
        raise user_error("DIR", str(target), "exists already", "name another folder, or move the recipe away")
    if not documents.exists():
        raise user_error("--from", str(documents), "does not exist", "name the folder of your documents")
    seen = survey(documents)
    used, left_out = _usable(seen)
    if not used:
        found = "; ".join(left_out) or "it holds no file of a known format"
        hint = "name a folder of HTML, WARC, JSON Lines, Parquet or text files by --from"
        raise user_error("--from", str(documents), f"gives no documents ({found})", hint)
    write_json(folder / "recipe.schema.json", recipe_schema())
    text = _recipe(folder, used, [one for one in seen.found if _is_benchmark(one)], left_out)
    reports.write(target, text)
    load_recipe(target)
    _show(used, left_out, target, console)
    return target


def _is_benchmark(found: Found) -> bool:
    return found.benchmark and found.format == "jsonl" and bool(found.languages)


def _usable(seen: Survey) -> tuple[list[Found], list[str]]:
    """The sources, and a line for everything that is not one."""
    used, left_out = [], []
    for one in seen.found:
        where = f"{one.path} ({one.format}, {_files(one.files)})"
        if _is_benchmark(one):
            continue
        if one.benchmark:
            left_out.append(f"{where}: looks like a benchmark, which no model should be trained on")
        elif not one.languages:
            reasons = ", ".join(one.rejected) or "no records"
            keys = f"; its fields are {', '.join(one.keys[:12])}" if one.keys else ""
            left_out.append(f"{where}: no document in the sample ({reasons}){keys}")
        elif one.labelled:
            left_out.append(f"{where}: records with a label, which data.classifiers can learn from")
        else:
            used.append(one)
    for reason, tally in seen.passed_over.items():
        examples = ", ".join(tally.examples)
        left_out.append(f"{_files(tally.files)}, {format_bytes(tally.bytes)}: {reason}, such as {examples}")
    return used, left_out


def _recipe(folder: Path, used: Sequence[Found], benchmarks: Sequence[Found], left_out: Sequence[str]) -> str:
    device = "gpu" if visible_gpus() else "cpu"
    phases = _phases(used, _SIZES[device])
    trained = {name for phase in phases for name in phase["mixture"]}
    return reports.render_yaml(
        "recipe.yaml.j2",
        name=re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-_")[:60] or "mine",
        run_dir=str(folder.resolve() / "run"),
        sources=[(one, _source(folder, one), _remark(one)) for one in used],
        benchmarks={one.name: _path(folder, one.path) for one in benchmarks},
        left_out=left_out,
        phases=phases,
        too_small=[one.name for one in used if one.name not in trained],
        size=_SIZES[device],
        device=device,
    )


def _source(folder: Path, one: Found) -> dict[str, Any]:
    """The source's fields; those with their defaults are left out."""
    fields: dict[str, Any] = {"path": _path(folder, one.path), "format": one.format}
    named = {"domain": (one.domain, "general"), "kind": (one.kind, "prose")}
    named |= {"text_field": (one.text_field, "text"), "id_field": (one.id_field, "id")}
    fields |= {name: value for name, (value, default) in named.items() if value != default}
    return {**fields, "license": one.license or "unknown"}


def _path(folder: Path, path: Path) -> str:
    """Relative to the recipe where the documents lie below it, so that both can move together."""
    inside = path.resolve().is_relative_to(folder.resolve())
    return os.path.relpath(path.resolve(), folder.resolve()) if inside else str(path.resolve())


def _remark(one: Found) -> str:
    """What the sample showed, in a line."""
    total = one.languages.total()
    languages = ", ".join(f"{name} {count / total:.0%}" for name, count in one.languages.most_common())
    rejected = f"; {one.rejected.total()} records without a document" if one.rejected else ""
    sizes = f"{_files(one.files)}, {format_bytes(one.raw_bytes)}, about {format_bytes(one.text_bytes)} of text"
    return f"{sizes}; sample: {languages}{rejected}"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _phases(used: Sequence[Found], size: dict[str, Any]) -> list[dict[str, Any]]:
    """Phases that the documents can fill: general sources, then subjects, or one phase if either is small."""
    subjects = [one for one in used if one.domain != "general"]
    general = [one for one in used if one.domain == "general"]
    both = [_phase("general", general, size), _phase("domain", subjects, size)]
    if all(both):
        return [phase for phase in both if phase]
    return [phase for phase in [_phase("general", used, size)] if phase]


def _phase(name: str, sources: Sequence[Found], size: dict[str, Any]) -> dict[str, Any] | None:
    """A phase on these sources, or None if they hold too little text."""
    tokens = {one.name: one.text_bytes * _KEPT / _BYTES_PER_TOKEN for one in sources}
    tokens = {source: count for source, count in tokens.items() if count > 8 * size["length"]}
    budget = min(sum(tokens.values()) * 2, size["most"])
    steps = int(budget // size["batch"])
    if steps < _FEWEST_STEPS:
        return None
    weights = {source: max(1, round(100 * count / sum(tokens.values()))) for source, count in tokens.items()}
    return {"name": name, "tokens": steps * size["batch"], "mixture": weights}


def _show(used: Sequence[Found], left_out: Sequence[str], target: Path, console: Console) -> None:
    for one in used:
        console.print(f"  [bold]{one.name}[/bold]  {one.format}  {escape(_remark(one))}", soft_wrap=True)
    for line in left_out:
        console.print(f"  [yellow]left out[/yellow]  {escape(line)}", soft_wrap=True)
    domains = Counter(one.domain for one in used)
    unknown = [one.name for one in used if not one.license]
    guesses = [f"subjects by folder names: {', '.join(f'{name} {count}' for name, count in domains.items())}"]
    guesses.append(f"about {format_count(sum(one.text_bytes for one in used) / _BYTES_PER_TOKEN)} tokens of raw text")
    if unknown:
        guesses.append(f"the license of {', '.join(unknown)} is written as `unknown`: please correct it")
    console.print(f"  guessed: {'; '.join(guesses)}", soft_wrap=True)
    console.print(f"\n  {target}\n  next: `twofold run {target} --until filter`, then `twofold data-report {target}`")
