"""Llama-format checkpoints: transformers reads ours and we read transformers', with equal logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import world
from safetensors.torch import load_file

from pretrain.checkpoints import llama, safetensors_stream
from pretrain.model.decoder import Decoder, initial_weights, parameter_shapes
from twofold.errors import UserError

CFG = world.recipe().model


def _weights(seed: int = 3) -> dict[str, torch.Tensor]:
    # Norms away from 1 and matrices large, so that a mistake anywhere shows in the logits.
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value * 5 if value.dim() == 2 else value + 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in initial_weights(CFG, world.VOCAB, seed)
    }


def _ours(weights: dict[str, torch.Tensor]) -> Decoder:
    model = Decoder(CFG, world.VOCAB)
    model.load_state_dict(weights)
    return model


def _tokens() -> torch.Tensor:
    return torch.randint(0, world.VOCAB, (3, 40), generator=torch.Generator().manual_seed(0))


def _largest_difference(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one - two).abs().max())


@pytest.mark.parametrize("shard_bytes", [llama.SHARD_BYTES, 40_000])
@torch.no_grad()
def test_transformers_reads_ours_with_equal_logits(tmp_path: Path, shard_bytes: int) -> None:
    weights = _weights()
    llama.write(tmp_path, CFG, world.VOCAB, torch.float32, weights.items(), shard_bytes)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == ["model.safetensors"] if shard_bytes > 10**6 else len(files) > 2
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert theirs.config.rope_parameters["rope_theta"] == CFG.rope_theta
    assert _largest_difference(theirs(_tokens()).logits, _ours(weights)(_tokens())) <= 1e-5
    generated = theirs.generate(_tokens()[:1, :4], max_new_tokens=3, do_sample=False)
    assert generated.shape[1] <= 7


@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_we_read_what_transformers_wrote_with_equal_logits(tmp_path: Path, tied: bool) -> None:
    config = transformers.LlamaConfig(
        vocab_size=world.VOCAB,
        hidden_size=CFG.d_model,
        num_hidden_layers=CFG.n_layers,
        intermediate_size=CFG.d_ff,
        num_attention_heads=CFG.n_heads,
        num_key_value_heads=CFG.n_kv_heads,
        rms_norm_eps=CFG.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": CFG.rope_theta},
        tie_word_embeddings=tied,
        initializer_range=0.1,
    )
    torch.manual_seed(1)
    theirs = transformers.LlamaForCausalLM(config)
    theirs.save_pretrained(tmp_path, max_shard_size="60KB")
    ours = _ours(dict(llama.read(tmp_path, CFG, world.VOCAB)))
    assert _largest_difference(theirs(_tokens()).logits, ours(_tokens())) <= 1e-5


def test_what_we_write_we_read_back(tmp_path: Path) -> None:
    weights = _weights()
    llama.write(tmp_path, CFG, world.VOCAB, torch.float32, weights.items(), shard_bytes=40_000)
    back = dict(llama.read(tmp_path, CFG, world.VOCAB))
    assert list(back) == list(weights)
    assert all(torch.equal(back[name], value) for name, value in weights.items())


def test_bf16_is_the_nearest_of_float32(tmp_path: Path) -> None:
    weights = _weights()
    llama.write(tmp_path, CFG, world.VOCAB, torch.bfloat16, weights.items())
    stored = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(stored[name], value.to(torch.bfloat16)) for name, value in weights.items())


def test_an_older_config_with_rope_theta_alone_is_read(tmp_path: Path) -> None:
    llama.write(tmp_path, CFG, world.VOCAB, torch.float32, _weights().items())
    _edit(tmp_path, rope_parameters=None, head_dim=None)
    assert len(dict(llama.read(tmp_path, CFG, world.VOCAB))) == len(parameter_shapes(CFG, world.VOCAB))


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("hidden_size", 64, "set model.d_model to it"),
        ("num_hidden_layers", 3, "set model.n_layers to it"),
        ("num_key_value_heads", 4, "set model.n_kv_heads to it"),
        ("intermediate_size", 65, "set model.d_ff to it"),
        ("vocab_size", 353, "set tokenizer.vocab_size to it"),
        ("rms_norm_eps", 1e-6, "set model.norm_eps to it"),
        ("model_type", "mistral", "start from another checkpoint"),
        ("attention_bias", True, "start from another checkpoint"),
        ("hidden_act", "gelu", "start from another checkpoint"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_by_its_key(tmp_path: Path, key: str, value: Any, hint: str) -> None:
    llama.write(tmp_path, CFG, world.VOCAB, torch.float32, _weights().items())
    _edit(tmp_path, **{key: value})
    with pytest.raises(UserError, match=rf"config\.json {key} = {value!r}: does not fit this model") as error:
        next(llama.read(tmp_path, CFG, world.VOCAB))
    assert error.value.problems[0].hint == hint


def test_another_rotary_embedding_is_refused(tmp_path: Path) -> None:
    llama.write(tmp_path, CFG, world.VOCAB, torch.float32, _weights().items())
    _edit(tmp_path, rope_parameters={"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8})
    with pytest.raises(UserError) as error:
        next(llama.read(tmp_path, CFG, world.VOCAB))
    assert [p.field.split()[-1] for p in error.value.problems] == ["rope_type", "rope_theta"]


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        next(llama.read(tmp_path, CFG, world.VOCAB))
    llama.write(tmp_path, CFG, world.VOCAB, torch.float32, _weights().items())
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
        next(llama.read(tmp_path, CFG, world.VOCAB))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
        next(llama.read(tmp_path, CFG, world.VOCAB))


def test_a_missing_shard_or_tensor_or_wrong_shape_is_refused(tmp_path: Path) -> None:
    llama.write(tmp_path, CFG, world.VOCAB, torch.float32, _weights().items(), shard_bytes=40_000)
    sorted(tmp_path.glob("*.safetensors"))[-1].unlink()
    with pytest.raises(UserError, match=r"-of-.*cannot be read"):
        dict(llama.read(tmp_path, CFG, world.VOCAB))
    index = tmp_path / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    del raw["weight_map"]["model.norm.weight"]
    index.write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"'model\.norm\.weight': is not among its tensors"):
        dict(llama.read(tmp_path, CFG, world.VOCAB))
    for path in tmp_path.glob("*.safetensors*"):
        path.unlink()
    shapes = {name: (*shape[:-1], shape[-1] + 1) for name, shape in parameter_shapes(CFG, world.VOCAB).items()}
    tensors = ((name, torch.zeros(shape)) for name, shape in shapes.items())
    safetensors_stream.write(tmp_path / "model.safetensors", shapes, torch.float32, tensors)
    with pytest.raises(UserError, match=r"has shape \(352, 33\), and this model needs \(352, 32\)"):
        next(llama.read(tmp_path, CFG, world.VOCAB))


def test_a_stream_is_a_safetensors_file_and_nothing_is_left_when_it_breaks(tmp_path: Path) -> None:
    shapes = {"a": (2, 3), "b": (5,)}
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    safetensors_stream.write(tmp_path / "x.safetensors", shapes, torch.float32, tensors.items())
    back = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(back[name], value) for name, value in tensors.items())
    with pytest.raises(AssertionError, match="missing"):
        safetensors_stream.write(tmp_path / "y.safetensors", shapes, torch.float32, [("a", tensors["a"])])
    with pytest.raises(AssertionError, match="b"):
        safetensors_stream.write(tmp_path / "y.safetensors", shapes, torch.float32, [("b", tensors["b"])])
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
