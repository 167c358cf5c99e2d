"""Bounds on features -> the rules that each document fails, every one of them.

Contract: `failures` is pure and works on columns (10 million comparisons a second). A failed rule is
named `<feature><<min>` or `<feature>><max>` (`words<30`, `top_2gram_char_frac>0.28`), and rules are
judged in the order of configs/features.py, so the first reason does not depend on how a recipe is
laid out. A document in a language without a profile (`other`) fails no rule here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from configs.data_schema import Bound, RuleProfiles
from configs.features import FEATURES

Columns = Mapping[str, npt.NDArray[np.float64]]

_PROFILES = {"ko": 1, "en": 2, "code": 3}


def failures(columns: Columns, languages: Sequence[str], profiles: RuleProfiles) -> list[list[str]]:
    """For each document the names of the rules it fails; `columns` has every bounded feature."""
    failed: list[list[str]] = [[] for _ in languages]
    profile_of = np.fromiter((_PROFILES.get(language, 0) for language in languages), np.int8, len(languages))
    for language, profile in _PROFILES.items():
        rules, chosen = getattr(profiles, language), np.flatnonzero(profile_of == profile)
        for feature in (name for name in FEATURES if name in rules):
            values = columns[feature][chosen]
            for name, fails in _judged(feature, rules[feature], values):
                for row in chosen[fails].tolist():
                    failed[row].append(name)
    return failed


def _judged(feature: str, bound: Bound, values: npt.NDArray[np.float64]) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    judged = []
    if bound.min is not None:
        judged.append((f"{feature}<{bound.min:.12g}", values < bound.min))
    if bound.max is not None:
        judged.append((f"{feature}>{bound.max:.12g}", values > bound.max))
    return judged
