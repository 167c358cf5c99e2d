"""The decoder against slow obvious attention, its sizes against the formulas, its initialisation."""

from __future__ import annotations

import math

import pytest
import torch
import world

from configs.schema import Model
from pretrain.model.decoder import Decoder, RMSNorm, initial_weights, parameter_shapes, rotary_angles, rotate
from pretrain.model.linear_cross_entropy import token_losses
from pretrain.model.sizes import flops_per_token, n_matrix_parameters, n_parameters

EXAONE = Model(d_model=4096, n_layers=32, n_heads=32, n_kv_heads=8, d_ff=14336)
EXAONE_VOCAB = 102_400


def _model(**options: bool) -> Decoder:
    cfg = world.recipe().model
    model = Decoder(cfg, world.VOCAB, **options)
    model.load_state_dict(dict(initial_weights(cfg, world.VOCAB, seed=3)))
    return model


def _tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, world.VOCAB, shape, generator=torch.Generator().manual_seed(0))


def test_parameters_of_the_7p8b_model_without_allocating_it() -> None:
    shapes = parameter_shapes(EXAONE, EXAONE_VOCAB)
    assert n_parameters(EXAONE, EXAONE_VOCAB) == sum(math.prod(shape) for shape in shapes.values()) == 7_818_448_896
    assert n_matrix_parameters(EXAONE, EXAONE_VOCAB) == sum(
        math.prod(s) for name, s in shapes.items() if len(s) == 2 and "embed" not in name
    )


def test_parameters_of_the_tests_model() -> None:
    cfg = world.recipe().model
    assert n_parameters(cfg, world.VOCAB) == sum(p.numel() for p in _model().parameters())


def test_flops_in_both_conventions() -> None:
    flops = flops_per_token(EXAONE, EXAONE_VOCAB, 4096)
    assert flops["full"] / 1e9 == pytest.approx(50.8, abs=0.05)
    assert flops["causal"] / 1e9 == pytest.approx(47.6, abs=0.05)


def test_a_token_sees_only_those_before_it() -> None:
    model, tokens = _model(), _tokens(2, 12)
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % world.VOCAB
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_attention_equals_its_definition() -> None:
    """Every query head by itself, softmax(q k / sqrt(H)) v over the keys up to its position."""
    cfg = world.recipe().model
    attention = _model().model.layers[0].self_attn
    x = torch.randn(2, 9, cfg.d_model, generator=torch.Generator().manual_seed(1))
    cos, sin = rotary_angles(9, cfg.d_head, cfg.rope_theta, x.device)
    q, k, v = (getattr(attention, f"{name}_proj")(x).view(2, 9, -1, cfg.d_head) for name in "qkv")
    out = torch.zeros(2, 9, cfg.n_heads, cfg.d_head)
    for head in range(cfg.n_heads):
        key = head // (cfg.n_heads // cfg.n_kv_heads)
        for t in range(9):
            query = rotate(q[:, t, head], cos[t], sin[t])
            scores = torch.stack([(query * rotate(k[:, s, key], cos[s], sin[s])).sum(-1) for s in range(t + 1)], dim=-1)
            shares = torch.softmax(scores / math.sqrt(cfg.d_head), dim=-1)
            out[:, t, head] = (shares[..., None] * v[:, : t + 1, key]).sum(1)
    expected = attention.o_proj(out.flatten(2))
    torch.testing.assert_close(attention(x, cos, sin), expected, atol=1e-6, rtol=1e-5)


def test_rotation_depends_on_distance_alone() -> None:
    q, k = torch.randn(2, 16, generator=torch.Generator().manual_seed(2))
    cos, sin = rotary_angles(64, 16, 10_000.0, q.device)
    turned = [[rotate(q, cos[t], sin[t]) @ rotate(k, cos[s], sin[s]) for s in (0, 20)] for t in (5, 25)]
    torch.testing.assert_close(turned[0][0], turned[1][1], atol=1e-5, rtol=1e-5)
    assert abs(turned[0][0] - turned[1][0]) > 1e-3


def test_norm_in_bf16_takes_its_mean_in_float32() -> None:
    norm = RMSNorm(4096, 1e-5).to(torch.bfloat16)
    x = torch.full((1, 1, 4096), 0.1, dtype=torch.bfloat16)
    torch.testing.assert_close(norm(x).float(), torch.ones(1, 1, 4096), atol=2e-3, rtol=0)


def test_token_losses_equal_their_definition_and_so_do_their_gradients() -> None:
    logits = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(4), requires_grad=True)
    targets = torch.tensor([[0, 3, 10, 2, 2], [1, 1, 9, 4, 0]])
    nll, log_z = token_losses(logits, targets)
    torch.testing.assert_close(log_z, logits.logsumexp(-1))
    torch.testing.assert_close(nll, logits.logsumexp(-1) - logits.gather(-1, targets[..., None])[..., 0])
    (found,) = torch.autograd.grad(nll.mean() + 0.1 * log_z.square().mean(), logits, retain_graph=True)
    plain = -logits.log_softmax(-1).gather(-1, targets[..., None]).mean() + 0.1 * logits.logsumexp(-1).square().mean()
    torch.testing.assert_close(found, torch.autograd.grad(plain, logits)[0])


def test_recomputing_activations_changes_nothing() -> None:
    tokens, targets = _tokens(2, 12), _tokens(2, 12)
    gradients = []
    for recompute in (False, True):
        model = _model(recompute=recompute)
        model(tokens, targets)[0].mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_initial_weights_are_a_function_of_seed_and_name() -> None:
    cfg = world.recipe(model__d_model=256, model__d_ff=512).model
    one, again, other = (dict(initial_weights(cfg, world.VOCAB, seed)) for seed in (1, 1, 2))
    assert {name: tuple(value.shape) for name, value in one.items()} == parameter_shapes(cfg, world.VOCAB)
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    matrices = [name for name, value in one.items() if value.dim() == 2]
    assert not any(torch.equal(one[name], other[name]) for name in matrices)
    assert not torch.equal(one["model.layers.0.self_attn.q_proj.weight"], one["model.layers.1.self_attn.q_proj.weight"])
    for name in matrices:
        into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        std = cfg.init_std / 2 if into_residual else cfg.init_std  # 1 / sqrt(2 x 2 layers)
        assert one[name].std().item() == pytest.approx(std, rel=0.03)
    assert all(torch.equal(value, torch.ones_like(value)) for name, value in one.items() if value.dim() == 1)
