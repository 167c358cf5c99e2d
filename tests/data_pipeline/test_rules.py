"""Bounds -> names of failed rules."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from configs.data_schema import Bound, RuleProfiles
from configs.features import FEATURES
from data_pipeline.decisions import rules


def _columns(count: int, **values: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(values.get(name, [0.0] * count), dtype=np.float64) for name in FEATURES}


def test_every_failed_rule_is_named_in_the_order_of_features():
    korean = {"top_2gram_char_frac": Bound(max=0.28), "words": Bound(min=30, max=100_000), "characters": Bound(min=150)}
    profiles = RuleProfiles(ko=korean, en={"words": Bound(max=1_000_000)}, code={"words": Bound(min=1.5)})
    columns = _columns(
        5, words=[29, 30, 2e6, 1, 1], characters=[149, 150, 9, 9, 9], top_2gram_char_frac=[0.3, 0.28, 1, 1, 1]
    )
    assert rules.judge(columns, ["ko", "ko", "en", "code", "other"], rules.bounds(profiles)) == [
        ["characters<150", "words<30", "top_2gram_char_frac>0.28"],
        [],
        ["words>1000000"],
        ["words<1.5"],
        [],
    ]


@given(st.lists(st.floats(0, 100), max_size=30), st.floats(0, 100), st.floats(0, 100))
def test_a_document_passes_exactly_within_the_bounds(values, first, second):
    low, high = sorted((first, second))
    profiles = RuleProfiles(ko={"words": Bound(min=low, max=high)}, en={}, code={})
    failed = rules.judge(_columns(len(values), words=values), ["ko"] * len(values), rules.bounds(profiles))
    assert [not names for names in failed] == [low <= value <= high for value in values]


def test_the_decision_table_is_plain_data_in_the_order_of_reasons(make_recipe):
    bounds = {"ko": {"words": {"min": 30}}, "en": {"characters": {"max": 9}}, "code": {}}
    recipe = make_recipe({"s": {"path": "x"}}, rules=bounds, personal_information="drop")
    table = rules.decision_table(recipe)
    assert json.loads(json.dumps(table)) == table
    checks = table["checks"]
    assert [check["reason"] for check in checks if check["language"] is None] == [
        "licence_refused",
        "host_refused",
        "url_word",
        "wrong_language",
        "personal_information",
    ]
    assert [(check["language"], check["reason"], check["bound"]) for check in checks[4:-1] if check["bound"]] == [
        ("ko", "words<{bound}", 30),
        ("en", "characters>{bound}", 9),
    ]
    assert len(checks) == 5 + 3 * 2 * len(FEATURES), "bounds that a recipe does not set are null"
