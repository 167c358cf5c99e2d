"""Checkpoint intervals: the minimum is one, rare failures give Young's and Daly's, a simulation agrees."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.recipe import load_recipe
from launch.planner import goodput
from launch.planner.goodput import Saving
from launch.planner.hardware import GPUS, Constants

RECIPE = load_recipe("configs/exaone3_7p8b.yaml")
costs = st.builds(
    Saving,
    pause=st.floats(0.01, 120),
    write=st.floats(0.5, 600),
    restart=st.floats(10, 3600),
    failures_per_s=st.floats(1e-7, 1e-4),
)


@given(costs, st.floats(0.02, 50))
def test_no_interval_is_better_than_the_best(saving: Saving, factor: float) -> None:
    best = goodput.best(saving)
    other = max(best.seconds * factor, saving.write, saving.pause)
    assert goodput.goodput(saving, other) <= best.goodput + 1e-7
    assert 0 < best.goodput < 1


def test_rare_failures_give_youngs_and_dalys_interval() -> None:
    saving = Saving(pause=30.0, write=1.0, restart=0.0, failures_per_s=1e-8)
    assert goodput.best(saving).seconds == pytest.approx(math.sqrt(2 * 30.0 / 1e-8), rel=0.01)


def test_without_failures_nothing_is_lost_but_pauses() -> None:
    assert goodput.goodput(Saving(10.0, 60.0, 600.0, 0.0), 990.0) == pytest.approx(0.99)


@pytest.mark.parametrize("interval", [900.0, 3600.0])
def test_a_simulation_of_failures_agrees(interval: float) -> None:
    """Stretches of interval and pause; a failure costs the stretch so far, what was being written, and a restart."""
    saving = Saving(pause=20.0, write=100.0, restart=600.0, failures_per_s=1 / 20_000)
    draw = random.Random(7)
    stretch, lost = interval + saving.pause, saving.restart + saving.write
    kept = spent = 0.0
    for _ in range(40_000):
        until = draw.expovariate(saving.failures_per_s)
        while until < stretch:
            spent += until + lost
            until = draw.expovariate(saving.failures_per_s)
        spent += stretch
        kept += interval
    assert kept / spent == pytest.approx(goodput.goodput(saving, interval), rel=0.01)


def test_a_checkpoint_of_the_7p8b_model() -> None:
    constants = Constants()
    saving = goodput.saving(RECIPE, 512, GPUS["h100"], constants)
    whole = 12 * 7_818_448_896
    assert goodput.checkpoint_bytes(RECIPE) == whole
    assert saving.pause == pytest.approx(whole / 512 / 4e9)
    assert saving.write == pytest.approx(whole / 100e9 + whole / 512 / 1e9)
    assert 1 / saving.failures_per_s == pytest.approx(86_400 / (512 * 4.7e-4))


def test_storage_of_eight_trillion_tokens() -> None:
    found = goodput.storage(RECIPE)
    assert found["token shards"] == 32_000_000_000_000
    assert found["checkpoints"] == (4 + 2 + 1) * goodput.checkpoint_bytes(RECIPE)
