"""Attention within documents by segments: bounds against a walk, the kernel's seam against the dense mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import world
from hypothesis import given
from hypothesis import strategies as st

from pretrain.model import attention
from pretrain.model.attention import (
    attend,
    document_bounds,
    document_mask,
    fastest_first,
    segments,
    takes_grouped_heads,
    varlen_options,
)
from pretrain.model.backends import Kernels, install
from pretrain.model.decoder import Decoder, initial_weights
from twofold.special_ids import EOS_ID

rows = st.integers(1, 30).flatmap(
    lambda length: st.lists(
        st.lists(st.sampled_from([EOS_ID, 20, 21]), min_size=length, max_size=length), min_size=1, max_size=4
    )
)
CFG = world.recipe().model


def _by_segment(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: torch.Tensor, longest: int) -> torch.Tensor:
    """The slow obvious kernel: softmax over each segment's own rows, one query at a time."""
    assert bounds.dtype == torch.int32
    assert q.is_contiguous()
    out, shared = torch.zeros_like(q), q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(shared, dim=1) for x in (k, v))
    for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        assert end - first <= longest
        for row in range(first, end):
            scores = torch.einsum("nh,xnh->nx", q[row], k[first : row + 1]) / q.shape[-1] ** 0.5
            out = out.index_put(
                (torch.tensor(row),), torch.einsum("nx,xnh->nh", scores.softmax(-1), v[first : row + 1])
            )
    return out


@pytest.fixture
def slow_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen", _by_segment)


@given(rows)
def test_bounds_are_what_a_walk_over_the_tokens_says(tokens: list[list[int]]) -> None:
    expected = [0]
    for number, row in enumerate(tokens):
        for position, token in enumerate(row):
            if token == EOS_ID or position == len(row) - 1:
                expected.append(number * len(row) + position + 1)
    bounds = document_bounds(torch.tensor(tokens)).tolist()
    total = sum(map(len, tokens))
    assert bounds[: len(expected)] == expected
    assert set(bounds[len(expected) :]) <= {total}
    assert len(bounds) == segments(len(expected) - 1) + 1


@given(rows)
def test_bounds_and_mask_say_the_same(tokens: list[list[int]]) -> None:
    """Two tokens of a row are in one segment exactly where the later one sees the earlier."""
    batch = torch.tensor(tokens)
    B, T = batch.shape
    segment = torch.searchsorted(document_bounds(batch).long(), torch.arange(B * T), right=True).view(B, T)
    same = (segment[:, :, None] == segment[:, None, :]).tril()
    assert torch.equal(same, document_mask(batch)[:, 0])
    assert segment[:-1].max(-1).values.lt(segment[1:].min(-1).values).all()  # no document goes over a row's end


def test_tokens_are_left_as_they_were() -> None:
    tokens = torch.tensor([[20, EOS_ID, 21]])
    document_bounds(tokens)
    assert tokens.tolist() == [[20, EOS_ID, 21]]


def test_bounds_have_few_lengths() -> None:
    assert [segments(n) for n in (1, 32, 33, 256, 257, 8192)] == [32, 32, 256, 256, 2048, 16384]


def _inputs(B: int = 2, T: int = 11) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = (4, 2, 2)
    q, k, v = (torch.randn(B, T, n, 8, generator=generator).transpose(1, 2).requires_grad_() for n in heads)
    tokens = torch.randint(20, 30, (B, T), generator=generator)
    tokens[0, 3] = tokens[0, 4] = tokens[1, 8] = EOS_ID
    return [q, k, v], tokens


