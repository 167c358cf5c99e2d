"""Thresholds of the rules, derived from the features of good text in a language.

Contract: `thresholds` is pure. It turns columns of features into bounds, each with the number of documents it is
based on and the share of every source that it drops. The method follows the idea of FineWeb2 (Penedo et al. 2025:
a language's thresholds follow from the tails of its own reference text, not from English ones):

    1. A rule of the recipe, `min` or `max` of a feature, keeps its side and gets a new value.
    2. Only documents of the language that pass the `FIXED` rules count in a reference source. Lengths, and
       everything that judges what a text says rather than its form, are policy and do not change.
    3. The bound is the tightest that drops at most `drop_share` of a source's documents (an order statistic,
       without assumptions about the distribution), and of several sources the loosest of their bounds, so that
       no kind of good text is sacrificed for another.
    4. It is rounded outwards to two significant digits, which only lowers the share.
    5. Documents that somebody judged good are one more reference, of any size, whichever rules they fail. Too few for
       a tail, they move a bound beyond all of them.
    6. If the reference has no tail (the feature is constant up to the quantile), the previous value stays. If
       fewer than `FEWEST_IN_TAIL` documents would be beyond the bound, that is a `UserError`.

Cost: seconds for 10 million documents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from configs.data_schema import Bound, Language
from configs.features import FEATURES
from data_pipeline import tables
from data_pipeline.decisions import rules as rules_table
from twofold.errors import Problem, UserError, user_error

FIXED = (
    *("characters", "words", "lines", "paragraphs", "sentences", "prose_sentences", "longest_word", "longest_line"),
    *("language_score", "quality_score", "toxicity_score", "broken_character_frac", "hangul_frac"),
    *("spam_terms_per_1000_words", "curly_brackets", "lorem_ipsum", "symbol_frac", "stop_words"),
    *("running_text_frac", "menu_char_frac", "menu_line_frac"),
)
FEWEST_IN_TAIL = 5
GOOD, JUNK = "judged good", "judged junk"
"""Documents that somebody has read, beside the sources. Those judged good are a reference of any size."""
_DIGITS = 2

Side = Literal["min", "max"]
Columns = Mapping[str, npt.NDArray[np.float64]]
Bounds = Mapping[str, Bound]


@dataclass(frozen=True)
class Settings:
    """The caller's choices."""

    reference: tuple[str, ...]
    """Sources of good text; `a+b` treats several small ones as one."""
    drop_share: float = 0.01
    """The share of each reference source that a rule may drop."""
    drop_shares: Mapping[str, float] = field(default_factory=dict)
    """Feature -> its own share."""

    def share_of(self, feature: str) -> float:
        return self.drop_shares.get(feature, self.drop_share)


@dataclass(frozen=True)
class Threshold:
    """One bound, its origin and its effect."""

    feature: str
    side: Side
    value: float
    former: float
    measured: bool
    """False if the reference has no tail, so that the previous value stays."""
    documents: int
    """Documents of the reference that were measured."""
    dropped: Mapping[str, float]
    """Source -> share of its documents beyond `value`."""
    formerly_dropped: Mapping[str, float]


def columns_of(attributes: Path, language: Language, rules: Bounds) -> dict[str, Columns]:
    """Source -> features of its documents of `language` that pass the fixed rules; only sources with such documents."""
    found: dict[str, Columns] = {}
    for source in sorted({source for source, _, _ in tables.task_files(attributes)}):
        files = [path for name, _, path in tables.task_files(attributes) if name == source]
        parts = [tables.read_table(path, ["language", *FEATURES]) for path in files]
        columns = {name: np.concatenate([part[name].to_numpy() for part in parts]) for name in ("language", *FEATURES)}
        passes = columns.pop("language") == language
        for feature in (name for name in FIXED if name in rules):
            for side, bound in _sides(rules[feature]):
                passes &= ~_fails(columns[feature], bound, side)
        if passes.any():
            found[source] = {name: values[passes] for name, values in columns.items()}
    return found


