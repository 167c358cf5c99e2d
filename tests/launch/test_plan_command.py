"""`twofold plan` draws a recipe without data, and passes over the sources where shards are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.launch.conftest import SMOKE, twofold


def test_the_7p8b_recipe_is_drawn_without_its_data(tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    code, out, err = twofold("plan", str(ROOT / "configs" / "exaone3_7p8b.yaml"), "--out", str(page))
    assert (code, err) == (0, "")
    for fact in ("6.00T", "2.00T", "1,430,511", "476,837", str(page)):
        assert fact in out, fact
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 3
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!#)', re.sub(r'xlink:href="#[^"]*"', "", text))


def test_ramps_replay_and_passes_are_shown(packed_run: Path, tmp_path: Path) -> None:
    overrides = ("phases.general.rampup_batch_size=[{until: 40K, global_batch_size: 2048}]", "phases.domain.replay=0.1")
    code, out, err = twofold(
        "plan", str(SMOKE), f"run_dir={packed_run}", *overrides, "--out", str(tmp_path / "plan.html")
    )
    assert (code, err) == (0, "")
    assert "2,048 → 4,096" in out
    passes = [line.split() for line in out.splitlines() if line.startswith("domain")][1:]
    assert {row[1] for row in passes} >= {"law", "ko-web"}
    assert all(float(row[-2]) > 0 for row in passes)


def test_a_supply_that_cannot_fill_the_plan_is_an_error(packed_run: Path, tmp_path: Path) -> None:
    code, _, err = twofold(
        "plan",
        str(SMOKE),
        f"run_dir={packed_run}",
        "phases.domain.max_epochs={law: 0.1}",
        "--out",
        str(tmp_path / "plan.html"),
    )
    assert code == 2
    assert "phases.domain.mixture.law" in err


@pytest.mark.parametrize("option", ["phases.domain.tokens=0"])
def test_an_impossible_plan_is_told(option: str) -> None:
    code, _, err = twofold("plan", str(SMOKE), option)
    assert code == 2
    assert "tokens" in err
