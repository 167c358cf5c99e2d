"""datatrove's stock filters, and the same filters computed by our kernel from datatrove's words.

Contract: `Stock.reason` is the first reason for which the four filters drop a text, or None;
`Stock.reason_by_kernel` is the same from counts.count_spans: words and sentences are spaCy's, and lines are cut
as each filter cuts them. All differences between datatrove's rules and our features are in this file: Gopher's
lines are unstripped parts between runs of line feeds, or `splitlines` including empty ones; words without symbols
are counted separately; FineWeb's fractions are of the text without line feeds; the most frequent n-gram counts
even if it does not repeat; C4 decides line by line.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from configs.features import COUNTS
from data_pipeline.features import counts as kernel
from data_pipeline.features import terms
from data_pipeline.readers import characters
from data_pipeline.readers.characters import LETTER

try:
    import spacy  # noqa: F401  (datatrove imports it when it first splits a text)
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.filters.c4_filters import CITATION_REGEX, END_PUNCTUATION, POLICY_SUBSTRINGS
    from datatrove.pipeline.filters.gopher_quality_filter import STOP_WORDS
    from datatrove.utils import text as datatrove_text
    from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION, split_into_sentences
    from datatrove.utils.word_tokenizers import load_word_tokenizer
except ImportError as error:
    raise SystemExit(f"{error}: pip install datatrove[processing] spacy") from error

Pairs = Sequence[tuple[int, int]]
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Stock:
    """The four filters with their default thresholds."""

    def __init__(self) -> None:
        self.repetition = GopherRepetitionFilter()
        self.quality = GopherQualityFilter()
        self.fineweb = FineWebQualityFilter()
        self.c4 = C4QualityFilter()

    def reason(self, text: str) -> str | None:
        """The decision of the four filters, in this order."""
        document = Document(text=text, id="")
        for stock in (self.repetition, self.quality, self.fineweb, self.c4):
            verdict = stock.filter(document)
            if verdict is not True:
                return str(verdict[1])
        return None

    def reason_by_kernel(self, text: str) -> str | None:
        """The same thresholds in the same order on the kernel's counts."""
        if not text:
            return "empty"
        words = _words(text)
        return (
            self._repetition(text, words) or self._quality(text, words) or self._fineweb(text, words) or self._c4(text)
        )

    def _repetition(self, text: str, words: Pairs) -> str | None:
        stock = self.repetition
        first, last = len(text) - len(text.lstrip()), len(text.rstrip())
        paragraphs = _between(re.compile(r"\n{2,}"), text, first, max(first, last))
        lines = _between(re.compile(r"\n+"), text, 0, len(text))
        found = _counts(text, words, lines, paragraphs)
        if found["repeated_paragraphs"] / len(paragraphs) > stock.dup_para_frac:
            return "dup_para_frac"
        if found["repeated_paragraph_characters"] / len(text) > stock.dup_para_char_frac:
            return "dup_para_char_frac"
        if found["repeated_lines"] / len(lines) > stock.dup_line_frac:
            return "dup_line_frac"
        if found["repeated_line_characters"] / len(text) > stock.dup_line_char_frac:
            return "dup_line_char_frac"
        for n, limit in stock.top_n_grams:
            once = sum(end - start for start, end in words[:n]) + n - 1 if len(words) >= n else 0
            if (found[f"top_{n}gram"] or once) / len(text) > limit:
                return f"top_{n}_gram"
        for n, limit in stock.dup_n_grams:
            if found[f"duplicate_{n}gram"] / len(text) > limit:
                return f"duplicated_{n}_n_grams"
        return None

    def _quality(self, text: str, words: Pairs) -> str | None:
        stock = self.quality
        whole = [(start, end) for start, end in words if not PUNCTUATION_SET.issuperset(text[start:end])]
        if len(whole) < stock.min_doc_words:
            return "gopher_short_doc"
        if len(whole) > stock.max_doc_words:
            return "gopher_long_doc"
        length = sum(end - start for start, end in whole) / len(whole)
        if length < stock.min_avg_word_length:
            return "gopher_below_avg_threshold"
        if length > stock.max_avg_word_length:
            return "gopher_above_avg_threshold"
        lines = _stripped_lines(text)
        found = _counts(text, words, lines, (), GOPHER)
        if found["hashes"] / len(words) > stock.max_symbol_word_ratio:
            return "gopher_too_many_hashes"
        if found["ellipses"] / len(words) > stock.max_symbol_word_ratio:
            return "gopher_too_many_ellipsis"
        if found["bullet_lines"] / len(lines) > stock.max_bullet_lines_ratio:
            return "gopher_too_many_bullets"
        if found["ellipsis_lines"] / len(lines) > stock.max_ellipsis_lines_ratio:
            return "gopher_too_many_end_ellipsis"
        if found["letter_words"] / len(words) < stock.max_non_alpha_words_ratio:
            return "gopher_below_alpha_threshold"
        if found["stop_words"] < stock.min_stop_words:
            return "gopher_enough_stop_words"
        return None

    def _fineweb(self, text: str, words: Pairs) -> str | None:
        stock = self.fineweb
        lines = [
            (start, end) for start, end in _between(re.compile("\n"), text, 0, len(text)) if text[start:end].strip()
        ]
        found = _counts(text, words, lines, (), FINEWEB)
        if not lines:
            return "empty"
        if found["punctuated_lines"] / len(lines) < stock.line_punct_thr:
            return "line_punct_ratio"
        if found["short_lines"] / len(lines) > stock.short_line_threshold:
            return "short_line_ratio"
        if found["repeated_line_characters"] / (len(text) - found["newlines"]) > stock.char_duplicates_ratio:
            return "char_dup_ratio"
        if found["newlines"] / len(words) > stock.new_line_ratio:
            return "list_ratio"
        return None

    def _c4(self, text: str) -> str | None:
        sentences = 0
        for start, end in _stripped_lines(text):
            line = text[start:end]
            whole = _counts(line, [match.span() for match in re.finditer(r"\S+", line)], (), ())
            line = CITATION_REGEX.sub("", line)
            found = _counts(line, [match.span() for match in re.finditer(r"\S+", line)], [(0, len(line))], (), C4)
            prose = found["punctuated_lines"] and not found["ellipsis_lines"] and whole["words"] >= 3
            if not prose or whole["longest_word"] > self.c4.max_word_length:
                continue
            if found["spam_terms"]:
                return "lorem_ipsum"
            if found["lorem_ipsum"]:  # holds "javascript", see C4
                continue
            if found["curly_brackets"] or (found["notice_lines"] and "{" in line):
                return "curly_bracket"
            if not found["notice_lines"]:
                sentences += len(split_into_sentences(line))
        return "too_few_sentences" if sentences < self.c4.min_num_sentences else None


