"""HTML -> main text; the only module that extracts with resiliparse and trafilatura.

Contract: `main_text` returns the main content of a page as lines, or `""` if it has none. It raises `TooDeep`
for pages nested deeper than `MAX_DEPTH`, because extraction takes quadratic time on them (60,000 levels: a
minute). Cost: resiliparse 20 to 90 MB/s of HTML, trafilatura 3 to 6 MB/s.
"""

from __future__ import annotations

import functools
import logging
import re
from typing import Any, Literal

from resiliparse.extract.html2text import extract_plain_text

Extractor = Literal["resiliparse", "trafilatura"]

MAX_DEPTH = 2_000
"""Open elements; browsers stop at 512."""

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9-]*)")
_UNNESTED_TAGS = (
    "area base br col embed hr img input link meta param source track wbr "
    "p li dt dd option tr td th thead tbody tfoot colgroup path circle rect line use g svg html body head"
)
_UNNESTED = frozenset(_UNNESTED_TAGS.split())
"""Void elements, and those whose end tags are often omitted: leaving them open does not nest them."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_TRAILING_SPACE = re.compile(r"[ \t\xa0]+$", re.MULTILINE)
_TAB_RUNS = re.compile(r"[ \xa0]*\t[ \t\xa0]*")
_BLANK_LINES = re.compile(r"\n{3,}")


class TooDeep(ValueError):
    """The page nests more elements than any page written by people."""


def main_text(html: str, extractor: Extractor = "resiliparse") -> str:
    """The main content, one list item or table row per line; resiliparse separates paragraphs by blank lines."""
    if html.count("<") > MAX_DEPTH and depth(html) > MAX_DEPTH:
        raise TooDeep(f"more than {MAX_DEPTH} open elements")
    page = _LONE_SURROGATE.sub("\ufffd", html)  # both extractors take UTF-8 only
    text = _EXTRACTORS[extractor](page)
    text = _TRAILING_SPACE.sub("", text.replace("\r", ""))
    return _BLANK_LINES.sub("\n\n", _TAB_RUNS.sub("\t", text))


def depth(html: str) -> int:
    """The largest number of elements open at once, among those that must be closed."""
    deepest = opened = 0
    for slash, name in _TAG.findall(html):
        if name.lower() in _UNNESTED:
            continue
        opened = max(0, opened - 1) if slash else opened + 1
        deepest = max(deepest, opened)
    return deepest


def _resiliparse(page: str) -> str:
    return str(extract_plain_text(page, preserve_formatting=True, main_content=True, alt_texts=False))


def _trafilatura(page: str) -> str:
    return _load_trafilatura().extract(page, include_comments=False) or ""


@functools.cache
def _load_trafilatura() -> Any:
    """Imported on first use (half a second), with its logging off: a page without text is a reject."""
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    return trafilatura


_EXTRACTORS = {"resiliparse": _resiliparse, "trafilatura": _trafilatura}
