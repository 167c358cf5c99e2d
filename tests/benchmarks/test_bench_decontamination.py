"""The decontamination benchmark's own figures, on a corpus of a few lines (datatrove's side needs spaCy)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import decontamination
from benchmarks.decontamination import Finder
from data_pipeline.features.overlap import Overlaps

ITEM = "A ferry leaves Tarrick Sound every forty minutes, and the crossing takes a quarter of an hour, " * 2
HOST = "The harbour was built of stone, and people have walked to it ever since on Sundays and holidays. "


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folders = {
        "benchmarks/arc": [ITEM], "benchmarks/gsm8k-test": [ITEM.upper()], "benchmarks/piqa": ["a short one"],
        "general/en-text/a": [HOST], "domain/law/b": [HOST, HOST + ITEM],
    }  # fmt: skip
    for folder, texts in folders.items():
        (tmp_path / folder).mkdir(parents=True)
        lines = [json.dumps({"text": text}) for text in texts]
        (tmp_path / folder / "0000.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_recall_is_whole_where_the_wording_is_and_theory_is_near(corpus: Path) -> None:
    finder = Finder(corpus)
    planted = decontamination.plant(finder, "english", [HOST * 5] * 200)
    found = {form: decontamination._recall(finder, texts) for form, texts in planted.items()}
    assert {form: figures["full"] for form, figures in found.items()} == {
        "none": 0, "whole": 1, "half": 1, "retyped": 1, "words_replaced": 0
    }  # fmt: skip
    for figures in found.values():
        assert figures["unconfirmed"] == 0
        assert figures["sampled"] == pytest.approx(figures["sampled_in_theory"], abs=0.05)


def test_what_is_in_the_corpus_is_counted_by_source(corpus: Path) -> None:
    found = decontamination.real_overlap(Finder(corpus), corpus)
    assert found["without_any"] == {"sources": 1, "documents": 1}
    assert found["domain/law/b"]["by_benchmark"] == {"arc": 1, "gsm8k-test": 1}
    assert (found["domain/law/b"]["documents"], found["domain/law/b"]["full"]) == (2, 1)


def test_a_pair_that_shares_nothing_is_not_confirmed(corpus: Path) -> None:
    wrong = Overlaps(np.zeros(1, np.int64), np.zeros(1), np.zeros(1, np.int64), np.array([[0, 0]]))
    assert decontamination.unconfirmed(Finder(corpus).items, [HOST], wrong, 50) == 1
