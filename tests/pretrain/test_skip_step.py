"""What counts as a spike, and that the guard remembers through a checkpoint."""

from __future__ import annotations

import json
import math
import random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Stability
from pretrain.hooks.skip_step import SpikeGuard

CFG = Stability(rolling_interval_length=16, sigma_factor=6.0, rollback_after=3, attempts=2)


def _steady(guard: SpikeGuard, steps: int, phase: int = 0, seed: int = 0) -> None:
    noise = random.Random(seed)
    for _ in range(steps):
        assert guard.judge(phase, 3.0 + noise.gauss(0, 0.02), math.exp(noise.gauss(0, 0.1))).verdict == "accepted"


def test_nothing_is_judged_before_half_a_window() -> None:
    guard = SpikeGuard(CFG)
    _steady(guard, 7)
    assert guard.judge(0, 30.0, 1e6).verdict == "accepted"
    guard = SpikeGuard(CFG)
    _steady(guard, 8)
    assert guard.judge(0, 30.0, 1.0).verdict == "spike"


@pytest.mark.parametrize(("loss", "norm"), [(3.6, 1.0), (3.0, 20.0), (30.0, 1e9)])
def test_a_loss_or_a_norm_far_above_the_others_is_a_spike(loss: float, norm: float) -> None:
    guard = SpikeGuard(CFG)
    _steady(guard, 16)
    found = guard.judge(0, loss, norm)
    assert found.verdict == "spike"
    assert found.loss_limit is not None
    assert found.norm_limit is not None
    assert loss > found.loss_limit or norm > found.norm_limit
    _steady(guard, 3, seed=1)


def test_a_fall_is_never_a_spike() -> None:
    guard = SpikeGuard(CFG)
    _steady(guard, 16)
    assert guard.judge(0, 1.0, 0.01).verdict == "accepted"


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (3.0, math.nan), (math.inf, 1.0), (3.0, -1.0)])
@pytest.mark.parametrize("spikes", ["off", "skip"])
def test_what_is_not_finite_is_never_accepted(loss: float, norm: float, spikes: str) -> None:
    guard = SpikeGuard(Stability(spikes=spikes))
    assert guard.judge(0, loss, norm).verdict == "not finite"
    assert guard.bad_in_a_row == 1


def test_spikes_are_let_through_when_the_recipe_says_off() -> None:
    guard = SpikeGuard(CFG.model_copy(update={"spikes": "off"}))
    _steady(guard, 16)
    assert guard.judge(0, 30.0, 1e6).verdict == "accepted"


def test_another_phase_is_another_level() -> None:
    guard = SpikeGuard(CFG)
    _steady(guard, 16)
    assert guard.judge(1, 8.0, 50.0).verdict == "accepted"


def test_a_rollback_is_wanted_after_so_many_bad_steps_in_a_row() -> None:
    guard = SpikeGuard(CFG)
    _steady(guard, 16)
    wanted = []
    for loss in (9.0, 9.0, 3.0, 9.0, 9.0, 9.0):
        guard.judge(0, loss, 1.0)
        wanted.append(guard.wants_rollback())
    assert wanted == [False] * 5 + [True]
    skipping = SpikeGuard(CFG.model_copy(update={"spikes": "skip"}))
    _steady(skipping, 16)
    for _ in range(5):
        skipping.judge(0, 9.0, 1.0)
    assert not skipping.wants_rollback()


def test_only_rollbacks_within_a_window_count() -> None:
    guard = SpikeGuard(CFG)
    guard.rollbacks = [10, 90, 99]
    assert guard.recent_rollbacks(100) == [90, 99]


losses = st.lists(st.one_of(st.floats(0.5, 12), st.just(math.nan)), min_size=1, max_size=60)


@given(before=losses, after=losses)
def test_a_guard_restored_from_json_judges_as_the_one_that_went_on(before: list[float], after: list[float]) -> None:
    guard = SpikeGuard(CFG)
    for loss in before:
        guard.judge(0, loss, loss / 2)
    other = SpikeGuard(CFG)
    other.remember(json.loads(json.dumps(guard.memory())))
    for number, loss in enumerate(after):
        phase = number // 30
        assert guard.judge(phase, loss, loss / 2) == other.judge(phase, loss, loss / 2)
        assert guard.wants_rollback() == other.wants_rollback()


@given(values=st.lists(st.floats(0.5, 12), min_size=16, max_size=16), loss=st.floats(0.1, 20))
def test_the_limit_is_the_formula(values: list[float], loss: float) -> None:
    guard = SpikeGuard(CFG.model_copy(update={"sigma_factor": 4.0, "rolling_interval_length": 32}))
    for value in values:
        guard.judge(0, value, 1.0)
    middle = median(values)
    limit = middle + 4.0 * max(0.02, 1.4826 * median(abs(value - middle) for value in values))
    found = guard.judge(0, loss, 1.0)
    assert found.loss_limit == pytest.approx(limit)
    assert (found.verdict == "spike") == (loss > found.loss_limit)
