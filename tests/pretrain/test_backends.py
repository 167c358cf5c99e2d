"""The choice of kernels: what each device gets, and what is said where something is missing."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import world

from pretrain.model.backends import Kernels, choose, install
from pretrain.model.decoder import Decoder, initial_weights
from twofold.errors import UserError

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
FAST = Kernels(ordered_attention=True, document_bounds=True, compiler="inductor", losses="kept")


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing is missing."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: object() if name == "triton" else found(name, *a))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("CC", raising=False)


@pytest.mark.parametrize("wanted", ["auto", "plain"])
def test_a_cpu_gets_the_plain_way(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    chosen = choose(world.recipe(engine__backend=wanted), CPU)
    assert dataclasses.replace(chosen, fallbacks=()) == Kernels()
    assert chosen.describe()[:6] == [
        "attention: as torch chooses",
        "masked documents: dense mask",
        "block: eager",
        "head: plain",
        "recomputed in the backward pass: nothing",
        "linear layers of blocks: in the precision of the recipe",
    ]
    assert chosen.describe()[6:] == (
        ["all parts plain: the fast ones need a CUDA device. Hint: use one"] if wanted == "auto" else []
    )


@pytest.mark.parametrize(
    ("backend", "precision", "expected"), [("auto", "bf16", True), ("auto", "fp32", False), ("plain", "bf16", False)]
)
def test_a_cpu_without_bf16_products_multiplies_in_float32(
    backend: str, precision: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    chosen = choose(world.recipe(engine__backend=backend, engine__precision=precision), CPU)
    assert dataclasses.replace(chosen, fallbacks=()) == Kernels(float32_products=expected)
    assert chosen.describe()[5].endswith("float32, rounded to bf16") == expected


def test_float32_products_are_bf16_products_up_to_rounding() -> None:
    """Loss and gradients of a whole model; bf16 keeps 8 bits."""
    recipe = world.recipe()
    tokens_BT = torch.arange(2 * 17).reshape(2, 17) % recipe.tokenizer.vocab_size
    found = []
    for kernels in (Kernels(), Kernels(float32_products=True)):
        model = Decoder(recipe.model, recipe.tokenizer.vocab_size, linear=kernels.linear).bfloat16()
        install(model, kernels)
        model.load_state_dict(
            {name: value.bfloat16() for name, value in initial_weights(recipe.model, recipe.tokenizer.vocab_size, 1)}
        )
        nll_BT, log_z_BT = model(tokens_BT[:, :-1], tokens_BT[:, 1:])
        (nll_BT.mean() + 0.1 * log_z_BT.square().mean()).backward()
        gradients = torch.cat([parameter.grad.float().flatten() for parameter in model.parameters()])
        assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.bfloat16}
        found.append((nll_BT.mean(), gradients))
    (plain_loss, plain), (loss, gradients) = found
    torch.testing.assert_close(loss, plain_loss, rtol=2**-8, atol=0)
    assert (gradients - plain).norm() <= 2**-6 * plain.norm()


@pytest.mark.usefixtures("h100")
def test_an_h100_gets_every_fast_way() -> None:
    chosen = choose(world.recipe(phases__0__intra_document_masking=True), CUDA)
    assert chosen == FAST
    assert chosen.describe() == [
        "attention: cuDNN first",
        "masked documents: segments",
        "block: compiled (inductor)",
        "head: chunked, logits kept",
        "recomputed in the backward pass: nothing",
        "linear layers of blocks: in the precision of the recipe",
    ]


@pytest.mark.usefixtures("h100")
def test_plain_is_plain_on_an_h100_too() -> None:
    assert choose(world.recipe(engine__backend="plain"), CUDA) == Kernels()


@pytest.mark.usefixtures("h100")
@pytest.mark.parametrize(("recompute", "losses"), [(True, "recomputed"), ("selective", "kept")])
def test_logits_are_recomputed_where_blocks_are(recompute: Any, losses: Any) -> None:
    chosen = choose(world.recipe(engine__activation_checkpointing=recompute), CUDA)
    assert chosen == dataclasses.replace(FAST, losses=losses, recompute=recompute)


@pytest.mark.usefixtures("h100")
def test_float8_is_taken_where_it_is_asked_for() -> None:
    sizes = {"model__d_model": 64, "model__n_kv_heads": 4}
    assert choose(world.recipe(engine__float8=True, **sizes), CUDA) == dataclasses.replace(FAST, float8=True)
    (slow,) = choose(world.recipe(engine__float8=True, engine__backend="plain", **sizes), CUDA).fallbacks
    assert "float8 is slow here" in slow
    with pytest.raises(UserError, match="needs a CUDA device"):
        choose(world.recipe(engine__float8=True, **sizes), CPU)


def _no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name, *_: None)


def _no_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)


def _old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (6, 0))


@pytest.mark.usefixtures("h100")
@pytest.mark.parametrize(
    ("lack", "said"),
    [
        (_no_triton, "block not compiled: Triton is not installed. Hint: pip install triton"),
        (_no_c, "block not compiled: Triton builds its launcher with a C compiler, and none is on PATH. Hint: install"),
        (_old, "block not compiled: Triton needs compute capability 7.0, this device has 6.0. Hint:"),
    ],
)
def test_without_what_triton_needs_blocks_are_eager(
    lack: Callable[[pytest.MonkeyPatch], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(monkeypatch)
    chosen = choose(world.recipe(engine__activation_checkpointing="selective"), CUDA)
    assert (chosen.compiler, chosen.recompute, chosen.ordered_attention) == (None, True, True)
    block, selective = chosen.describe()[6:]
    assert block.startswith(said)
    assert selective.startswith("all of a block is recomputed: outside of a compiled block")
    assert "Hint: " in selective


@pytest.mark.usefixtures("h100")
def test_a_compiler_named_by_cc_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    _no_c(monkeypatch)
    monkeypatch.setenv("CC", "/opt/cc")
    assert choose(world.recipe(), CUDA) == FAST


@pytest.mark.usefixtures("h100")
def test_without_flash_attention_documents_are_kept_apart_by_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    masked = {"phases__0__intra_document_masking": True}
    (precision,) = choose(world.recipe(engine__precision="fp32", **masked), CUDA).fallbacks
    assert "documents by a dense mask: FlashAttention takes bf16, engine.precision is fp32. Hint:" in precision
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
    (capability,) = choose(world.recipe(**masked), CUDA).fallbacks
    assert "needs compute capability 8.0, this device has 7.5. Hint:" in capability
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: False)
    (missing,) = choose(world.recipe(**masked), CUDA).fallbacks
    assert "this torch was built without FlashAttention. Hint:" in missing
    without_masks = choose(world.recipe(), CUDA)
    assert without_masks.fallbacks == ()  # nothing is lost
    assert not without_masks.document_bounds


@pytest.mark.parametrize("value", ["fast", "compiled", True])
def test_other_kernels_are_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"engine\.backend"):
        world.recipe(engine__backend=value)


def _model(kernels: Kernels) -> Decoder:
    cfg = world.recipe().model
    model = Decoder(cfg, world.VOCAB, linear=kernels.linear)
    model.load_state_dict(dict(initial_weights(cfg, world.VOCAB, 3)))
    install(model, kernels)
    return model


def test_what_is_installed_leaves_names_shapes_and_values() -> None:
    plain = _model(Kernels()).state_dict()
    fast = _model(Kernels(compiler="eager", losses="kept", recompute="selective", float8=True)).state_dict()
    assert list(plain) == list(fast)
    assert all(torch.equal(value, fast[name]) for name, value in plain.items())


def test_validation_is_not_compiled() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, tokens = _model(Kernels(compiler="eager", losses="kept")), torch.arange(20, 40)[None]
    with torch.no_grad():
        for length in range(2, 14):  # more shapes than torch.compile takes by itself
            model(tokens[:, :length], tokens[:, :length])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0


def test_selective_recomputing_saves_less() -> None:
    """Bytes that wait for the backward pass, in all layers; each way less than the one before it."""
    saved: dict[Any, int] = {}
    tokens = torch.arange(20, 52)[None]
    for way in (False, "selective", True):
        torch._dynamo.reset()
        model, storages = _model(Kernels(compiler="aot_eager", recompute=way)), {}

        def pack(tensor: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        parameters = {parameter.data_ptr() for parameter in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.model(tokens)
        saved[way] = sum(size for pointer, size in storages.items() if pointer not in parameters)
    assert saved[True] < saved["selective"] < 0.75 * saved[False]
