"""Thresholds of the rules, derived from what good text of a language measures.

Contract: `thresholds` is pure: columns of features in, bounds out, with how many documents each rests on
and the share that it drops of every source. The method is FineWeb2's in spirit (Penedo et al. 2025: a
language's thresholds follow from the tails of its reference text, not from English ones):

    1. A rule of the recipe, `min` or `max` of a feature, keeps its side and gets another value.
    2. Of each reference source, only documents of the language that pass the `FIXED` rules count: lengths
       and everything that judges what a text says, not how it is built, are policy and stay as they are.
    3. The bound is the loosest that drops at most `drop_share` of the source's documents (an order
       statistic, no assumption about the distribution), and of several sources the loosest one, so that
       no kind of good text is paid for with another.
    4. It is rounded outwards to two significant digits, which only lowers the share.
    5. Where even the reference has no tail (the feature is constant up to the quantile) or fewer than
       `FEWEST_IN_TAIL` documents would lie beyond it, there is nothing to measure: the former value stays
       in the first case, the second is a `UserError`.

Cost: some columns of numbers; seconds for 10 million documents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from configs.data_schema import Bound, Language
from configs.features import FEATURES
from data_pipeline import tables
from twofold.errors import Problem, UserError, user_error

FIXED = (
    *("characters", "words", "lines", "paragraphs", "sentences", "prose_sentences", "longest_word", "longest_line"),
    *("language_score", "quality_score", "toxicity_score", "broken_character_frac", "hangul_frac"),
    *("spam_terms_per_1000_words", "curly_brackets", "lorem_ipsum", "symbol_frac"),
)
FEWEST_IN_TAIL = 5
_DIGITS = 2

Side = Literal["min", "max"]
Columns = Mapping[str, npt.NDArray[np.float64]]
Bounds = Mapping[str, Bound]


@dataclass(frozen=True)
class Settings:
    """What the caller chooses."""

    reference: tuple[str, ...]
    """Sources of good text; `a+b` takes several small ones as one."""
    drop_share: float = 0.01
    """Of each reference source, by each rule."""
    drop_shares: Mapping[str, float] = field(default_factory=dict)
    """Feature -> another share."""

    def share_of(self, feature: str) -> float:
        return self.drop_shares.get(feature, self.drop_share)


@dataclass(frozen=True)
class Threshold:
    """One bound, where it comes from, and what it does."""

    feature: str
    side: Side
    value: float
    former: float
    measured: bool
    """False: the reference has no tail, the former value stays."""
    documents: int
    """Of the reference that were measured."""
    dropped: Mapping[str, float]
    """Source -> share of its documents beyond `value`."""
    formerly_dropped: Mapping[str, float]


def columns_of(attributes: Path, language: Language, rules: Bounds) -> dict[str, Columns]:
    """Source -> features of its documents of `language` that pass the fixed rules; sources without one are left out."""
    found: dict[str, Columns] = {}
    for source in sorted({source for source, _, _ in tables.task_files(attributes)}):
        files = [path for name, _, path in tables.task_files(attributes) if name == source]
        parts = [tables.read_table(path, ["language", *FEATURES]) for path in files]
        columns = {name: np.concatenate([part[name].to_numpy() for part in parts]) for name in ("language", *FEATURES)}
        passes = columns.pop("language") == language
        for feature in (name for name in FIXED if name in rules):
            passes &= ~_fails(columns[feature], rules[feature].min, "min")
            passes &= ~_fails(columns[feature], rules[feature].max, "max")
        if passes.any():
            found[source] = {name: values[passes] for name, values in columns.items()}
    return found


def joined(columns: Mapping[str, Columns], references: Sequence[str]) -> dict[str, Columns]:
    """`columns` with the parts of each reference `a+b` as one source of that name."""
    whole = dict(columns)
    for reference in (name for name in references if "+" in name):
        parts = [whole.pop(name) for name in reference.split("+") if name in whole]
        if parts:
            whole[reference] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return whole


def thresholds(columns: Mapping[str, Columns], rules: Bounds, settings: Settings) -> list[Threshold]:
    """A bound for each of `rules` that is not fixed, in the order of configs/features.py."""
    sides: list[tuple[str, Side, float]] = []
    for feature in (name for name in FEATURES if name in rules and name not in FIXED):
        bound = rules[feature]
        sides += [(feature, "min", bound.min)] if bound.min is not None else []
        sides += [(feature, "max", bound.max)] if bound.max is not None else []
    _check(columns, [feature for feature, _, _ in sides], settings)
    return [_threshold(columns, feature, side, former, settings) for feature, side, former in sides]


def share_failing(columns: Columns, found: Sequence[Threshold], former: bool = False) -> float:
    """Share of documents that at least one of the thresholds drops."""
    failing = np.zeros(len(columns["words"]), dtype=bool)
    for threshold in found:
        value = threshold.former if former else threshold.value
        failing |= _fails(columns[threshold.feature], value, threshold.side)
    return float(failing.mean())


def _threshold(
    columns: Mapping[str, Columns], feature: str, side: Side, former: float, settings: Settings
) -> Threshold:
    values = [columns[source][feature] for source in settings.reference]
    bounds = [bound for part in values if (bound := _tail(part, side, settings.share_of(feature))) is not None]
    loosest = (max if side == "max" else min)(bounds, default=former)
    value = _rounded(loosest, side) if bounds else former
    return Threshold(
        feature=feature,
        side=side,
        value=value,
        former=former,
        measured=bool(bounds),
        documents=sum(map(len, values)),
        dropped={source: float(_fails(found[feature], value, side).mean()) for source, found in columns.items()},
        formerly_dropped={
            source: float(_fails(found[feature], former, side).mean()) for source, found in columns.items()
        },
    )


def _tail(values: npt.NDArray[np.float64], side: Side, share: float) -> float | None:
    """The bound beyond which at most `share` of the values lie; None if all up to it are the same."""
    ordered = np.sort(values)
    beyond = int(share * len(ordered))
    bound, farthest = (ordered[beyond], ordered[-1]) if side == "min" else (ordered[-1 - beyond], ordered[0])
    return None if bound == farthest else float(bound)


def _rounded(value: float, side: Side) -> float:
    """Outwards to two significant digits: down for `min`, up for `max`."""
    if not value:
        return 0.0
    decimals = _DIGITS - 1 - math.floor(math.log10(abs(value)))
    scaled = value * 10.0**decimals
    # 0.28 * 100 is a little above 28; a true step outwards is never so small.
    nearest = round(scaled)
    whole = nearest if math.isclose(scaled, nearest, rel_tol=1e-9) else (math.floor, math.ceil)[side == "max"](scaled)
    return round(whole / 10.0**decimals, max(0, decimals))


def _fails(values: npt.NDArray[np.float64], bound: float | None, side: Side) -> npt.NDArray[np.bool_]:
    """As data_pipeline/decisions/rules.py judges."""
    if bound is None:
        return np.zeros(len(values), dtype=bool)
    return values < bound if side == "min" else values > bound


def _check(columns: Mapping[str, Columns], features: Sequence[str], settings: Settings) -> None:
    problems = []
    for name, share in {"--drop-share": settings.drop_share, **settings.drop_shares}.items():
        if not 0 < share < 0.5:
            problems.append(Problem(name, share, "is no share of a tail", "use a number between 0 and 0.5"))
        elif name != "--drop-share" and name not in features:
            known = ", ".join(features)
            problems.append(Problem("--drop-share", name, "is no rule that calibration moves", f"use one of {known}"))
    if not features:
        problems.append(Problem("data.rules", None, "has no rule to calibrate", "give the language's profile some"))
    if problems:
        raise UserError(problems)
    smallest = min(settings.share_of(feature) for feature in features)
    needed = math.ceil(FEWEST_IN_TAIL / smallest)
    for source in settings.reference:
        documents = len(columns[source]["words"]) if source in columns else 0
        if documents < needed:
            raise user_error(
                "--reference", source,
                f"has {documents} documents of the language that pass the rules on length; "
                f"a tail of {smallest:g} needs {needed}",
                "name a larger source, join several as A+B, or raise --drop-share",
            )  # fmt: skip
