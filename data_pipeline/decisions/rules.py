"""The decision table: every check that a document can fail, and how duplicates settle, as plain data.

Contract: `decision_table(recipe)` is JSON-serialisable. The filter stage and the data report's page both
evaluate it, so a rule is written in one place:

    {"checks": [Check, ...], "duplicates": Duplicates}

A check fails where `column operator bound` holds, for documents in `language` (null: in any). A null bound
never fails. A document's reasons are those of its failed checks, in the table's order, with `{bound}`
replaced by the bound to 12 significant digits (`words<30`). Bounds follow the order of configs/features.py,
so the first reason does not depend on how a recipe is laid out; a document in a language without a profile
(`other`) fails none of them. Policy checks read the columns that data_pipeline/decisions/reasons.py computes.

Documents settle in the order of `duplicates.keep`, those that fail no check first. A document duplicates a kept one
if both have the same value in a column of `duplicates.equal`, or if they are a pair of dedup's `pairs/`; a pair
stands for all documents with the same value in `duplicates.similar.column`. A document that fails no check and
duplicates no kept one is kept. Any other that duplicates a kept one gets one more reason, its last: that of the first
of `equal` that applies, or else that of `similar`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from configs.data_schema import RuleProfiles
from configs.features import FEATURES
from configs.schema import Recipe

LICENCE_REFUSED = "licence_refused"
HOST_REFUSED = "host_refused"
URL_WORD = "url_word"
WRONG_LANGUAGE = "wrong_language"
PERSONAL_INFORMATION = "personal_information"
CONTAMINATED = "contaminated"
PII_TOTAL = "pii_total"
CONTAMINATION_MATCHES = "contamination_matches"

Operator = Literal["<", ">"]
Values = npt.NDArray[Any]
Columns = Mapping[str, Values]

_SIDES: tuple[tuple[Literal["min", "max"], Operator], ...] = (("min", "<"), ("max", ">"))


class Check(TypedDict):
    """One reason to drop a document."""

    reason: str
    column: str
    operator: Operator
    bound: float | None
    language: str | None


class Order(TypedDict):
    column: str
    order: Literal["ascending", "descending"]


class Link(TypedDict):
    column: str
    reason: str


class Duplicates(TypedDict):
    """How duplicates settle."""

    keep: list[Order]
    equal: list[Link]
    similar: Link


DUPLICATES: Duplicates = {
    "keep": [{"column": "bytes", "order": "descending"}, {"column": "id", "order": "ascending"}],
    "equal": [
        {"column": "exact_cluster", "reason": "exact_duplicate"},
        {"column": "url_cluster", "reason": "url_duplicate"},
    ],
    "similar": {"column": "exact_cluster", "reason": "near_duplicate"},
}


def decision_table(recipe: Recipe) -> dict[str, Any]:
    """All that decides about a document, as JSON values."""
    return {"checks": checks(recipe), "duplicates": DUPLICATES}


def checks(recipe: Recipe) -> list[Check]:
    """Every check of the recipe, in the order of reasons."""
    data = recipe.data
    found = [_policy(name, name) for name in (LICENCE_REFUSED, HOST_REFUSED, URL_WORD, WRONG_LANGUAGE)]
    found += bounds(data.rules)
    if data.personal_information == "drop":
        found.append(_policy(PERSONAL_INFORMATION, PII_TOTAL))
    if data.decontamination and data.decontamination.policy == "drop":
        found.append(_policy(CONTAMINATED, CONTAMINATION_MATCHES))
    return found


def bounds(profiles: RuleProfiles) -> list[Check]:
    """A check for each side of each feature in each profile; its bound is None where the recipe sets none."""
    return [
        {
            "reason": f"{feature}{operator}{{bound}}",
            "column": feature,
            "operator": operator,
            "bound": getattr(getattr(profiles, language).get(feature), side, None),
            "language": language,
        }
        for language in RuleProfiles.model_fields
        for feature in FEATURES
        for side, operator in _SIDES
    ]


def judge(columns: Columns, languages: Sequence[str], checks: Sequence[Check]) -> list[list[str]]:
    """The reasons of each document, pure and columnar; `columns` has the column of every check with a bound."""
    reasons: list[list[str]] = [[] for _ in languages]
    language_of = np.array(languages, dtype=object)
    rows_of = {language: np.flatnonzero(language_of == language) for language in set(languages)}
    everything, nothing = np.arange(len(languages)), np.zeros(0, dtype=np.int64)
    for check in checks:
        if (bound := check["bound"]) is None:
            continue
        rows = everything if check["language"] is None else rows_of.get(check["language"], nothing)
        failing = rows[fails(columns[check["column"]][rows], check["operator"], bound)]
        reason = check["reason"].format(bound=f"{bound:.12g}")
        for row in failing.tolist():
            reasons[row].append(reason)
    return reasons


def fails(values: Values, operator: Operator, bound: float) -> npt.NDArray[np.bool_]:
    """Which values are beyond the bound."""
    return np.asarray(values < bound if operator == "<" else values > bound)


def _policy(reason: str, column: str) -> Check:
    return {"reason": reason, "column": column, "operator": ">", "bound": 0, "language": None}
