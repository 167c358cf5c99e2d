"""The plan: learning rate continuous with the right ends, steps by tokens, budgets against supply."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import world
from hypothesis import given
from hypothesis import strategies as st

from configs.phase_schema import LRScheduler, Phase
from pretrain.data.order import Order
from pretrain.data.plan import Plan, check_supply, rate_at, token_counts
from twofold.errors import UserError

BATCH = 64


def _phase(schedule: str, steps: int, warmup: int, final: float, decay_ratio: float, name: str = "one") -> Phase:
    fields: dict = {"schedule": schedule, "lr": 1.0, "warmup": min(warmup, steps * BATCH)}
    if schedule != "constant":
        fields["min_lr"] = final
    if schedule == "wsd":
        fields["decay_ratio"] = decay_ratio
    return Phase(
        name=name,
        tokens=steps * BATCH,
        sequence_length=16,
        global_batch_size=BATCH,
        lr_scheduler=LRScheduler(**fields),
        mixture={"news": 1.0},
    )


phases = st.builds(
    _phase,
    st.sampled_from(["constant", "linear", "cosine", "wsd"]),
    st.integers(2, 40),
    st.integers(0, 40 * BATCH),
    st.floats(0, 1),
    st.floats(0.05, 1),
)


@given(phases, st.floats(0, 2))
def test_the_rate_begins_and_ends_where_the_recipe_says(phase: Phase, start: float) -> None:
    end = phase.steps * phase.global_batch_size
    warmup = phase.lr_scheduler.warmup
    if warmup:
        assert rate_at(phase, 0, start) == start
    if warmup < end:
        final = phase.lr_scheduler.min_lr
        assert math.isclose(rate_at(phase, end, start), 1.0 if final is None else final, abs_tol=1e-12)
        assert math.isclose(rate_at(phase, warmup, start), 1.0, abs_tol=1e-12)


@given(phases, st.floats(0, 2))
def test_the_rate_is_continuous(phase: Phase, start: float) -> None:
    end, samples = phase.steps * phase.global_batch_size, 4000
    rates = [rate_at(phase, end * n / samples, start) for n in range(samples + 1)]
    warmup = phase.lr_scheduler.warmup
    slopes = [abs(1 - start) / warmup] if warmup else []
    if phase.lr_scheduler.schedule == "wsd":
        slopes.append(1 / max(1e-9, end - max(warmup, end * (1 - (phase.lr_scheduler.decay_ratio or 0)))))
    elif warmup < end:
        slopes.append(math.pi / 2 / (end - warmup))
    steepest = max(slopes) * end / samples
    # Without a warm-up a phase may begin away from `start`: that one jump is what the recipe asks for.
    assert all(abs(b - a) <= steepest + 1e-9 for a, b in pairwise(rates))


@given(phases)
def test_a_schedule_never_rises_after_the_warmup(phase: Phase) -> None:
    end = phase.steps * phase.global_batch_size
    rates = [rate_at(phase, n, 0.0) for n in range(phase.lr_scheduler.warmup, end + 1, 16)]
    assert all(b <= a for a, b in pairwise(rates))


def test_cosine_and_linear_pass_through_their_middle() -> None:
    for schedule in ("cosine", "linear"):
        phase = _phase(schedule, 10, 0, 0.2, 0)
        assert math.isclose(rate_at(phase, 5 * BATCH, 0.0), 0.6)


def test_wsd_holds_then_falls_in_a_line() -> None:
    phase = _phase("wsd", 10, 0, 0.0, 0.5)
    assert rate_at(phase, 5 * BATCH, 0.0) == 1.0
    assert math.isclose(rate_at(phase, 7.5 * BATCH, 0.0), 0.5)


def test_a_later_phase_warms_up_from_the_last_rate_of_the_former() -> None:
    first = world.recipe().phases[0].model_dump(mode="json")
    fall = {"schedule": "linear", "lr": 8e-3, "min_lr": 1e-3}
    rise = {"schedule": "constant", "lr": 4e-3, "warmup": 1024}
    plan = Plan(world.recipe(phases=[{**first, "lr_scheduler": fall}, {**first, "name": "two", "lr_scheduler": rise}]))
    rates = [plan.at(step).lr for step in range(plan.total_steps)]
    # A step's rate is that of the middle of its tokens: 8 steps fall from 8e-3 to 1e-3, then 4 rise to 4e-3.
    assert rates[:8] == pytest.approx([8e-3 - 7e-3 * (n + 0.5) / 8 for n in range(8)])
    assert rates[8:12] == pytest.approx([1e-3 + 3e-3 * (n + 0.5) / 4 for n in range(4)])
    assert rates[12:] == pytest.approx([4e-3] * 4)


def test_steps_follow_from_tokens() -> None:
    plan = Plan(world.recipe())
    steps = [plan.at(n) for n in range(plan.total_steps)]
    assert plan.total_steps == 8 + 6
    assert plan.total_tokens == 2048 + 3072 == steps[-1].tokens_after
    assert all(a.tokens_after == b.tokens_before for a, b in pairwise(steps))
    assert [step.phase for step in steps] == [0] * 8 + [1] * 6
    assert [step.first_sample for step in steps] == [*range(0, 64, 8), *range(0, 96, 16)]
    assert [step.z_loss for step in steps] == [1e-4] * 8 + [0.0] * 6
    assert [done for done in range(15) if plan.phase_ended_by(done)] == [8, 14]
    assert [done for done in range(15) if plan.checkpoints_at(done)] == [4, 8, 10, 12, 14]
    assert [done for done in range(15) if plan.validates_at(done)] == [0, 4, 8, 10, 12, 14]


def test_cadences_fall_on_the_step_that_crosses_them() -> None:
    plan = Plan(world.recipe(checkpoints__every=300))
    assert [done for done in range(15) if plan.checkpoints_at(done)] == [2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14]


def test_the_token_counts_add_up_to_what_was_trained_on() -> None:
    recipe = world.recipe()
    plan = Plan(recipe)
    order = Order(recipe.seed, recipe.phases, {name: size for name, (_, size) in world.SOURCES.items()})
    for done in range(1, plan.total_steps + 1):
        taken = token_counts(order, plan, done)
        assert sum(taken.by_source().values()) == plan.at(done - 1).tokens_after
    assert token_counts(order, plan, 0).by_source() == dict.fromkeys(("news", "books", "law", "code"), 0)


SUPPLY = {"news": 9_000, "books": 7_000, "law": 5_000, "code": 4_000}


def test_a_supply_that_suffices_is_accepted() -> None:
    check_supply(world.recipe().phases, SUPPLY)


@pytest.mark.parametrize("tokens", [0, 32, None])
def test_a_source_without_one_sequence_is_refused(tokens: int | None) -> None:
    supply = {**SUPPLY, "law": tokens}
    if tokens is None:
        del supply["law"]
    with pytest.raises(UserError, match=r"phases\.domain\.mixture\.law.*less than one sequence of 33") as error:
        check_supply(world.recipe().phases, supply)
    assert len(error.value.problems) == 1


def test_a_budget_that_a_source_cannot_fill_names_all_that_the_user_needs() -> None:
    # law gives 0.4 of 3072 tokens in blocks of 20 sequences: 39 of 96 sequences, 1248 tokens, of 200.
    with pytest.raises(UserError) as error:
        check_supply(world.recipe(phases__1__max_epochs=5).phases, {**SUPPLY, "law": 200})
    (problem,) = error.value.problems
    assert problem.field == "phases.domain.mixture.law"
    assert "tokens of law by the end of the phase" in problem.problem
    assert "above max_epochs 5" in problem.problem
    enough = float(problem.hint.split("max_epochs to ")[1].split(",")[0])
    check_supply(world.recipe(phases__1__max_epochs=enough).phases, {**SUPPLY, "law": 200})


def test_passes_of_former_phases_count() -> None:
    needed_in_general = 39 * 32  # 0.6 of 64 sequences
    supply = {**SUPPLY, "news": needed_in_general}
    check_supply(world.recipe(phases__0__max_epochs=1.1, phases__1__max_epochs=2).phases, supply)
    with pytest.raises(UserError, match=r"phases\.domain\.mixture\.news"):
        check_supply(world.recipe(phases__0__max_epochs=1.1, phases__1__max_epochs=1.1).phases, supply)


RAMP = [{"until": 512, "global_batch_size": 128}, {"until": 1024, "global_batch_size": 256}]


def test_a_batch_ramp_keeps_samples_tokens_and_rate_in_line() -> None:
    plan = Plan(world.recipe(phases__0__rampup_batch_size=RAMP, phases__0__global_batch_size=512, launch__cpu_ranks=1))
    steps = [plan.at(n) for n in range(plan.total_steps)]
    assert [step.tokens for step in steps if step.phase == 0] == [128] * 4 + [256] * 2 + [512] * 2
    assert all(a.tokens_after == b.tokens_before for a, b in pairwise(steps))
    for former, step in pairwise(steps):
        assert step.first_sample == (former.first_sample + former.sequences if step.phase == former.phase else 0)
    # The warm-up lasts 512 tokens, whatever the batch.
    assert [step.lr for step in steps[:5]] == pytest.approx([5e-3 * x for x in (0.125, 0.375, 0.625, 0.875, 1)])


def test_a_ramp_does_not_move_a_sample() -> None:
    tokens = {name: size for name, (_, size) in world.SOURCES.items()}
    flat = world.recipe()
    ramped = world.recipe(phases__0__rampup_batch_size=RAMP)
    orders = [Order(7, recipe.phases, tokens) for recipe in (flat, ramped)]
    count = min(recipe.phases[0].samples for recipe in (flat, ramped))
    one, two = (order.samples(0, 0, count) for order in orders)
    assert one.sequence.tolist() == two.sequence.tolist()
    assert one.source.tolist() == two.source.tolist()


def test_the_token_counts_keep_skipped_steps_apart() -> None:
    recipe = world.recipe()
    plan = Plan(recipe)
    order = Order(recipe.seed, recipe.phases, {name: size for name, (_, size) in world.SOURCES.items()})
    whole, found = token_counts(order, plan, 11), token_counts(order, plan, 11, [2, 9, 13])
    for name, phase in whole.by_phase.items():
        for source, tokens in phase.items():
            assert tokens == found.by_phase[name][source] + found.skipped[name][source]
    assert sum(found.skipped["general"].values()) == 256
    assert sum(found.skipped["domain"].values()) == 512
    by_hand = order.samples(0, plan.at(2).first_sample, 8).source
    for position, source in enumerate(order.sources):
        assert found.skipped["general"].get(source, 0) == 32 * int((by_hand == position).sum())


def test_the_square_root_falls_first_and_flattens() -> None:
    phase = _phase("wsd", 10, 0, 0.0, 0.5)
    rate = phase.lr_scheduler.model_copy(update={"decay_type": "sqrt"})
    shaped = phase.model_copy(update={"lr_scheduler": rate})
    assert math.isclose(rate_at(shaped, 6.25 * BATCH, 0.0), 0.5)
    assert rate_at(shaped, 10 * BATCH, 0.0) == 0.0


def test_imported_weights_may_start_at_a_later_phase() -> None:
    recipe = world.recipe(model__start_from="x", model__start_at_phase="domain")
    plan = Plan(recipe)
    assert (plan.start_phase, plan.start_step) == (1, 8)
    order = Order(recipe.seed, recipe.phases, {name: size for name, (_, size) in world.SOURCES.items()})
    taken = token_counts(order, plan, plan.total_steps)
    assert sum(taken.by_phase["general"].values()) == 0
    assert sum(taken.by_phase["domain"].values()) == 3072
