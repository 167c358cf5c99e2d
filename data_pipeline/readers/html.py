"""HTML -> main text; the only module that extracts with resiliparse and trafilatura.

Contract: `main_text` returns the main content of a page as lines, or `""` if it has none. It raises `TooDeep`
for pages nested deeper than `MAX_DEPTH`, because extraction takes quadratic time on them (60,000 levels: a
minute). The page is parsed once, as browsers parse it; what the extractors would lose (docs/dependencies.md) is
put into a form that they keep: formulas (`formulas`), text nodes of one character, lists near the body.
"""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from typing import Any, Literal

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from data_pipeline.readers import formulas

Extractor = Literal["resiliparse", "trafilatura"]

MAX_DEPTH = 2_000
"""Open elements; browsers stop at 512."""

_TAG = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|textarea|title)\b.*?(?:</\1|\Z)|<(/?)([A-Za-z][^\s/>]*)",
    re.IGNORECASE | re.DOTALL,
)
_VOID_TAGS = "area base br col embed hr img input link meta param source track wbr"
_VOID = frozenset(_VOID_TAGS.split())
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_KEEP = "\ufdd0"
"""A noncharacter, which no text may hold, appended to short text nodes."""
_SHORT_TEXT = re.compile(
    r">([ \t\r\n\f]*+(?!¶|&para;|[\ue000-\uf8ff]|&#[xX](?:[eE][0-9a-fA-F]|[fF][0-8])[0-9a-fA-F]{2};)"
    r"(?:[\x21-\x7f]?[^\x00-\x7f]|[^\s<>&]?&\#?\w{1,31};)[ \t\r\n\f]*+)(?=<|\Z)"
)
"""A text node of up to three bytes of UTF-8 that are not all ASCII, or of one reference. Pilcrows and private-use
characters, which are link anchors and icons, are left for the extractor to drop."""
_SHALLOW_LISTS = "body > ul, body > * > ul, body > * > * > ul"
_TRAILING_SPACE = re.compile(r"[ \t\xa0]+$", re.MULTILINE)
_CELL_GAP = re.compile(r"(?<=\S)[ \xa0]*\t[ \t\xa0]*")
_BLANK_LINES = re.compile(r"\n{3,}")


class TooDeep(ValueError):
    """The page nests more elements than any page written by people."""


def main_text(html: str, extractor: Extractor = "resiliparse") -> str:
    """The main content, one list item or table row per line; resiliparse separates paragraphs by blank lines."""
    page = _LONE_SURROGATE.sub("\ufffd", html)  # both extractors take UTF-8 only
    tree: Any = HTMLTree.parse(_SHORT_TEXT.sub(rf">\1{_KEEP}", page))
    if page.count("<") > MAX_DEPTH and _open_tags(page) > MAX_DEPTH and depth(tree) > MAX_DEPTH:
        raise TooDeep(f"more than {MAX_DEPTH} open elements")
    formulas.rewrite(tree, page)
    text = _EXTRACTORS[extractor](tree)
    text = _TRAILING_SPACE.sub("", text.replace("\r", "").replace(_KEEP, ""))
    return _BLANK_LINES.sub("\n\n", _CELL_GAP.sub("\t", text))


def depth(tree: Any) -> int:
    """The number of elements on the longest path from the body, exactly up to `MAX_DEPTH`, then `MAX_DEPTH + 1`."""
    deepest = level = 0
    node = tree.body
    while node is not None:
        child = node.first_element_child
        if child is not None:
            node, level = child, level + 1
            deepest = max(deepest, level)
            if level > MAX_DEPTH:
                break
            continue
        while level and node.next_element_sibling is None:
            node, level = node.parent_node, level - 1
        node = node.next_element_sibling if level else None
    return deepest


def _open_tags(page: str) -> int:
    """An upper estimate of the depth that costs no walk: the most start tags without their end tags."""
    deepest = total = 0
    opened: Counter[str] = Counter()
    for raw, slash, name in _TAG.findall(page):
        name = name.lower()
        if raw or not name or name in _VOID:
            continue
        if slash:
            if opened[name]:
                opened[name] -= 1
                total -= 1
        else:
            opened[name] += 1
            total += 1
            deepest = max(deepest, total)
    return deepest


def _resiliparse(tree: Any) -> str:
    _sink_shallow_lists(tree)
    return str(extract_plain_text(tree, preserve_formatting=True, main_content=True, alt_texts=False))


def _sink_shallow_lists(tree: Any) -> None:
    """Put lists near the body four levels below it: above that, resiliparse takes any for navigation."""
    document = tree.document
    for found in list(document.query_selector_all(_SHALLOW_LISTS)):
        outer = inner = document.create_element("div")
        for _ in range(3):
            inner = inner.append_child(document.create_element("div"))
        found.replace_with(outer)
        inner.append_child(found)


def _trafilatura(tree: Any) -> str:
    return _load_trafilatura().extract(tree.document.html, include_comments=False) or ""


@functools.cache
def _load_trafilatura() -> Any:
    """Imported on first use (half a second), with its logging off: a page without text is a reject."""
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    return trafilatura


_EXTRACTORS = {"resiliparse": _resiliparse, "trafilatura": _trafilatura}
