"""HTML -> main text; the only module that extracts with resiliparse and trafilatura.

Contract: `main_text` returns the main content of a page as lines, or `""` if it has none. It raises `TooDeep`
for pages nested deeper than `MAX_DEPTH`, because extraction takes quadratic time on them (60,000 levels: a
minute). The page is parsed once, as browsers parse it; what the extractors would lose (docs/dependencies.md) is
put into a form that they keep: formulas (`formulas`), text nodes of one character, lists near the body. Then
`combined` puts back what resiliparse dropped inside a block (`page_lines`), and chooses by page: its text, the
part of it that lies where the paragraphs are (`main_part`), or what trafilatura finds.
"""

from __future__ import annotations

import functools
import logging
import re
from typing import Any, Literal

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from data_pipeline.readers import formulas, main_part, page_lines

Extractor = Literal["combined", "resiliparse", "trafilatura"]

MAX_DEPTH = 2_000
"""Open elements; browsers stop at 512."""

_DEEP = " > ".join(["*"] * 200)
"""Selects elements this deep, which few pages hold, at the cost of a walk in C."""
_SHORT_TEXT = re.compile(
    r"(?<=>)([ \t\r\n\f]*+(?!¶|&para;|[\ue000-\uf8ff]|&#[xX](?:[eE][0-9a-fA-F]|[fF][0-8])[0-9a-fA-F]{2};)"
    r"(?:[\x21-\x7f]?[^\x00-\x7f]|[^\s<>&]?&\#?\w{1,31};))(?=[ \t\r\n\f]*+(?:<|\Z))"
)
"""A text node of up to three bytes of UTF-8 that are not all ASCII, or of one reference. Pilcrows and private-use
characters, which are link anchors and icons, are left for the extractor to drop."""
_UNBROKEN_BLOCKS = "summary, legend, dialog, menu"
"""Blocks to which resiliparse glues what follows."""
_SHALLOW_LISTS = "body > ul, body > * > ul, body > * > * > ul"
_FRAME = "nav, header, footer, aside" + "".join(
    f", [{name}*={word!r}]" for name in ("id", "class") for word in ("footer", "menu", "nav")
)
_MAX_LINK_SHARE = 0.5
_SMALL_FRAME = 600
_FRAME_SHARE = 0.1
"""Characters, and share of a page's text, that resiliparse leaves out: below, the page needs no judgement."""
_SURE_SHARE = 0.8
"""Of the extracted text inside the page's main part: below, the two disagree, and trafilatura decides."""
_LEAST_SHARE = 0.2
_MAX_JUDGED = 1_000_000
"""Characters of a page's text; longer pages are left as resiliparse reads them."""
_CELL_GAP = re.compile(r"(?<=\S)[ \xa0]*\t[ \t\xa0]*")
_BLANK_LINES = re.compile(r"\n{3,}")


class TooDeep(ValueError):
    """The page nests more elements than any page written by people."""


def main_text(html: str, extractor: Extractor = "combined") -> str:
    """The main content, one list item or table row per line; resiliparse separates paragraphs by blank lines."""
    page = html.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # no lone surrogates
    tree: Any = HTMLTree.parse(_SHORT_TEXT.sub(rf"\1{formulas.KEEP}", page))
    if page.count("<") > MAX_DEPTH and tree.document.query_selector(_DEEP) is not None and depth(tree) > MAX_DEPTH:
        raise TooDeep(f"more than {MAX_DEPTH} open elements")
    formulas.rewrite(tree)
    for block in tree.document.query_selector_all(_UNBROKEN_BLOCKS).values():
        block.append_child(tree.document.create_element("br"))
    return _BLANK_LINES.sub("\n\n", "\n".join(_EXTRACTORS[extractor](tree))).strip("\n")


def _lines(text: str) -> list[str]:
    return [_tidied(line) for line in text.replace("\r", "").replace(formulas.KEEP, "").split("\n")]


def _tidied(line: str) -> str:
    """The line without white space at its end, and with one tab between cells."""
    line = line.rstrip(" \t\xa0")
    return _CELL_GAP.sub("\t", line) if "\t" in line else line


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


def _combined(tree: Any) -> list[str]:
    """resiliparse's choice, mended; where it leaves much of the page, only its main part, or trafilatura's choice."""
    found = _resiliparse(tree)
    whole = _lines(extract_plain_text(tree, preserve_formatting=True, main_content=False, alt_texts=False))
    if (size := page_lines.size(whole)) > _MAX_JUDGED:
        return found
    found = page_lines.mended(found, whole)
    if size - page_lines.size(found) < max(_SMALL_FRAME, _FRAME_SHARE * size):
        return found
    main = page_lines.squeezed(main_part.text(tree).replace(formulas.KEEP, ""))
    inside = [line for line in found if page_lines.bare(line) in main]
    if page_lines.size(inside) >= _SURE_SHARE * page_lines.size(found) > 0:
        return inside
    chosen = page_lines.selected(whole, "\n".join(_trafilatura(tree, fast=True)))
    return chosen if page_lines.size(chosen) >= _LEAST_SHARE * page_lines.size(found) else found


def _resiliparse(tree: Any) -> list[str]:
    _sink_shallow_lists(tree)
    return _lines(extract_plain_text(tree, preserve_formatting=True, main_content=True, alt_texts=False))


def _sink_shallow_lists(tree: Any) -> None:
    """Put lists near the body four levels below it: above that, resiliparse takes any for navigation."""
    document = tree.document
    for found in document.query_selector_all(_SHALLOW_LISTS).values():
        if found.closest(_FRAME) is not None or _link_share(found) > _MAX_LINK_SHARE:
            continue
        outer = inner = document.create_element("div")
        for _ in range(3):
            inner = inner.append_child(document.create_element("div"))
        found.replace_with(outer)
        inner.append_child(found)


def _link_share(element: Any) -> float:
    """The share of the element's text that stands in links."""
    linked = sum(len(link.text_content or "") for link in element.query_selector_all("a").values())
    return linked / max(1, len(element.text_content or ""))


def _trafilatura(tree: Any, fast: bool = False) -> list[str]:
    return _lines(_load_trafilatura().extract(tree.document.html, include_comments=False, fast=fast) or "")


@functools.cache
def _load_trafilatura() -> Any:
    """Imported on first use (half a second), with its logging off: a page without text is a reject."""
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    return trafilatura


_EXTRACTORS = {"combined": _combined, "resiliparse": _resiliparse, "trafilatura": _trafilatura}
