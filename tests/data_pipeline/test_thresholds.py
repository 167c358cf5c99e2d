"""Thresholds from a reference corpus: never drop more than asked, loosest source wins, nothing invented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.data_schema import Bound
from configs.features import FEATURES
from data_pipeline import tables
from data_pipeline.decisions import rules
from data_pipeline.decisions.thresholds import Columns, Settings, columns_of, joined, share_failing, thresholds
from twofold.errors import UserError

RULES = {
    "characters": Bound(min=100.0),
    "alpha_word_ratio": Bound(min=5.0),
    "mean_word_length": Bound(min=1.0, max=9.0),
    "ellipsis_line_frac": Bound(max=0.15),
}


def columns(documents: int, seed: int, **given: npt.NDArray[np.float64]) -> Columns:
    dice = np.random.default_rng(seed)
    return {name: given.get(name, dice.random(documents)) for name in FEATURES}


@given(
    st.integers(500, 900), st.integers(0, 9), st.sampled_from([0.01, 0.02, 0.1]), st.sampled_from([1.0, 1e-4, 300.0])
)
def test_no_reference_loses_more_than_its_share(documents: int, seed: int, share: float, scale: float) -> None:
    dice = np.random.default_rng(seed)
    skewed = {name: dice.lognormal(size=documents) * scale for name in RULES}
    measured = {"a": columns(documents, seed, **skewed), "b": columns(500, seed + 1), "other": columns(40, seed)}
    found = thresholds(measured, RULES, Settings(("a", "b"), share))
    assert [(t.feature, t.side) for t in found] == [
        ("mean_word_length", "min"),
        ("mean_word_length", "max"),
        ("alpha_word_ratio", "min"),
        ("ellipsis_line_frac", "max"),
    ]
    for threshold in found:
        assert threshold.measured
        assert threshold.documents == documents + 500
        assert max(threshold.dropped["a"], threshold.dropped["b"]) <= share
        value = threshold.value
        for source, values in measured.items():
            part = values[threshold.feature]
            assert threshold.dropped[source] == np.mean(part < value if threshold.side == "min" else part > value)


def test_the_bound_is_as_tight_as_the_share_allows_and_rounded_outwards() -> None:
    values = np.arange(1, 1001) / 1000
    measured = {"a": columns(1000, 0, ellipsis_line_frac=values, alpha_word_ratio=values * 100)}
    found = {t.feature: t for t in thresholds(measured, RULES, Settings(("a",), 0.01, {"alpha_word_ratio": 0.055}))}
    assert found["ellipsis_line_frac"].value == 0.99, "0.99 itself is kept"
    assert found["ellipsis_line_frac"].dropped == {"a": 0.01}
    assert found["alpha_word_ratio"].value == 5.6
    assert found["alpha_word_ratio"].dropped == {"a": 0.055}


@pytest.mark.parametrize("value", [0.28, 0.07, 0.29, 0.58, 1.1, 110.0, 0.0028])
@pytest.mark.parametrize("side", ["min", "max"])
def test_rounding_leaves_two_digits_as_they_are(value: float, side: str) -> None:
    column = np.concatenate((np.full(900, value), np.full(100, value * (0.5 if side == "max" else 2))))
    bounds = {"ellipsis_line_frac": Bound(**{side: 1.0})}
    (found,) = thresholds({"a": columns(1000, 0, ellipsis_line_frac=column)}, bounds, Settings(("a",)))
    assert found.value == value


def test_the_loosest_of_several_references_wins() -> None:
    narrow, wide = (columns(500, 0, ellipsis_line_frac=np.linspace(0, top, 500)) for top in (0.1, 0.4))
    measured = {"narrow": narrow, "wide": wide}
    both, one = (
        {t.feature: t.value for t in thresholds(measured, RULES, Settings(names))}["ellipsis_line_frac"]
        for names in (("narrow", "wide"), ("narrow",))
    )
    assert (both, one) == (0.4, 0.099)


def test_without_a_tail_the_former_value_stays() -> None:
    zeros = np.zeros(1000)
    zeros[:5] = 0.5
    (found,) = thresholds(
        {"a": columns(1000, 0, ellipsis_line_frac=zeros)}, {"ellipsis_line_frac": Bound(max=0.15)}, Settings(("a",))
    )
    assert (found.measured, found.value, found.dropped) == (False, 0.15, {"a": 0.005})


def test_it_judges_as_the_rules_do() -> None:
    measured = {"a": columns(600, 3)}
    found = thresholds(measured, RULES, Settings(("a",), 0.1))
    bounds: dict[str, dict[str, float]] = {}
    for threshold in found:
        bounds.setdefault(threshold.feature, {})[threshold.side] = threshold.value
    profile = {name: Bound(**sides) for name, sides in bounds.items()}
    from configs.data_schema import RuleProfiles

    failed = rules.judge(measured["a"], ["ko"] * 600, rules.bounds(RuleProfiles(ko=profile, en={}, code={})))
    assert share_failing(measured["a"], found) == sum(map(bool, failed)) / 600
    assert share_failing(measured["a"], found, former=True) != share_failing(measured["a"], found)


@pytest.mark.parametrize(
    ("settings", "bounds", "message"),
    [
        (Settings(("small",)), RULES, "--reference = 'small': has 499 documents .* needs 500"),
        (Settings(("nowhere",)), RULES, "has 0 documents"),
        (Settings(("a",), 0.01, {"ellipsis_line_frac": 0.001}), RULES, "needs 5000"),
        (Settings(("a",), 0.0), RULES, "--drop-share = 0.0: is not the share of a tail"),
        (
            Settings(("a",), 0.01, {"ellipsis_line_frac": 0.6}),
            RULES,
            "ellipsis_line_frac = 0.6: is not the share of a tail",
        ),
        (Settings(("a",), 0.01, {"words": 0.02}), RULES, "'words': is not a rule that can be tuned"),
        (Settings(("a",)), {"characters": Bound(min=1.0)}, "has no rule to tune"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(settings: Settings, bounds: dict[str, Bound], message: str) -> None:
    with pytest.raises(UserError, match=message):
        thresholds({"a": columns(600, 0), "small": columns(499, 0)}, bounds, settings)


def test_columns_are_the_documents_of_the_language_that_are_long_enough(tmp_path: Path) -> None:
    rows = {name: [float(n) for n in range(6)] for name in FEATURES} | {"characters": [200.0] * 5 + [10.0]}
    languages = ["ko", "en", "ko", "code", "other", "ko"]
    for task, part in enumerate((slice(0, 2), slice(2, 6))):
        table = pa.table({"language": languages[part], **{name: values[part] for name, values in rows.items()}})
        tables.write_table(tables.task_path(tmp_path, "a", task), table)
    tables.write_table(
        tables.task_path(tmp_path, "none", 0), pa.table({"language": ["en"], **{n: [1.0] for n in FEATURES}})
    )
    found = columns_of(tmp_path, "ko", RULES)
    assert list(found) == ["a"]
    assert found["a"]["ellipsis_line_frac"].tolist() == [0.0, 2.0]


def test_small_references_are_joined() -> None:
    measured = {"a": columns(300, 0), "b": columns(300, 1), "c": columns(20, 2)}
    whole = joined(measured, ["a+b", "c"])
    assert list(whole) == ["c", "a+b"]
    assert np.array_equal(whole["a+b"]["words"], np.concatenate([measured["a"]["words"], measured["b"]["words"]]))
    assert joined(measured, ["a+missing"])["a+missing"]["words"] is not None
