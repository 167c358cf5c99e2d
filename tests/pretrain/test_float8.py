"""Float8 products against float32: within what the formats allow, number by number; and what refuses them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import world

from pretrain.model import float8
from pretrain.model.backends import Kernels, install
from pretrain.model.decoder import Decoder, initial_weights
from pretrain.model.float8 import BACKWARD, FORWARD, Float8Linear, quantised
from twofold.errors import UserError

X, IN, OUT = 48, 64, 32
CUDA = torch.device("cuda")
UNIT = {FORWARD: 2.0**-4, BACKWARD: 2.0**-3}
"""Largest relative error of a rounded normal number: half a last place."""
SMALLEST = {FORWARD: 2.0**-10, BACKWARD: 2.0**-17}
"""Largest error of a number below the normal range, before scaling."""


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers with outliers, as activations have."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.01, 30 * values, values)


def _linear(dtype: torch.dtype = torch.float32) -> Float8Linear:
    linear = Float8Linear(IN, OUT, bias=False)
    linear.weight.data = _random(OUT, IN, seed=1)
    return linear.to(dtype)


def _error(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bound of |x - dequantised(x)|."""
    scale = x.abs().max() / torch.finfo(dtype).max
    return torch.maximum(UNIT[dtype] * x.abs(), SMALLEST[dtype] * scale) * (1 + 1e-5)


def _bound(a: torch.Tensor, b: torch.Tensor, a_dtype: torch.dtype) -> torch.Tensor:
    """Bound of the error of a @ b, each rounded; a little more for sums in float32."""
    a_error, b_error = _error(a, a_dtype), _error(b, FORWARD)
    return a.abs() @ b_error + a_error @ b.abs() + a_error @ b_error + 1e-5 * (a.abs() @ b.abs())


def _gradients() -> tuple[torch.Tensor, ...]:
    """(y, d x, d weight; x, weight, d y) of one float8 layer in float32."""
    linear, x, d_y = _linear(), _random(X, IN).requires_grad_(), _random(X, OUT, seed=2)
    y = linear(x)
    y.backward(d_y)
    assert x.grad is not None
    assert linear.weight.grad is not None
    return y.detach(), x.grad, linear.weight.grad, x.detach(), linear.weight.detach(), d_y


@pytest.mark.parametrize("dtype", [FORWARD, BACKWARD])
def test_one_number_is_off_by_half_a_last_place(dtype: torch.dtype) -> None:
    x = _random(200, 200)
    values, scale = quantised(x, dtype)
    assert values.dtype == dtype
    assert ((values.float() * scale - x).abs() <= _error(x, dtype)).all()
    assert values.float().abs().max() == torch.finfo(dtype).max


def test_products_and_gradients_are_within_what_the_formats_allow() -> None:
    y, d_x, d_weight, x, weight, d_y = _gradients()
    assert ((y - x @ weight.t()).abs() <= _bound(x, weight.t(), FORWARD)).all()
    assert ((d_x - d_y @ weight).abs() <= _bound(d_y, weight, BACKWARD)).all()
    assert ((d_weight - d_y.t() @ x).abs() <= _bound(d_y.t(), x, BACKWARD)).all()


