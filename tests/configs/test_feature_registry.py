"""A rule is added in one place: an entry of the registry reaches schema, attributes and rules."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

ADDED = """
from configs.features import FEATURES, Feature
FEATURES["digits_per_word"] = Feature("digits per word", "digits", "words")

from configs.data_schema import NearDuplicates, RuleProfiles
from data_pipeline.decisions import rules
from data_pipeline.features.formulas import features_of
from data_pipeline.stages import filter, score

profiles = RuleProfiles.model_validate({"ko": {}, "en": {"digits_per_word": {"max": 1}}, "code": {}})
columns = features_of(["route 66 1", "no digits"], ["en", "en"])
columns |= {name: columns["words"] for name in FEATURES if name not in columns}
assert columns["digits_per_word"].tolist() == [1.0, 0.0], columns["digits_per_word"]
columns["digits_per_word"] = columns["words"]
assert rules.judge(columns, ["en", "en"], rules.bounds(profiles)) == [["digits_per_word>1"]] * 2
assert score.schema(NearDuplicates()).field("digits_per_word").type == "double"
assert score.attributes("route 66 1", "text", NearDuplicates(), {})["digits_per_word"] == 1.0
assert score.formula_table()["digits_per_word"] == ["digits", "words", 1, 1, None]
"""


def test_one_entry_adds_a_rule_everywhere():
    """Registered before anything else is imported, as an entry in the file would be."""
    subprocess.run([sys.executable, "-c", ADDED], check=True, cwd=ROOT)
