"""Everything that speaks against a document by itself, from its measured columns alone.

Contract: `against` is pure and columnar; it sees no text, no other document and no clock. Each reason
has a fixed form, and a document's reasons come in this order:

    licence_refused       its licence is denied, or not among those allowed
    host_refused          its URL's host is denied, or not among those allowed
    url_word              its URL has a refused word between separators
    wrong_language        its language is not one of the source's (never for kind `code`)
    <feature><<min>       a failed rule (data_pipeline/decisions/rules.py), in the order of configs/features.py
    <feature>><max>
    personal_information  it holds some, and data.personal_information is `drop`
    contaminated          it shares text with a benchmark, and data.decontamination.policy is `drop`

`filter` adds what needs the other documents: exact_duplicate, url_duplicate, near_duplicate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.data_schema import Compliance, Names
from configs.features import FEATURES
from configs.schema import Recipe
from data_pipeline.decisions import rules
from data_pipeline.features import pii

LICENCE_REFUSED = "licence_refused"
HOST_REFUSED = "host_refused"
URL_WORD = "url_word"
WRONG_LANGUAGE = "wrong_language"
PERSONAL_INFORMATION = "personal_information"
CONTAMINATED = "contaminated"

_URL_SEPARATORS = re.compile(r"[^0-9a-z\uac00-\ud7a3]+")


def against(measured: pa.Table, source: str, recipe: Recipe) -> list[list[str]]:
    """Reasons of each row of `measured` (the decision table's measured columns) of one source."""
    data = recipe.data
    languages = measured["language"].to_pylist()
    failed = rules.failures({name: measured[name].to_numpy() for name in FEATURES}, languages, data.rules)
    reasons = compliance(measured["license"].to_pylist(), measured["url"].to_pylist(), data.compliance)
    allowed = (*recipe.sources[source].languages, "code")
    for row, (language, names) in enumerate(zip(languages, failed, strict=True)):
        reasons[row] += [] if language in allowed else [WRONG_LANGUAGE]
        reasons[row] += names
    if data.personal_information == "drop":
        _add(reasons, PERSONAL_INFORMATION, personal_totals(measured))
    if data.decontamination and data.decontamination.policy == "drop":
        _add(reasons, CONTAMINATED, measured["contamination_matches"].to_numpy())
    return reasons


def personal_totals(measured: pa.Table) -> npt.NDArray[np.int64]:
    """How many personal numbers and addresses each row holds, of any type."""
    totals = np.zeros(measured.num_rows, dtype=np.int64)
    for kind in pii.TYPES:
        totals += measured[f"pii_{kind}"].to_numpy()
    return totals


def compliance(licenses: Sequence[str], urls: Sequence[str | None], settings: Compliance) -> list[list[str]]:
    """What licence and address say against each document; one without an address passes host and URL rules."""
    license_passes = _cached(lambda license: _permitted(license, settings.licenses, str.__eq__))
    host_passes = _cached(lambda host: _permitted(host, settings.hosts, _within))
    words = frozenset(word.lower() for word in settings.url_words)
    reasons: list[list[str]] = []
    for license, url in zip(licenses, urls, strict=True):
        found = [] if license_passes(license.strip().lower()) else [LICENCE_REFUSED]
        if url is not None and not host_passes(host(url)):
            found.append(HOST_REFUSED)
        if url is not None and words and not words.isdisjoint(_URL_SEPARATORS.split(url.lower())):
            found.append(URL_WORD)
        reasons.append(found)
    return reasons


def host(url: str) -> str:
    """Lower-case host of an address, without port and final dot; `""` where it has none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # a broken IPv6 host
        return ""


def _permitted(value: str, names: Names, matches: Callable[[str, str], bool]) -> bool:
    if any(matches(value, name.strip().lower()) for name in names.deny):
        return False
    return not names.allow or any(matches(value, name.strip().lower()) for name in names.allow)


def _within(value: str, parent: str) -> bool:
    return value == parent or value.endswith(f".{parent}")


def _cached(judge: Callable[[str], bool]) -> Callable[[str], bool]:
    """A source has few licences and hosts beside its documents."""
    known: dict[str, bool] = {}

    def look_up(value: str) -> bool:
        if value not in known:
            known[value] = judge(value)
        return known[value]

    return look_up


def _add(reasons: list[list[str]], reason: str, counts: npt.NDArray[np.int64]) -> None:
    for row in np.flatnonzero(counts).tolist():
        reasons[row].append(reason)