def test_products_and_gradients_equal_those_of_dequantised_operands() -> None:
    """The reference: the same numbers, rounded to float8 and back, multiplied in float32."""
    y, d_x, d_weight, x, weight, d_y = _gradients()
    x8, weight8 = (values.float() * scale for values, scale in (quantised(t, FORWARD) for t in (x, weight)))
    d_y8 = (lambda values, scale: values.float() * scale)(*quantised(d_y, BACKWARD))
    torch.testing.assert_close(y, x8 @ weight8.t(), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(d_x, d_y8 @ weight8, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(d_weight, d_y8.t() @ x8, atol=1e-3, rtol=1e-5)


def test_what_is_seen_is_far_below_the_bound() -> None:
    """Errors are of both signs: 3 % of the whole forward and 6 to 9 % backward, of numbers with outliers."""
    y, d_x, d_weight, x, weight, d_y = _gradients()
    cases = (
        (y, x, weight.t(), FORWARD, 0.05),
        (d_x, d_y, weight, BACKWARD, 0.1),
        (d_weight, d_y.t(), x, BACKWARD, 0.1),
    )
    for found, a, b, dtype, share in cases:
        error = (found - a @ b).norm()
        assert error < share * (a @ b).norm()
        assert error < 0.4 * _bound(a, b, dtype).norm()


def test_shapes_dtypes_and_names_are_nn_linears() -> None:
    linear = _linear(torch.bfloat16)
    x = _random(2, 24, IN).bfloat16().requires_grad_()
    y = linear(x)
    y.sum().backward()
    assert (y.shape, y.dtype) == ((2, 24, OUT), torch.bfloat16)
    assert x.grad is not None
    assert linear.weight.grad is not None
    assert (x.grad.shape, x.grad.dtype) == (x.shape, torch.bfloat16)
    assert (linear.weight.grad.shape, linear.weight.grad.dtype) == ((OUT, IN), torch.bfloat16)
    assert [name for name, _ in linear.named_parameters()] == ["weight"]


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_is_seen(value: float) -> None:
    x = _random(X, IN)
    x[3, 5] = value
    assert not _linear()(x).isfinite().any()


def test_zeros_stay_zeros() -> None:
    assert torch.equal(_linear()(torch.zeros(X, IN)), torch.zeros(X, OUT))


def test_the_weight_is_saved_as_the_parameter_itself() -> None:
    """ZeRO-3 empties and gathers the parameter; a copy would hold every layer's weights."""
    linear, saved = _linear(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        linear(_random(X, IN).requires_grad_())
    matrices = [tensor for tensor in saved if tensor.shape in ((OUT, IN), (IN, OUT))]
    assert len(matrices) == 1
    assert matrices[0] is linear.weight


@pytest.mark.parametrize("recompute", [False, "selective"])
def test_a_compiled_block_is_one_graph_and_saves_no_copy_of_a_weight(recompute: Any) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    cfg = world.recipe(model__d_model=64, model__d_ff=224, model__n_heads=4, model__n_kv_heads=1).model
    losses, saved = [], []
    tokens = torch.randint(0, world.VOCAB, (2, 24), generator=torch.Generator().manual_seed(0))
    for kernels in (Kernels(float8=True), Kernels(float8=True, compiler="aot_eager", recompute=recompute)):
        model = Decoder(cfg, world.VOCAB, linear=kernels.linear)
        model.load_state_dict(dict(initial_weights(cfg, world.VOCAB, 3)))
        install(model, kernels)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
            loss = model(tokens, tokens)[0].mean()
        loss.backward()
        losses.append([loss.item(), *(parameter.grad.norm().item() for parameter in model.parameters())])
        parameters = {parameter.data_ptr(): parameter for parameter in model.model.layers.parameters()}
        shapes = {parameter.shape for parameter in parameters.values() if parameter.dim() == 2}
        shapes |= {shape[::-1] for shape in shapes}
        assert not [t for t in saved if t.shape in shapes and t is not parameters.get(t.data_ptr())]
        saved.clear()
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert not torch._dynamo.utils.counters["graph_break"]


def test_the_model_in_float8_is_near_the_model_in_float32() -> None:
    cfg = world.recipe(model__d_model=64, model__d_ff=224, model__n_heads=4, model__n_kv_heads=1).model
    tokens = torch.randint(0, world.VOCAB, (2, 24), generator=torch.Generator().manual_seed(0))
    seen = []
    for linear in (torch.nn.Linear, Float8Linear):
        model = Decoder(cfg, world.VOCAB, linear=linear)
        model.load_state_dict(dict(initial_weights(cfg, world.VOCAB, 3)))
        loss = model(tokens, tokens)[0].mean()
        loss.backward()
        seen.append((loss.item(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])))
    (loss, gradient), (loss8, gradient8) = seen
    assert loss8 == pytest.approx(loss, rel=1e-3)
    assert torch.nn.functional.cosine_similarity(gradient, gradient8, dim=0) > 0.995


def _recipe(**changes: Any) -> Any:
    sizes = {"model__d_model": 64, "model__n_heads": 4, "model__n_kv_heads": 4, "engine__float8": True}
    return world.recipe(**{**sizes, **changes})


def _problems(recipe: Any, device: torch.device) -> str:
    with pytest.raises(UserError) as caught:
        float8.require(recipe, device)
    assert {problem.field for problem in caught.value.problems} == {"engine.float8"}
    assert all("engine.float8: false" in problem.hint for problem in caught.value.problems)
    return str(caught.value)


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))


def test_a_cpu_is_refused() -> None:
    assert "needs a CUDA device" in _problems(_recipe(), torch.device("cpu"))


def test_an_older_gpu_is_refused_with_its_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    assert "needs compute capability 8.9 (H100: 9.0); this device has 8.0" in _problems(_recipe(), CUDA)


@pytest.mark.usefixtures("h100")
def test_a_torch_without_the_product_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "_scaled_mm")
    assert "needs torch._scaled_mm" in _problems(_recipe(), CUDA)


@pytest.mark.usefixtures("h100")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine__precision": "fp32"}, "rounds bf16 numbers; engine.precision is fp32"),
        ({"model__d_model": 40, "model__n_heads": 2, "model__n_kv_heads": 2}, "model.d_model is 40"),
        ({"model__d_ff": 100}, "model.d_ff is 100"),
        ({"model__n_heads": 8, "model__n_kv_heads": 1}, "model.n_kv_heads x d_head is 8"),
        ({"phases__0__sequence_length": 4}, "a micro-batch of phases.general, in tokens, is 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    assert said in _problems(_recipe(**changes), CUDA)


@pytest.mark.usefixtures("h100")
def test_an_h100_takes_what_fits() -> None:
    float8.require(_recipe(), CUDA)
