"""Everything that is HTML: pages from templates; this module alone imports jinja2, plots.py matplotlib.

Contract: every value is escaped unless it is `Markup`, and a name that a template uses and the caller
does not give is an error. Templates fetch nothing; each states that in its content policy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, **values: Any) -> str:
    """The page of a file in launch/reports/templates."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)
