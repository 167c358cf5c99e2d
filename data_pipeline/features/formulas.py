"""The features of texts: everything that a rule may bound and that needs no model.

Contract: pure; takes any string (lone surrogates and the empty string included) and returns every name of
`TEXT_FEATURES` as a finite float. Fractions lie between 0 and 1, and the empty text has 0 everywhere. Each
feature is one count of counts.py over another, by the registry in configs/features.py, which also says how to
add one.

Sources: Gopher (Rae et al. 2021, table A1), C4 (Raffel et al. 2020, section 2.2), and the filters of FineWeb
and Polyglot-Ko, over whitespace words. Repetition is counted as in datatrove: the length of an n-gram is that of
its words (of the most frequent one, with the single spaces between them), occurrences of the most frequent one
may overlap (so its fraction is capped at 1), and a repeated n-gram is skipped as a whole. Three deviations are
deliberate: the most frequent n-gram counts only if it repeats, since short texts would look repetitive otherwise;
lines are stripped, and empty ones do not count; words made of punctuation are words.

Cost: about 16 MB/s of English and 29 of Korean per core; short documents are faster in batches.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from configs.features import COUNTS, FEATURES
from data_pipeline.readers import characters

TEXT_FEATURES = tuple(name for name, feature in FEATURES.items() if feature.count)
MODEL_FEATURES = tuple(name for name, feature in FEATURES.items() if not feature.count)

_LANGUAGES = ("other", "en", "ko")
_BATCH = 1 << 21
"""Code points measured at once; at least one document."""

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
    """What the features are made of: shape (texts, len(COUNTS))."""
    # Importing compiled code takes 0.4 s, which a command that only plans should not pay.
    from data_pipeline.features import counts as kernel
    from data_pipeline.features import terms

    counts = np.zeros((len(texts), len(COUNTS)), dtype=np.int64)
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
    """Odd, and different in each process, so that no document can be written to slow the kernel down."""
    return np.uint64(secrets.randbits(64) | 1)


def _divided(counts: Counts) -> npt.NDArray[np.float64]:
    parts, wholes, scales, least, limits = _columns()
    over = counts[:, wholes].astype(np.float64)
    values = np.zeros(over.shape)
    np.divide(counts[:, parts] * scales, np.maximum(over, least), out=values, where=over > 0)
    return np.minimum(values, limits, out=values)


@functools.cache
def _columns() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Counts, Counts, npt.NDArray[np.float64]]:
    """For each text feature: the columns of its two counts, its scale, the least divisor, and the most it can be."""
    column = {name: place for place, name in enumerate(COUNTS)}
    found = [FEATURES[name] for name in TEXT_FEATURES]
    return (
        np.array([column[feature.count] for feature in found if feature.count]),
        np.array([column[feature.per] for feature in found]),
        np.array([feature.scale for feature in found], dtype=np.int64),
        np.array([feature.least for feature in found], dtype=np.int64),
        np.array([feature.limit for feature in found]),
    )
