"""The order: bijections, exact mixtures, random access, continuation over phases, 8 T tokens at once."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
import world
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.phase_schema import LRScheduler, Phase
from pretrain.data import order as order_module
from pretrain.data.order import Order, permute, quotas
from twofold.errors import UserError

NEWS, BOOKS, LAW, CODE = range(4)


def _phase(name: str, sequences: int, mixture: dict[str, float], block: int = 20, length: int = 32) -> Phase:
    return Phase(
        name=name,
        tokens=sequences * length,
        sequence_length=length,
        global_batch_size=length,
        lr_scheduler=LRScheduler(lr=1e-3),
        mixture=mixture,
        mixture_block_size=block,
    )


def _order(*phases: Phase, seed: int = 7, **tokens: int) -> Order:
    return Order(seed, phases, tokens)


def _all(order: Order, phase: int) -> list[tuple[int, int, int]]:
    samples = order.samples(phase, 0, order.phases[phase].samples)
    return list(zip(samples.source.tolist(), samples.epoch.tolist(), samples.sequence.tolist(), strict=True))


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


@given(st.integers(2**40, 2**52), st.integers(0, 2**64 - 1), st.integers(0, 2**40 - 500))
def test_permute_stays_in_range_and_apart_at_64_bits(size: int, key: int, first: int) -> None:
    images = permute(np.arange(first, first + 500), size, key)
    assert images.min() >= 0
    assert images.max() < size
    assert len(set(images.tolist())) == 500


def test_permute_refuses_what_lies_outside() -> None:
    with pytest.raises(AssertionError):  # walking from outside might never come in
        permute(np.array([0, 10]), 10, 1)


def test_permute_depends_on_its_key_and_mixes() -> None:
    one, two = (permute(np.arange(10_000), 10_000, key) for key in (1, 2))
    assert (one == two).mean() < 0.01
    # Neighbours land independently: mean distance of two uniform draws is a third of the range.
    assert abs(np.abs(np.diff(one)).mean() / 10_000 - 1 / 3) < 0.02


shares = st.lists(st.integers(1, 50), min_size=1, max_size=4).map(
    lambda weights: {name: w / sum(weights) for name, w in zip(("news", "books", "law", "code"), weights, strict=False)}
)


@given(shares, st.integers(160, 400), st.integers(1, 900), st.integers(0, 2**63 - 1))
@settings(max_examples=60)
def test_every_block_holds_the_quotas_and_sources_are_taken_in_turn(
    mixture: dict[str, float], block: int, sequences: int, seed: int
) -> None:
    phase = _phase("one", sequences, mixture, block)
    order = _order(phase, seed=seed, news=5_000, books=900, law=333, code=70)
    quota = quotas(phase)
    assert sum(quota.values()) == block
    assert all(abs(quota[name] - share * block) < 1 for name, share in mixture.items())
    samples = _all(order, 0)
    names = [order.sources[source] for source, _, _ in samples]
    for first in range(0, sequences - block + 1, block):
        assert Counter(names[first : first + block]) == quota
    for done in {0, 1, sequences // 2, sequences}:
        assert order.taken(0, done) == {name: names[:done].count(name) for name in mixture}


@given(shares, st.integers(0, 600), st.integers(1, 300))
@settings(max_examples=60)
def test_random_access_equals_reading_from_the_start(mixture: dict[str, float], first: int, count: int) -> None:
    order = _order(_phase("one", 900, mixture, 160), news=5_000, books=900, law=333, code=70)
    found = order.samples(0, first, count)
    parts = list(zip(found.source.tolist(), found.epoch.tolist(), found.sequence.tolist(), strict=True))
    assert parts == _all(order, 0)[first : first + count]


def test_an_epoch_shows_every_sequence_once_and_the_next_in_another_order() -> None:
    order = _order(_phase("one", 93, {"news": 1.0}), news=32 * 31 + 1)
    samples = _all(order, 0)
    assert [epoch for _, epoch, _ in samples] == [0] * 31 + [1] * 31 + [2] * 31
    epochs = [[sequence for _, e, sequence in samples if e == epoch] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(31)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_later_phase_goes_on_where_the_former_left_a_source() -> None:
    phases = (
        _phase("general", 50, {"news": 0.6, "books": 0.4}),
        _phase("law", 30, {"law": 1.0}),
        _phase("domain", 50, {"law": 0.5, "news": 0.5}),
    )
    tokens = {"news": 32 * 100 + 1, "books": 32 * 100 + 1, "law": 32 * 100 + 1}
    order = _order(*phases, **tokens)
    # One phase that reads only news shows the order of news; three phases must read the same, unbroken.
    alone = [sequence for _, _, sequence in _all(_order(_phase("x", 100, {"news": 1.0}), **tokens), 0)]
    news = [sequence for phase in (0, 2) for source, _, sequence in _all(order, phase) if source == NEWS]
    assert news == alone[: len(news)]
    law = [sequence for phase in (1, 2) for source, _, sequence in _all(order, phase) if order.sources[source] == "law"]
    assert len(set(law)) == len(law)


def test_another_sequence_length_starts_the_next_epoch() -> None:
    phases = (_phase("short", 50, {"news": 1.0}), _phase("long", 10, {"news": 1.0}, length=64))
    order = _order(*phases, news=32 * 40 + 1)
    assert {epoch for _, epoch, _ in _all(order, 0)} == {0, 1}
    assert {epoch for _, epoch, _ in _all(order, 1)} == {2}
    assert max(sequence for _, _, sequence in _all(order, 1)) < 20


def test_the_order_depends_on_the_seed_and_not_on_other_sources() -> None:
    phase = _phase("one", 40, {"news": 1.0})
    tokens = {"news": 32 * 500}
    assert _all(_order(phase, **tokens), 0) == _all(_order(phase, books=99, **tokens), 0)
    assert _all(_order(phase, **tokens), 0) != _all(_order(phase, seed=8, **tokens), 0)


def test_a_share_below_one_sequence_a_block_is_refused_with_the_hint() -> None:
    phase = _phase("one", 100, {"news": 0.98, "books": 0.02}, block=20)
    with pytest.raises(UserError, match=r"phases\.one\.mixture\.books = 0\.02.*mixture_block_size to at least 51"):
        _order(phase, news=5_000, books=5_000)
    assert quotas(_phase("one", 100, {"news": 0.98, "books": 0.02}, block=51))["books"] == 1


def test_eight_trillion_tokens_start_with_little_work_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    permuted = []
    monkeypatch.setattr(order_module, "permute", lambda at, *rest: permuted.append(len(at)) or permute(at, *rest))
    mixture = {"news": 0.45, "books": 0.3, "law": 0.15, "code": 0.1}
    phase = Phase(
        name="all",
        tokens=8 * 10**12,
        sequence_length=4096,
        global_batch_size=4096 * 1024,
        lr_scheduler=LRScheduler(lr=3e-4),
        mixture=mixture,
    )
    tracemalloc.start()
    order = Order(1, (phase,), dict.fromkeys(mixture, 3 * 10**12))
    first = order.samples(0, 0, 1024)
    work = sum(permuted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    last = order.samples(0, phase.steps * 1024 - 1024, 1024)
    assert work == 2 * 1024  # positions permuted: the block's pattern and its samples, whatever the size of the data
    assert peak < 20e6
    assert len(set(zip(first.source, first.sequence, strict=True))) == 1024
    assert max(first.sequence.max(), last.sequence.max()) > 2**29
    assert last.epoch.max() == 1  # news: 0.45 x 8 T of 3 T


def test_the_global_batch_is_the_ranks_rows_put_together() -> None:
    recipe = world.recipe()
    order = Order(recipe.seed, recipe.phases, {name: size for name, (_, size) in world.SOURCES.items()})
    whole = order.samples(1, 16, 16)
    for ranks in (2, 4, 8):
        parts = [order.samples(1, 16 + rank * 16 // ranks, 16 // ranks) for rank in range(ranks)]
        assert np.array_equal(np.concatenate([part.sequence for part in parts]), whole.sequence)
        assert np.array_equal(np.concatenate([part.source for part in parts]), whole.source)
