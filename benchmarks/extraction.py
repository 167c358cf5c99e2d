"""Main text of pages: how much of it is right, how whole its blocks are, and how fast, against the libraries alone.

    python -m benchmarks.extraction --corpus DIR [--pages N] [--json OUT]

F1: shingles of four words of each page of the gold set against the text that people accepted for it. A page's true
positives, false positives and misses are divided by their sum, so that all pages weigh alike, then summed over pages.
Some of the accepted texts leave out their page's formulas or glue them; pages with MathML are scored apart as well.
Block fidelity: of the innermost blocks (p, li, dd, td; 20 characters or more) of which the output holds at least
60 % of the 5-grams, the share whose whole text stands in the output, white space apart. Blocks that hold formulas,
sub- or superscripts, ruby or scripts are left out, since their right text is not the one that they show.
Speed: megabytes of HTML a CPU second, over pages of every folder; all contestants use one thread, and run in turn.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lxml.html
from resiliparse.extract.html2text import extract_plain_text

from benchmarks import common
from data_pipeline.readers import html

_GOLD_PAGES = "general/web-html/readability-pages"
_GOLD = "gold"
_BLOCK_FOLDERS = tuple(
    f"general/web-html/{name}"
    for name in (
        "debian-install-guide",
        "debian-install-guide-en",
        "libreoffice-help-ko",
        "postgres-docs",
        "anarchist-faq",
    )
)
SPEED_FOLDERS = (*_BLOCK_FOLDERS, _GOLD_PAGES, "general/web-html/trafilatura-pages")
_BLOCKS = ("p", "li", "dd", "td")
_INNER = (*_BLOCKS, *["div", "ul", "ol", "dl", "table", "pre", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6"])
_CHANGED = ["math", "script", "style", "sup", "sub", "rt", "noscript", "template", "textarea", "select", "button"]
_SHINGLE_WORDS = 4
_GRAM = 5
_MIN_BLOCK = 20
_CAPTURED = 0.6
_WORD = re.compile(r"\w+")

Extract = Callable[[str], str]
Figures = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = common.parser("extraction", "Main text of pages: F1, block fidelity and speed.")
    parser.add_argument("--pages", type=int, default=80, help="of each folder, for block fidelity; a fifth for speed")
    parser.set_defaults(repetitions=3)
    options = parser.parse_args(arguments)
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    gold = gold_pages(options.corpus)
    blocks = {folder: pages_of(options.corpus / folder, options.pages) for folder in _BLOCK_FOLDERS}
    timed = [page for folder in SPEED_FOLDERS for page in pages_of(options.corpus / folder, options.pages // 5)]
    figures = {name: quality(run, gold, blocks) for name, run in CONTESTANTS.items()}
    size = sum(len(page.encode()) for page in timed) / 1e6
    runs = {name: functools.partial(_read_all, run, timed) for name, run in CONTESTANTS.items()}
    for name, seconds in common.interleaved(runs, options.repetitions, time.process_time).items():
        figures[name]["html_megabytes_per_cpu_s"] = size / seconds
    ours, bulk = figures.pop("ours"), figures.pop("ours_bulk")
    result = {
        "gold_pages": len(gold),
        "block_pages": {Path(folder).name: len(pages) for folder, pages in blocks.items()},
        "timed_pages": len(timed),
        "timed_html_megabytes": size,
        "ours": ours,
        "ours_bulk": bulk,
        "peers": figures,
        "ratio": ours["f1"] / max(peer["f1"] for peer in figures.values()),
    }
    common.report("extraction", result, options.json)


def quality(extract: Extract, gold: Sequence[tuple[str, str]], blocks: Mapping[str, Sequence[str]]) -> Figures:
    """Precision, recall and F1 over the gold pages, block fidelity of each folder."""
    pairs = [(right, extract(page), "<math" in page) for page, right in gold]
    precision, recall, f1 = score((right, found) for right, found, _ in pairs)
    plain = score((right, found) for right, found, has_formulas in pairs if not has_formulas)
    fidelity = {
        Path(folder).name: block_fidelity((page, extract(page)) for page in pages) for folder, pages in blocks.items()
    }
    return {
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "f1_of_pages_without_mathml": plain[2],
        "block_fidelity": fidelity,
    }


def score(pairs: Iterable[tuple[str, str]]) -> tuple[float, float, float]:
    """Precision, recall and F1 of pairs of the right text and the extracted text."""
    hits = extra = missing = 0.0
    for right, found in pairs:
        expected, got = shingles(right), shingles(found)
        both = (expected & got).total()
        whole = expected.total() + got.total() - both
        if whole:
            hits += both / whole
            extra += (got.total() - both) / whole
            missing += (expected.total() - both) / whole
    if not hits:
        return 0.0, 0.0, 0.0
    return hits / (hits + extra), hits / (hits + missing), 2 * hits / (2 * hits + extra + missing)


def shingles(text: str) -> Counter[tuple[str, ...]]:
    """The text's runs of four words; a shorter text is one run."""
    words = _WORD.findall(text)
    count = max(bool(words), len(words) - _SHINGLE_WORDS + 1)
    return Counter(tuple(words[at : at + _SHINGLE_WORDS]) for at in range(count))


