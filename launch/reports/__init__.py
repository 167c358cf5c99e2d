"""HTML pages, and other text, from templates; the only module that imports jinja2.

Contract: on pages, every value is escaped unless it is `Markup`. A name that a template uses but the caller does not
pass is an error. Pages load nothing from the network, and their content policy forbids it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from twofold.files import atomic_path

TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, **values: Any) -> str:
    """The page of a file in launch/reports/templates."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)


def render_yaml(template: str, **values: Any) -> str:
    """The YAML of a file in launch/reports/templates, where the filter `flow` writes a value on one line."""
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["flow"] = _flow
    return environment.get_template(template).render(**values)


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


def write(path: Path, page: str) -> Path:
    """Write a page atomically; return its path."""
    with atomic_path(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def summed(counts: Mapping[str, Any], field: str) -> Counter[str]:
    """A stage's counts by name, added up over its sources."""
    totals: Counter[str] = Counter()
    for source in counts["sources"].values():
        totals.update(source[field])
    return totals
