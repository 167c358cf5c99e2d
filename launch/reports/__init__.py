"""HTML pages, and other text, from templates; the only module that imports jinja2.

Contract: on pages, every value is escaped unless it is `Markup`. A name that a template uses but the caller does not
pass is an error. Pages load nothing from the network, and their content policy forbids it.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from twofold.files import atomic_path

INDEX = "index.html"
_PAGES = (
    ("report/report.html", "Report", "filtering, tokenizer, training, held-out text, samples and lineage"),
    ("data_report.html", "Data report", "the funnel and a sample of documents, with thresholds to move"),
    ("classifiers/*/card.html", "Classifier card", "how good a classifier is, and on which texts"),
    ("tokenizers.html", "Tokenizers", "compression beside public tokenizers"),
    ("plan.html", "Plan", "tokens, learning rate, batch and mixture by step"),
    ("plan-*.html", "Capacity", "memory, time and cost on a number of devices"),
    ("export/model/README.md", "Model card", "what the exported model is, and how to load it"),
)
"""Pattern in a run folder, title, and what such a page shows."""
TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, **values: Any) -> str:
    """The page of a file in launch/reports/templates."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters["number"] = lambda value, spec: "–" if value is None else spec % value
    return environment.get_template(template).render(**values)


def render_yaml(template: str, **values: Any) -> str:
    """The YAML of a file in launch/reports/templates, where the filter `flow` writes a value on one line."""
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["flow"] = _flow
    environment.filters["number"] = lambda value, spec: "–" if value is None else spec % value
    return environment.get_template(template).render(**values)


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


def write(path: Path, page: str) -> Path:
    """Write a page atomically; return its path. A page in a run folder is listed in the folder's `index.html`."""
    with atomic_path(path) as partial:
        partial.write_text(page, encoding="utf-8")
    if path.name != INDEX and (path.parent / "artifacts").is_dir():
        write_index(path.parent)
    return path


def write_index(run_dir: Path) -> None:
    """List the pages of a run folder, with relative links, in its `index.html`."""
    found = [
        {"place": quote(file.relative_to(run_dir).as_posix()), "title": title, "shows": shows, "written": _time(file)}
        for pattern, title, shows in _PAGES
        for file in sorted(run_dir.glob(pattern))
        if file.name != INDEX
    ]
    if found:
        write(run_dir / INDEX, render("index.html", name=run_dir.resolve().name, pages=found))


def _time(file: Path) -> str:
    return datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC).strftime("%Y-%m-%d %H:%M")


def summed(counts: Mapping[str, Any], field: str) -> Counter[str]:
    """A stage's counts by name, added up over its sources."""
    totals: Counter[str] = Counter()
    for source in counts["sources"].values():
        totals.update(source[field])
    return totals