def block_fidelity(pairs: Iterable[tuple[str, str]]) -> float:
    """The share of whole blocks among the captured, over pairs of a page and its extracted text."""
    captured = whole = 0
    for page, found in pairs:
        output = "".join(found.split())
        grams = set(_grams(output))
        for block in page_blocks(page):
            held = [gram in grams for gram in _grams(block)]
            if sum(held) >= _CAPTURED * len(held):
                captured += 1
                whole += block in output
    return whole / max(1, captured)


def page_blocks(page: str) -> Iterator[str]:
    """The texts of a page's innermost blocks, without white space."""
    parser = lxml.html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    for block in lxml.html.document_fromstring(page.encode(), parser).iter(*_BLOCKS):
        if next(block.iterdescendants(*_INNER, *_CHANGED), None) is None:
            text = "".join(block.text_content().split())
            if len(text) >= _MIN_BLOCK:
                yield text


def _grams(text: str) -> list[str]:
    return [text[at : at + _GRAM] for at in range(len(text) - _GRAM + 1)]


def gold_pages(corpus: Path) -> list[tuple[str, str]]:
    """Pages and the texts that people accepted for them."""
    texts = {record["id"]: record["expected_text"] for record in common.records(corpus / _GOLD)}
    records = common.records(corpus / _GOLD_PAGES)
    return _some(corpus / _GOLD, [(record["html"], texts[record["id"]]) for record in records if record["id"] in texts])


def pages_of(folder: Path, limit: int) -> list[str]:
    """The first pages of a folder of the corpus."""
    return _some(folder, [record["html"] for record in islice(common.records(folder), max(1, limit))])


def _some(folder: Path, found: list[Any]) -> list[Any]:
    if not found:
        sys.exit(f"corpus = {folder}: there are no pages. Hint: --corpus DIR, a folder that holds {_GOLD_PAGES}.")
    return found


def _read_all(extract: Extract, pages: Sequence[str]) -> None:
    for page in pages:
        extract(page)


def resiliparse(page: str) -> str:
    """The library alone."""
    return str(extract_plain_text(page, preserve_formatting=True, main_content=True, alt_texts=False))


def trafilatura(page: str) -> str:
    """The library alone."""
    import trafilatura as library

    return library.extract(page, include_comments=False) or ""


CONTESTANTS: dict[str, Extract] = {
    "ours": html.main_text,
    "ours_bulk": functools.partial(html.main_text, extractor="resiliparse"),
    "resiliparse": resiliparse,
    "trafilatura": trafilatura,
}


if __name__ == "__main__":
    sys.exit(main())
