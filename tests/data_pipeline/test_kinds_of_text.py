"""The shipped rules keep every kind of good text, however it is laid out, and drop every kind of junk."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks import judged_sample
from configs.data_schema import Lines
from data_pipeline.features import line_rules

TEXTS = yaml.safe_load(Path(__file__).with_name("kinds_of_text.yaml").read_text(encoding="utf-8"))
GOOD: dict[str, str] = TEXTS["good"]
JUNK: dict[str, str] = TEXTS["junk"]


@pytest.mark.parametrize("kind", GOOD)
def test_good_text_is_kept_whatever_its_layout(kind: str) -> None:
    assert judged_sample.reasons(judged_sample.edited(GOOD[kind]), is_code=False) == []


@pytest.mark.parametrize("kind", JUNK)
def test_junk_is_dropped(kind: str) -> None:
    assert judged_sample.reasons(judged_sample.edited(JUNK[kind]), is_code=False)


def test_paragraphs_about_privacy_stay_whole() -> None:
    text = GOOD["en about privacy"]
    assert line_rules.judged(text, range(text.count("\n") + 1), Lines().drop) == {}