def judged(attributes: Path, language: Language, verdicts: Mapping[str, str]) -> dict[str, Columns]:
    """`GOOD` and `JUNK` -> features of the documents of `language` with that verdict, whatever rules they fail.

    `verdicts`: the id within its source -> `good` or `junk`.
    """
    parts = [tables.read_table(path, ["id", "language", *FEATURES]) for _, _, path in tables.task_files(attributes)]
    found = pa.concat_tables(parts).filter(pc.field("language") == language)
    given = np.array([verdicts.get(identity.partition("/")[2], "") for identity in found["id"].to_pylist()])
    return {
        name: {feature: found[feature].to_numpy()[given == verdict] for feature in FEATURES}
        for name, verdict in ((GOOD, "good"), (JUNK, "junk"))
        if (given == verdict).any()
    }


def joined(columns: Mapping[str, Columns], references: Sequence[str]) -> dict[str, Columns]:
    """`columns`, with the parts of each reference `a+b` joined into one source of that name."""
    whole = dict(columns)
    for reference in (name for name in references if "+" in name):
        parts = [whole.pop(name) for name in reference.split("+") if name in whole]
        if parts:
            whole[reference] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return whole


def thresholds(columns: Mapping[str, Columns], rules: Bounds, settings: Settings) -> list[Threshold]:
    """A bound for each rule that is not fixed, in the order of configs/features.py."""
    features = [name for name in FEATURES if name in rules and name not in FIXED]
    _check(columns, features, settings)
    return [
        _threshold(columns, feature, side, former, settings)
        for feature in features
        for side, former in _sides(rules[feature])
    ]


def share_failing(columns: Columns, found: Sequence[Threshold], former: bool = False) -> float:
    """The share of documents that at least one of the thresholds drops."""
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
    dropped, formerly_dropped = (
        {source: float(_fails(found[feature], bound, side).mean()) for source, found in columns.items()}
        for bound in (value, former)
    )
    documents = sum(map(len, values))
    return Threshold(feature, side, value, former, bool(bounds), documents, dropped, formerly_dropped)


def _tail(values: npt.NDArray[np.float64], side: Side, share: float) -> float | None:
    """The bound with at most `share` of the values beyond it; None if all values up to it are equal."""
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
    # 0.28 * 100 is slightly above 28; a real step outwards is never that small.
    nearest = round(scaled)
    whole = nearest if math.isclose(scaled, nearest, rel_tol=1e-9) else (math.floor, math.ceil)[side == "max"](scaled)
    return round(whole / 10.0**decimals, max(0, decimals))


def _sides(bound: Bound) -> list[tuple[Side, float]]:
    """The sides of a rule that have a bound."""
    sides: tuple[tuple[Side, float | None], ...] = (("min", bound.min), ("max", bound.max))
    return [(side, value) for side, value in sides if value is not None]


def _fails(values: npt.NDArray[np.float64], bound: float, side: Side) -> npt.NDArray[np.bool_]:
    return rules_table.fails(values, "<" if side == "min" else ">", bound)


def _check(columns: Mapping[str, Columns], features: Sequence[str], settings: Settings) -> None:
    problems = []
    for name, share in {"--drop-share": settings.drop_share, **settings.drop_shares}.items():
        if not 0 < share < 0.5:
            problems.append(Problem(name, share, "is not the share of a tail", "use a number between 0 and 0.5"))
        elif name != "--drop-share" and name not in features:
            known = ", ".join(features)
            problems.append(Problem("--drop-share", name, "is not a rule that can be tuned", f"use one of {known}"))
    if not features:
        problems.append(Problem("data.rules", None, "has no rule to tune", "give the language's profile some"))
    if problems:
        raise UserError(problems)
    smallest = min(settings.share_of(feature) for feature in features)
    needed = math.ceil(FEWEST_IN_TAIL / smallest)
    for source in settings.reference:
        documents = len(columns[source]["words"]) if source in columns else 0
        if documents < needed and source != GOOD:
            found = f"has {documents} documents of the language that pass the rules on length"
            hint = "name a larger source, join several as A+B, or raise --drop-share"
            raise user_error("--reference", source, f"{found}; a tail of {smallest:g} needs {needed}", hint)
