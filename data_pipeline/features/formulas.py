"""The features of texts: everything that a rule may bound and that needs no model.

Contract: pure; takes any string (lone surrogates and nothing included) and gives every name of
`TEXT_FEATURES` as a finite float; shares lie in 0..1, and the empty text has 0 everywhere. Each feature
is one count of kernel.py over another. Sources: Gopher (Rae et al. 2021, table A1), C4 (Raffel et al.
2020, section 2.2), FineWeb's and polyglot-ko's filters, over whitespace words. Repetition follows
datatrove's counting: an n-gram's length is its words' (for the most frequent one with the single spaces
between), occurrences of the most frequent may overlap (so that share is capped at 1), and a repeated
n-gram is skipped over. Deviations, each on purpose: the most frequent n-gram counts only if it repeats,
else short texts would look repetitive; lines are stripped, and empty ones count nowhere; words of
punctuation alone are words. Cost: 25 MB/s of English a core and more of Korean; short documents are
faster by the batch.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from configs.features import FEATURES
from data_pipeline.readers import characters

MODEL_FEATURES = ("language_score", "quality_score", "toxicity_score")
TEXT_FEATURES = tuple(name for name in FEATURES if name not in MODEL_FEATURES)

FORMULAS: dict[str, tuple[str, str]] = {
    **{name: (name, "one") for name in ("characters", "words", "lines", "paragraphs", "sentences")},
    "mean_word_length": ("visible", "words"),
    **{name: (name, "one") for name in ("longest_word", "longest_line", "stop_words")},
    "alpha_word_ratio": ("letter_words", "words"),
    "alpha_token_ratio": ("letter_tokens", "tokens"),
    "hash_to_word_ratio": ("hashes", "words"),
    "ellipsis_to_word_ratio": ("ellipses", "words"),
    **{f"{kind}_line_frac": (f"{kind}_lines", "lines") for kind in ("bullet", "ellipsis", "punctuated", "short")},
    "notice_line_frac": ("notice_lines", "lines"),
    "prose_sentences": ("prose_sentences", "one"),
    "new_line_ratio": ("newlines", "words"),
    "dup_line_frac": ("repeated_lines", "lines"),
    "dup_line_char_frac": ("repeated_line_characters", "characters"),
    "dup_para_frac": ("repeated_paragraphs", "paragraphs"),
    "dup_para_char_frac": ("repeated_paragraph_characters", "characters"),
    **{f"top_{n}gram_char_frac": (f"top_{n}gram", "characters") for n in (2, 3, 4)},
    **{f"dup_{n}gram_char_frac": (f"duplicate_{n}gram", "characters") for n in range(5, 11)},
    **{f"{script}_frac": (script, "visible") for script in ("hangul", "latin", "han")},
    "digit_frac": ("digits", "visible"),
    "punctuation_frac": ("punctuation", "visible"),
    "uppercase_frac": ("upper", "letters"),
    "lone_jamo_frac": ("jamo", "visible"),
    "jamo_run_frac": ("jamo_runs", "visible"),
    "emoji_frac": ("emoji", "visible"),
    "symbol_frac": ("symbols", "characters"),
    "broken_character_frac": ("broken", "characters"),
    "url_char_frac": ("url_characters", "visible"),
    "curly_brackets": ("curly_brackets", "one"),
    "lorem_ipsum": ("lorem_ipsum", "one"),
    "spam_terms_per_1000_words": ("spam_terms", "words"),
}
"""Feature -> (count, count that it is divided by), of kernel.COUNTS; 0 of nothing is 0."""

_LANGUAGES = ("other", "en", "ko")
_BATCH = 1 << 21
"""Code points that are measured at once, at least one document."""

Counts = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[np.float64]]


def features(text: str, language: str) -> dict[str, float]:
    """Every feature of `TEXT_FEATURES`; `language` (ko, en, other, code) chooses the stop words."""
    values = _divided(counts_of([text], [language]))
    return dict(zip(TEXT_FEATURES, values[0].tolist(), strict=True))


def features_of(texts: Sequence[str], languages: Sequence[str]) -> Columns:
    """Every feature of `TEXT_FEATURES` as a column with one value a text."""
    values = _divided(counts_of(texts, languages))
    return {name: values[:, column] for column, name in enumerate(TEXT_FEATURES)}


def counts_of(texts: Sequence[str], languages: Sequence[str]) -> Counts:
    """What the features are made of: shape (texts, len(kernel.COUNTS))."""
    # Compiled code takes 0.4 s to import, which a command that only plans should not pay.
    from data_pipeline.features import counts as kernel
    from data_pipeline.features import terms

    counts = np.zeros((len(texts), len(kernel.COUNTS)), dtype=np.int64)
    for start, end in _batches(texts):
        bounds = np.cumsum([0, *map(len, texts[start:end])], dtype=np.int64)
        assert bounds[-1] < 2**31, "spans are 32-bit"
        codes = characters.codes_of("".join(texts[start:end]))
        kernel.count_documents(
            codes, bounds, _language_codes(languages[start:end]), terms.lexicon(), _multiplier(), counts[start:end]
        )
    return counts


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for end, text in enumerate(texts):
        if end > start and size + len(text) > _BATCH:
            yield start, end
            start, size = end, 0
        size += len(text)
    if start < len(texts):
        yield start, len(texts)


def _language_codes(languages: Sequence[str]) -> npt.NDArray[np.int8]:
    return np.array([_LANGUAGES.index(name) if name in _LANGUAGES else 0 for name in languages], dtype=np.int8)


@functools.cache
def _multiplier() -> np.uint64:
    """Odd, and another in each process: no document can be written to slow the kernel down."""
    return np.uint64(secrets.randbits(64) | 1)


def _divided(counts: Counts) -> npt.NDArray[np.float64]:
    parts, wholes, scales, limits = _columns()
    over = counts[:, wholes].astype(np.float64)
    values = np.zeros(over.shape)
    np.divide(counts[:, parts] * scales, over, out=values, where=over > 0)
    return np.minimum(values, limits, out=values)


@functools.cache
def _columns() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Counts, npt.NDArray[np.float64]]:
    """For each feature: the columns of its two counts, its scale, and the most it can be."""
    from data_pipeline.features import counts as kernel

    parts, wholes = zip(*(FORMULAS[name] for name in TEXT_FEATURES), strict=True)
    scales = [1000 if name.endswith("_per_1000_words") else 1 for name in TEXT_FEATURES]
    limits = [1.0 if name.endswith("_frac") or name.startswith("alpha_") else np.inf for name in TEXT_FEATURES]
    places = (np.array([kernel.COUNTS.index(name) for name in names]) for names in (parts, wholes))
    return (*places, np.array(scales, dtype=np.int64), np.array(limits))  # type: ignore[return-value]
