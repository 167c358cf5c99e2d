"""Phases: ramps in whole batches, replay written out, rates that meet, caps by source."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from configs.phase_schema import Phase, with_replay
from configs.recipe import dump_recipe, load_recipe, parse_recipe
from tests.conftest import ROOT
from twofold.errors import UserError

SMOKE = ROOT / "configs" / "smoke.yaml"
SCHEDULER = {"schedule": "constant", "lr": 1e-3}


def _phase(**fields: Any) -> Phase:
    base = {"name": "one", "tokens": 4096, "sequence_length": 16, "global_batch_size": 256, "lr_scheduler": SCHEDULER}
    return Phase(**{**base, "mixture": {"a": 0.5, "b": 0.5}, **fields})


@st.composite
def ramped(draw: st.DrawFn) -> Phase:
    length = draw(st.integers(1, 8))
    batches = draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
    tokens = draw(st.integers(batches[0] * length, 40_000))
    ends = draw(st.lists(st.integers(1, max(1, tokens - 1)), unique=True, max_size=len(batches) - 1).map(sorted))
    if tokens == 1:
        ends = []
    ramp = [{"until": end, "global_batch_size": batch * length} for end, batch in zip(ends, batches, strict=False)]
    return _phase(
        tokens=tokens, sequence_length=length, global_batch_size=batches[len(ends)] * length, rampup_batch_size=ramp
    )


@example(
    _phase(
        tokens=57,
        sequence_length=3,
        global_batch_size=6,
        rampup_batch_size=[{"until": 55, "global_batch_size": 6}, {"until": 56, "global_batch_size": 3}],
    )
)
@given(ramped())
def test_segments_are_whole_batches_one_after_the_other(phase: Phase) -> None:
    for former, segment in pairwise(phase.segments):
        assert segment.first_step == former.first_step + former.steps
        assert segment.first_sample * phase.sequence_length == (
            former.first_sample * phase.sequence_length + former.steps * former.global_batch_size
        )
    # The slow reference: step after step, the batch of the first ramp that is not over yet.
    tokens = steps = 0
    while True:
        batch = next(
            (ramp.global_batch_size for ramp in phase.rampup_batch_size if tokens < ramp.until), phase.global_batch_size
        )
        if tokens + batch > phase.tokens:
            break
        tokens, steps = tokens + batch, steps + 1
    batches = [*(ramp.global_batch_size for ramp in phase.rampup_batch_size), phase.global_batch_size]
    if batches == sorted(batches):  # else a smaller batch may still fit
        assert (phase.steps, phase.trained_tokens) == (steps, tokens)
    assert phase.samples * phase.sequence_length == phase.trained_tokens <= phase.tokens


def test_replay_is_written_out_once() -> None:
    first = _phase(mixture={"a": 0.75, "b": 0.25})
    second = _phase(name="two", mixture={"b": 0.5, "c": 0.5}, replay=0.2)
    _, found = with_replay((first, second))
    assert found.mixture == pytest.approx({"b": 0.45, "c": 0.4, "a": 0.15})
    assert found.replay == 0
    assert with_replay((first, found)) == (first, found)


def test_a_recipe_with_replay_resolves_to_itself() -> None:
    recipe = load_recipe(SMOKE, ["phases.domain.replay=0.3"])
    assert sum(recipe.phases[1].mixture.values()) == pytest.approx(1)
    assert recipe.phases[1].mixture["ko-web"] == pytest.approx(0.3 * 0.14)
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["phases.general.replay=0.3"], "where there is nothing to replay"),
        (["phases.domain.replay=1"], "replay"),
        (["phases.general.tokens=0"], "phases.0.tokens|phases.general.tokens"),
        (["phases.general.tokens=100"], "fewer than one batch"),
        (["phases.general.rampup_batch_size=[{until: 1K, global_batch_size: 100}]"], "no multiple of sequence_length"),
        (["phases.general.rampup_batch_size=[{until: 900K, global_batch_size: 2048}]"], "below `tokens`"),
        (
            [
                "phases.general.rampup_batch_size="
                "[{until: 8K, global_batch_size: 2048}, {until: 4K, global_batch_size: 1024}]"
            ],
            "above the one before it",
        ),
        (
            ["phases.general.rampup_batch_size=[{until: 8K, global_batch_size: 1152}]", "launch.device=cpu"],
            "is 9 sequences, not divisible",
        ),
        (["phases.domain.lr_scheduler.lr=2e-3"], "does not match the 0.004 that phase general ends with"),
        (["phases.domain.max_epochs={moon: 2}"], "moon.*is not in the phase's mixture"),
        (["phases.general.lr_scheduler.decay_type=sqrt"], "use it with wsd only"),
        (["model.start_at_phase=domain"], "with random weights"),
        (["model.start_at_phase=third", "model.start_from=x"], "which is no phase"),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        load_recipe(SMOKE, overrides)
    assert all(problem.hint for problem in error.value.problems)


@pytest.mark.parametrize("override", ["phases.domain.lr_scheduler.warmup=10K", "phases.domain.lr_scheduler.jump=true"])
def test_a_rate_may_rewarm_or_jump_where_the_recipe_says_so(override: str) -> None:
    assert load_recipe(SMOKE, ["phases.domain.lr_scheduler.lr=2e-3", override])


def test_epochs_are_capped_by_source() -> None:
    phase = _phase(max_epochs={"a": 9})
    assert (phase.epochs_allowed("a"), phase.epochs_allowed("b")) == (9, 4)
    assert _phase(max_epochs=2).epochs_allowed("b") == 2
