"""The planner's seconds: a step by hand, and what must hold for any device."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.recipe import load_recipe
from launch.planner import times
from launch.planner.hardware import GPUS, Constants, Gpu
from launch.planner.memory import Setting
from launch.planner.times import StepTime

RECIPE = load_recipe("configs/exaone3_7p8b.yaml")
MODEL, VOCAB = RECIPE.model, RECIPE.tokenizer.vocab_size
H100 = GPUS["h100"]
SETTING = Setting(512, 2, 4096, "nothing", True, "kept", 500_000_000, 218_103_808, 100_000)


def _step(setting: Setting = SETTING, gpu: Gpu = H100, micro_batches: int = 1, **constants: float) -> StepTime:
    return times.step_time(MODEL, VOCAB, setting, gpu, replace(Constants(), **constants), micro_batches, False)  # type: ignore[arg-type]


def test_a_step_by_hand() -> None:
    """32 layers of 218,103,808 matrix parameters and a head of 419,430,400; 8,192 tokens on each of 512 H100."""
    step = _step()
    matrices = 32 * 218_103_808 + 419_430_400
    assert step.computing["matrix products"] == pytest.approx(6 * 8192 * matrices / (989e12 * 0.72))
    # Causal pairs: 6 FLOPs x 32 layers x 4096 width x 4096 positions a token.
    assert step.computing["attention"] == pytest.approx(8192 * 6 * 32 * 4096 * 4096 / (989e12 * 0.5))
    # 64 nodes: 8 cards of 50 GB/s each share a node's traffic; 448 hops within nodes, 64 between them.
    whole = 2 * 7_818_448_896 * 511 / 512 / (8 * 50e9 * 0.94) + 35 * (14e-6 + 448 * 1.9e-6 + 64 * 4e-6)
    assert step.transfers["gather, forward"] == pytest.approx(whole)
    assert step.transfers["gather, backward"] == pytest.approx(whole)
    reduced = 4 * 7_818_448_896 * 511 / 512 / (8 * 50e9 * 0.94) + 16 * (14e-6 + 448 * 1.9e-6 + 64 * 4e-6)
    assert step.transfers["reduce gradients"] == pytest.approx(reduced)
    assert step.total == pytest.approx(sum(step.causes.values()))


def test_utilisation_is_flops_over_time() -> None:
    step = _step(micro_batches=4)
    found = times.utilisation(MODEL, VOCAB, SETTING, H100, step)
    matrices = 6 * (32 * 218_103_808 + 419_430_400)
    full = 4 * 8192 * (matrices + 12 * 32 * 4096 * 4096)
    assert found["full"] == pytest.approx(full / (989e12 * step.total))
    assert found["causal"] < found["full"]


def test_one_device_transfers_nothing() -> None:
    step = _step(replace(SETTING, ranks=1))
    assert step.transfers == {}
    assert step.exposed == 0.0


@given(
    ranks=st.sampled_from([2, 8, 16, 64, 512, 4096]),
    sequences=st.integers(1, 8),
    micro_batches=st.integers(1, 16),
    network=st.floats(1e9, 1e12),
    overlap=st.floats(0, 1),
)
def test_what_holds_for_any_network(
    ranks: int, sequences: int, micro_batches: int, network: float, overlap: float
) -> None:
    setting = replace(SETTING, ranks=ranks, sequences=sequences)
    slow, fast = (replace(H100, network_bytes_per_s=rate) for rate in (network, 2 * network))
    ours, better = (_step(setting, gpu, micro_batches, overlap_share=overlap) for gpu in (slow, fast))
    assert better.total <= ours.total
    assert ours.total >= sum(ours.computing.values())
    assert ours.total <= sum(ours.computing.values()) + sum(ours.transfers.values()) + ours.update + ours.fixed + 1e-9
    more = _step(setting, slow, micro_batches + 1, overlap_share=overlap)
    assert more.total > ours.total


@pytest.mark.parametrize("recompute", ["selective", "blocks"])
def test_recomputing_costs_time(recompute: str) -> None:
    head = "recomputed" if recompute == "blocks" else "kept"
    again = _step(replace(SETTING, recompute=recompute, head=head))  # type: ignore[arg-type]
    assert sum(again.computing.values()) > sum(_step().computing.values())


def test_zero_plus_moves_less() -> None:
    usual = _step().transfers
    near = _step(replace(SETTING, secondary_ranks=8)).transfers
    assert near["gather, backward"] < usual["gather, backward"]
    assert near["gather, forward"] == usual["gather, forward"]
    small = _step(replace(SETTING, quantised_weights=True, quantised_gradients=True)).transfers
    assert small["gather, forward"] < usual["gather, forward"]
    assert small["reduce gradients"] < usual["reduce gradients"]


def test_eager_operators_move_more() -> None:
    eager = _step(replace(SETTING, compiled=False, head="plain")).computing
    assert eager["element-wise"] > _step().computing["element-wise"]
    assert eager["loss"] > _step().computing["loss"]


def test_float8_is_for_the_blocks_alone() -> None:
    usual = _step().computing["matrix products"]
    ours = times.computing(MODEL, VOCAB, SETTING, H100, replace(Constants(), float8_share=0.72), True)
    head = 6 * 8192 * 419_430_400 / (989e12 * 0.72)
    assert ours["matrix products"] == pytest.approx((usual - head) / 2 + head)
