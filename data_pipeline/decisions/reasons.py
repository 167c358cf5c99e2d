"""Every reason to drop a document that follows from the document alone, from its measured columns.

Contract: `against` is pure and columnar; it sees no text, no other document and no clock. The checks and
their order are those of the decision table (data_pipeline/decisions/rules.py):

    licence_refused       its license is denied, or not among the allowed ones
    host_refused          its URL's host is denied, or not among the allowed ones
    url_word              its URL contains a refused word between separators
    wrong_language        its language is not one of the source's (never for kind `code`)
    <feature><<min>       a feature lies below or above the bound of the language's profile
    <feature>><max>
    personal_information  it contains some, and data.personal_information is `drop`
    contaminated          it shares text with a benchmark, and data.decontamination.policy is `drop`

The filter stage adds the reasons that depend on other documents: exact, URL and near duplicates.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.data_schema import Compliance, Names
from configs.features import FEATURES
from configs.schema import Recipe
from data_pipeline.decisions import rules
from data_pipeline.features import pii
from data_pipeline.readers import addresses

_URL_SEPARATORS = re.compile(r"[^0-9a-z\uac00-\ud7a3]+")


def against(measured: pa.Table, source: str, recipe: Recipe) -> list[list[str]]:
    """The reasons of each row of `measured` (the decision table's measured columns) of one source."""
    languages = measured["language"].to_pylist()
    allowed = (*recipe.sources[source].languages, "code")
    columns = {
        **{name: measured[name].to_numpy() for name in (*FEATURES, rules.CONTAMINATION_MATCHES)},
        **compliance(measured["license"].to_pylist(), measured["url"].to_pylist(), recipe.data.compliance),
        rules.WRONG_LANGUAGE: np.array([language not in allowed for language in languages], dtype=bool),
        rules.PII_TOTAL: personal_totals(measured),
    }
    return rules.judge(columns, languages, rules.checks(recipe))


def personal_totals(measured: pa.Table) -> npt.NDArray[np.int64]:
    """How many pieces of personal information each row contains, of any type."""
    totals = np.zeros(measured.num_rows, dtype=np.int64)
    for kind in pii.TYPES:
        totals += measured[f"pii_{kind}"].to_numpy()
    return totals


def compliance(
    licenses: Sequence[str], urls: Sequence[str | None], settings: Compliance
) -> dict[str, npt.NDArray[np.bool_]]:
    """The table's columns on license and URL; a document without a URL passes both URL checks."""
    # A source has few licenses and hosts compared with its documents.
    license_refused = functools.cache(
        lambda license: any(not _permitted(part, settings.licenses, str.__eq__) for part in license.split(", "))
    )
    hosts = Names(
        allow=tuple(_host_entry(name) for name in settings.hosts.allow),
        deny=tuple(_host_entry(name) for name in settings.hosts.deny),
    )
    host_refused = functools.cache(lambda host: not _permitted(host, hosts, _within))
    words = frozenset(word.lower() for word in settings.url_words)
    flags = {
        rules.LICENCE_REFUSED: [license_refused(license.strip().lower()) for license in licenses],
        rules.HOST_REFUSED: [url is not None and host_refused(addresses.host(url)) for url in urls],
        rules.URL_WORD: [
            bool(words and url is not None and not words.isdisjoint(_URL_SEPARATORS.split(url.lower()))) for url in urls
        ],
    }
    return {name: np.array(values, dtype=bool) for name, values in flags.items()}


def _host_entry(name: str) -> str:
    """A host of the recipe (`example.org`, `*.example.org`, 한국.kr, an address) as `addresses.host` spells it."""
    bare = name.strip().removeprefix("*").strip(".")
    return addresses.host(bare) or addresses.host(f"http://{bare}") or bare


def _permitted(value: str, names: Names, matches: Callable[[str, str], bool]) -> bool:
    if any(matches(value, name.strip().lower()) for name in names.deny):
        return False
    return not names.allow or any(matches(value, name.strip().lower()) for name in names.allow)


def _within(value: str, parent: str) -> bool:
    return value == parent or value.endswith(f".{parent}")
