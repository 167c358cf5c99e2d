"""The verdicts are well-formed, and shares have Wilson's intervals."""

from __future__ import annotations

import csv

import pytest

from benchmarks import judged_sample


def test_every_verdict_has_a_known_source_a_verdict_and_a_reason() -> None:
    with judged_sample.VERDICTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    known = {source for sources in judged_sample.KINDS.values() for source in sources}
    assert {row["source"] for row in rows} <= known
    assert {row["verdict"] for row in rows} == {"good", "junk"}
    assert all(row["reason"] for row in rows)
    assert len({(row["source"], row["id"]) for row in rows}) == len(rows) >= 200


def test_shares_have_wilsons_interval() -> None:
    """The interval of 10 of 100 is the textbook's."""
    found = judged_sample._share(10, 100)
    assert (found["share"], found["low"], found["high"]) == pytest.approx((0.1, 0.0552, 0.1744), abs=1e-4)
    assert judged_sample._share(0, 0) == {"share": 0.0, "low": 0.0, "high": 1.0}


@pytest.mark.corpus
def test_wrong_drops_and_wrong_keeps_stay_rare(corpus_dir) -> None:
    found = judged_sample.evaluate(corpus_dir, judged_sample.read_verdicts())["ours"]["all"]
    assert found["wrong_drops"]["share"] <= 0.1
    assert found["wrong_keeps"]["share"] <= 0.12