@contextlib.contextmanager
def split_words() -> Iterator[None]:
    """Give datatrove `str.split` words instead of spaCy's, to time its own loops."""
    tokenizer = type(load_word_tokenizer("en"))
    spacys = tokenizer.word_tokenize
    datatrove_text.split_into_parts.cache_clear()
    tokenizer.word_tokenize = lambda self, text: text.split()
    try:
        yield
    finally:
        tokenizer.word_tokenize = spacys
        datatrove_text.split_into_parts.cache_clear()


# --- datatrove's spans -------------------------------------------------------------------------


def _words(text: str) -> list[tuple[int, int]]:
    """spaCy's tokens as datatrove uses them: stripped, without empty ones."""
    spans = []
    for part in load_word_tokenizer("en")._do_tokenize(text):
        for token in part:
            bare = token.text.strip()
            if bare:
                start = token.idx + token.text.index(bare)
                spans.append((start, start + len(bare)))
    return spans


def _between(separator: re.Pattern[str], text: str, first: int, last: int) -> list[tuple[int, int]]:
    """What `separator.split(text[first:last])` gives, as spans."""
    spans, start = [], first
    for match in separator.finditer(text, first, last):
        spans.append((start, match.start()))
        start = match.end()
    return [*spans, (start, last)]


def _stripped_lines(text: str) -> list[tuple[int, int]]:
    """`splitlines`, stripped, including empty ones."""
    spans, start = [], 0
    for line in text.splitlines(keepends=True):
        first = start + len(line) - len(line.lstrip())
        spans.append((first, max(first, start + len(line.rstrip()))))
        start += len(line)
    return spans


# --- our kernel --------------------------------------------------------------------------------


def _lexicon(bullets: str = "", line_ends: Sequence[str] = (), phrases: Sequence[tuple[str, int]] = ()) -> Any:
    made = terms.make_lexicon({terms.BULLET: bullets, terms.LINE_END: line_ends}, STOP_WORDS, (), phrases)
    alphabetic = np.frompyfunc(lambda code: chr(code).isalpha(), 1, 1)(np.arange(len(made.flags))).astype(bool)
    made.flags[:] = np.where(alphabetic, made.flags | np.uint32(LETTER), made.flags & ~np.uint32(LETTER))
    return made


GOPHER = _lexicon(bullets="•-")
FINEWEB = _lexicon(line_ends=TERMINAL_PUNCTUATION)
C4 = _lexicon(
    line_ends=END_PUNCTUATION,
    phrases=[
        ("lorem ipsum", terms.SPAM),
        ("javascript", terms.LOREM_IPSUM),
        *((phrase, terms.NOTICE) for phrase in POLICY_SUBSTRINGS),
    ],
)
"""C4's three kinds of phrases, counted in the columns of our three kinds."""


def _counts(text: str, words: Pairs, lines: Pairs, paragraphs: Pairs, lexicon: Any = GOPHER) -> dict[str, int]:
    counts = np.zeros(len(COUNTS), dtype=np.int64)
    spans = (np.array(pairs, dtype=np.int32).reshape(-1, 2).T.copy() for pairs in (words, lines, paragraphs))
    cut = (tuple(pair) for pair in spans)
    kernel.count_spans(characters.codes_of(text), *cut, kernel.ENGLISH, lexicon, _MULTIPLIER, counts)
    return dict(zip(COUNTS, counts.tolist(), strict=True))
