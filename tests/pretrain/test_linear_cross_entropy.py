"""The chunked head against float32 logits all at once: losses, gradients, memory."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pretrain.model import linear_cross_entropy
from pretrain.model.linear_cross_entropy import Elementwise, Head, Losses, chunk_rows, fold, logit_gradient

WAYS: tuple[Losses, ...] = ("kept", "recomputed")
B, T, D, V = 2, 24, 32, 1000


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _targets() -> torch.Tensor:
    targets = torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(1))
    targets[0, 0], targets[0, 1] = 0, V - 1
    return targets


def _head(losses: Losses, chunk_logits: int = B * T * 300, dtype: torch.dtype = torch.float32) -> Head:
    made = Head(D, V)
    made.weight.data = _random(V, D, seed=2)
    made.losses, made.chunk_logits = losses, chunk_logits
    return made.to(dtype)


def _objective(nll: torch.Tensor, log_z: torch.Tensor) -> torch.Tensor:
    """The engine's: cross-entropy and z-loss; and uneven weights, so that each token's gradient is told apart."""
    uneven = torch.linspace(0.5, 2, nll.numel()).view_as(nll)
    return (nll * uneven).mean() + 0.1 * log_z.square().mean()


def _run(made: Head, hidden: torch.Tensor) -> list[torch.Tensor]:
    hidden = hidden.clone().requires_grad_()
    nll, log_z = made(hidden, _targets())
    assert nll.dtype == log_z.dtype == torch.float32
    assert nll.shape == log_z.shape == (B, T)
    _objective(nll, log_z).backward()
    assert hidden.grad is not None
    assert made.weight.grad is not None
    return [nll.detach(), log_z.detach(), hidden.grad, made.weight.grad]


def _definition(weight: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
    """Float64, written out."""
    weight, hidden = weight.detach().double().requires_grad_(), hidden.double().requires_grad_()
    logits = hidden @ weight.t()
    log_z = logits.exp().sum(-1).log()
    nll = -F.one_hot(_targets(), V).mul(logits).sum(-1) + log_z
    _objective(nll, log_z).backward()
    return [nll, log_z, hidden.grad, weight.grad]  # type: ignore[list-item]


@pytest.mark.parametrize("losses", WAYS)
@pytest.mark.parametrize("chunk_logits", [1, B * T * 130, B * T * 500, B * T * V, 2**40])
def test_losses_and_gradients_equal_their_definition(losses: Losses, chunk_logits: int) -> None:
    made, hidden = _head(losses, chunk_logits), _random(B, T, D)
    for found, expected in zip(_run(made, hidden), _definition(made.weight, hidden), strict=True):
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("losses", WAYS)
def test_in_bf16_it_is_as_near_to_float32_as_the_plain_way(losses: Losses) -> None:
    hidden = _random(B, T, D).bfloat16()
    made, plain = _head(losses, dtype=torch.bfloat16), _head("plain", dtype=torch.bfloat16)
    exact = _definition(made.weight, hidden)
    for ours, theirs, expected in zip(_run(made, hidden), _run(plain, hidden), exact, strict=True):
        error, limit = ((one.double() - expected).norm() for one in (ours, theirs))
        assert error <= 1.1 * limit + 1e-6
        assert error < 0.02 * expected.norm()


@pytest.mark.parametrize("losses", WAYS)
def test_large_logits_stay_finite(losses: Losses) -> None:
    made, hidden = _head(losses), 1000 * _random(B, T, D)
    found = _run(made, hidden)
    assert all(value.isfinite().all() for value in found)
    plain = _run(_head("plain"), hidden)
    torch.testing.assert_close(found[1], plain[1])


def test_what_is_not_finite_is_seen() -> None:
    hidden = _random(B, T, D)
    hidden[0, 3, 0] = torch.nan
    nll, log_z, _, d_weight = _run(_head("kept"), hidden)
    assert nll[0, 3].isnan()
    assert log_z[0, 3].isnan()
    assert d_weight.isnan().any()
    assert nll[1].isfinite().all()


@pytest.mark.parametrize("losses", WAYS)
def test_without_gradients_nothing_is_kept(losses: Losses) -> None:
    made, hidden = _head(losses), _random(B, T, D)
    with torch.no_grad():
        nll, log_z = made(hidden, _targets())
    assert not nll.requires_grad
    torch.testing.assert_close(nll, made(hidden, _targets())[0])
    torch.testing.assert_close(log_z, made(hidden, _targets())[1])


def test_validation_keeps_no_chunk_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weight needs a gradient even where none will be asked for, so that alone must not keep logits."""
    saved: list[int] = []
    context = torch.autograd.function.FunctionCtx
    keep = context.save_for_backward
    monkeypatch.setattr(context, "save_for_backward", lambda ctx, *t: (saved.append(len(t)), keep(ctx, *t))[1])
    made, hidden = _head("kept"), _random(B, T, D)
    with torch.no_grad():
        made(hidden, _targets())
    made(hidden, _targets())
    assert saved[0] == 4
    assert saved[1] > 4


def test_without_targets_there_are_logits_whatever_the_way() -> None:
    hidden = _random(B, T, D)
    assert torch.equal(_head("kept")(hidden), _head("plain")(hidden))


def test_kept_logits_serve_one_backward_pass() -> None:
    made = _head("kept")
    nll, _ = made(_random(B, T, D).requires_grad_(), _targets())
    nll.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        nll.sum().backward()


@given(st.integers(1, 10_000), st.integers(1, 200_000), st.integers(1, 2**30))
def test_chunks_are_aligned_near_the_limit_and_cover_the_vocabulary(tokens: int, vocab: int, limit: int) -> None:
    rows = chunk_rows(tokens, vocab, limit)
    assert 1 <= rows <= vocab
    assert rows == vocab or rows % 128 == 0
    assert rows == vocab or tokens * (rows - 128) < limit


def test_the_chunks_of_the_7p8b_model() -> None:
    assert chunk_rows(8192, 102_400, linear_cross_entropy.CHUNK_LOGITS) == 14_720
    assert -(-102_400 // 14_720) == 7


class _Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Elements of the largest float32 tensor that any operator made, and of all tensors of V rows or columns."""

    def __init__(self) -> None:
        super().__init__()
        self.float32 = 0

    def __torch_dispatch__(self, function, types, inputs=(), options=None):  # type: ignore[no-untyped-def]
        out = function(*inputs, **(options or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32:
                self.float32 = max(self.float32, tensor.numel())
        return out


@pytest.mark.parametrize("losses", WAYS)
def test_no_float32_tensor_is_larger_than_a_chunk(losses: Losses) -> None:
    made, hidden = _head(losses, chunk_logits=B * T * 100, dtype=torch.bfloat16), _random(B, T, D).bfloat16()
    with _Largest() as seen:
        _run(made, hidden)
    assert seen.float32 <= B * T * 128
    with _Largest() as plain:
        _run(_head("plain", dtype=torch.bfloat16), hidden)
    assert plain.float32 >= B * T * V


@pytest.mark.parametrize("losses", WAYS)
def test_the_elementwise_parts_compile_to_one_graph_each_and_stay_equal(losses: Losses) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    made, hidden = _head(losses), _random(B, T, D)
    compile_ = partial(torch.compile, fullgraph=True, dynamic=False, backend="aot_eager")
    made.elementwise = Elementwise(compile_(fold), compile_(logit_gradient))
    for found, expected in zip(_run(made, hidden), _run(_head(losses), hidden), strict=True):
        torch.testing.assert_close(found, expected)
    # Chunks of 384, 384 and 232 rows: two shapes.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4