@pytest.mark.usefixtures("slow_kernel")
def test_segments_equal_the_dense_mask_in_outputs_and_gradients() -> None:
    inputs, tokens = _inputs()
    weights = torch.linspace(-1, 1, 2 * 4 * 11 * 8).view(2, 4, 11, 8)
    found, expected = (attend(*inputs, documents) for documents in (document_bounds(tokens), document_mask(tokens)))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    pairs = zip(*(torch.autograd.grad((out * weights).sum(), inputs) for out in (found, expected)), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_copied_heads_change_nothing(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, tokens = _inputs()
    mask = document_mask(tokens) if masked else None
    shared = attend(*inputs, mask)
    monkeypatch.setattr(attention, "takes_grouped_heads", lambda *_, **__: False)
    copied = attend(*inputs, mask)
    torch.testing.assert_close(copied, shared, atol=1e-6, rtol=1e-5)
    gradients = (torch.autograd.grad(out.square().sum(), inputs) for out in (copied, shared))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_heads_are_copied_where_no_fused_kernel_shares_them() -> None:
    assert takes_grouped_heads("cuda", torch.bfloat16, masked=False)
    assert not takes_grouped_heads("cuda", torch.bfloat16, masked=True)
    assert not takes_grouped_heads("cuda", torch.float32, masked=False)
    assert takes_grouped_heads("cpu", torch.float32, masked=True)


@pytest.mark.usefixtures("slow_kernel")
def test_the_whole_model_says_the_same_by_segments() -> None:
    model = Decoder(CFG, world.VOCAB)
    model.load_state_dict(dict(initial_weights(CFG, world.VOCAB, 3)))
    _, tokens = _inputs()
    by_mask, by_bounds = model(tokens, None, True), model(tokens, None, True, document_bounds(tokens))
    torch.testing.assert_close(by_bounds, by_mask, atol=1e-6, rtol=1e-5)
    assert (by_mask - model(tokens)).abs().max() > 1e-4


def test_other_documents_are_no_other_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of documents changes from batch to batch; the length of the bounds does not."""

    def by_mask(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: torch.Tensor, _: int) -> torch.Tensor:
        segment = torch.searchsorted(bounds, torch.arange(len(q), dtype=torch.int32), right=True)
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        return attend(q, k, v, (segment[:, None] == segment[None]).tril())[0].transpose(0, 1)

    monkeypatch.setattr(attention, "varlen", by_mask)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = Decoder(CFG, world.VOCAB)
    install(model, Kernels(compiler="eager"))
    _, tokens = _inputs()
    for eos in (2, 5, 9):
        tokens[:, eos] = EOS_ID
        torch.testing.assert_close(
            model(tokens, None, True, document_bounds(tokens)), model(tokens, None, True), atol=1e-6, rtol=1e-5
        )
    # Blocks by segments, blocks by mask, last norm.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3


def _of_2_10(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):  # type: ignore[no-untyped-def]
    """torch 2.10."""


def _of_2_11(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):  # type: ignore[no-untyped-def]
    """torch 2.11: the kernel shares heads without being asked."""


def _of_2_12(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1), enable_gqa=False):  # type: ignore[no-untyped-def]
    """torch 2.12 and 2.13."""


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (_of_2_10, {"is_causal": True}),
        (_of_2_11, {"window_size": (-1, 0)}),
        (_of_2_12, {"window_size": (-1, 0), "enable_gqa": True}),
    ],
)
def test_each_torch_is_told_causal_and_grouped_by_its_own_names(
    kernel: Callable[..., Any], options: dict[str, Any]
) -> None:
    assert varlen_options(kernel) == options


def test_torchs_kernel_takes_what_it_is_given() -> None:
    """Traced on the meta device: names, types and shapes; the kernel itself needs a GPU."""
    q, k, v = (torch.empty(2, n, 11, 8, dtype=torch.bfloat16, device="meta") for n in (4, 2, 2))
    bounds = torch.empty(33, dtype=torch.int32, device="meta")
    assert attend(q, k, v, bounds).shape == q.shape


def test_the_order_of_kernels_is_set_on_cuda_and_only_there() -> None:
    from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends

    before = _cur_sdpa_kernel_backends(with_priority=True)
    with fastest_first(torch.device("cpu")):
        assert _cur_sdpa_kernel_backends(with_priority=True) == before
    with fastest_first(torch.device("cuda")):
        order = _cur_sdpa_kernel_backends(with_priority=True)
    names = ["CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH"]
    assert order[:4] == [getattr(SDPBackend, name) for name in names]
    assert _cur_sdpa_kernel_backends(with_priority=True) == before
