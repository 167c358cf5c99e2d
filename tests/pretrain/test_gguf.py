"""GGUF files: what is written is read back by the format's description, and heads are rotated as llama.cpp does."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import world

from pretrain.checkpoints import gguf, llama
from pretrain.model.decoder import initial_weights, parameter_shapes, rotary_angles, rotate

CFG = world.recipe().model
TOKENIZER = {"tokenizer.ggml.tokens": ["a", "가"], "tokenizer.ggml.token_type": [3, 1], "tokenizer.ggml.add_bos": False}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def one(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def value(self, kind: int) -> Any:
        if kind == 8:
            size = self.one("Q")
            self.at += size
            return self._data[self.at - size : self.at].decode()
        if kind == 9:
            item, count = self.one("I"), self.one("Q")
            return [self.value(item) for _ in range(count)]
        return self.one({4: "I", 5: "i", 6: "f", 7: "?"}[kind])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    data = path.read_bytes()
    reader = _Reader(data)
    assert (data[:4], reader.one("I"), reader.one("I")) == (b"GGUF", 0x46554747, 3)
    n_tensors, n_fields = reader.one("Q"), reader.one("Q")
    fields = {reader.value(8): reader.value(reader.one("I")) for _ in range(n_fields)}
    infos = []
    for _ in range(n_tensors):
        name, axes = reader.value(8), reader.one("I")
        infos.append((name, [reader.one("Q") for _ in range(axes)][::-1], reader.one("I"), reader.one("Q")))
    start = reader.at + -reader.at % 32
    tensors = {}
    for name, shape, kind, offset in infos:
        assert offset % 32 == 0
        dtype, count = {0: torch.float32, 30: torch.bfloat16}[kind], int(torch.tensor(shape).prod())
        flat = torch.frombuffer(bytearray(data), dtype=dtype, count=count, offset=start + offset)
        tensors[name] = flat.view(shape)
    return fields, tensors


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_weight_is_in_the_file_under_its_name(tmp_path: Path, precision: str) -> None:
    dtype = getattr(torch, precision)
    weights = dict(initial_weights(CFG, world.VOCAB, 3))
    llama.write(tmp_path, CFG, world.VOCAB, dtype, weights.items())
    gguf.write(tmp_path / "model.gguf", tmp_path, CFG, world.VOCAB, precision, TOKENIZER)
    fields, tensors = _read(tmp_path / "model.gguf")
    assert len(tensors) == len(parameter_shapes(CFG, world.VOCAB))
    assert torch.equal(tensors["token_embd.weight"], weights["model.embed_tokens.weight"].to(dtype))
    assert torch.equal(tensors["output.weight"], weights["lm_head.weight"].to(dtype))
    assert torch.equal(tensors["blk.1.ffn_down.weight"], weights["model.layers.1.mlp.down_proj.weight"].to(dtype))
    assert tensors["blk.0.attn_norm.weight"].dtype == torch.float32
    assert {key: fields[key] for key in TOKENIZER} == TOKENIZER
    assert (fields["general.architecture"], fields["llama.vocab_size"]) == ("llama", world.VOCAB)
    assert fields["llama.attention.head_count_kv"] == CFG.n_kv_heads
    assert fields["llama.rope.freq_base"] == CFG.rope_theta


def test_rotating_neighbours_of_the_file_s_heads_is_rotating_halves_of_ours(tmp_path: Path) -> None:
    weights = dict(initial_weights(CFG, world.VOCAB, 3))
    llama.write(tmp_path, CFG, world.VOCAB, torch.float32, weights.items())
    gguf.write(tmp_path / "model.gguf", tmp_path, CFG, world.VOCAB, "float32", TOKENIZER)
    _, tensors = _read(tmp_path / "model.gguf")
    x = torch.randn(5, CFG.d_model, generator=torch.Generator().manual_seed(0))
    cos, sin = rotary_angles(5, CFG.d_head, CFG.rope_theta, torch.device("cpu"))
    ours = [x @ weights[f"model.layers.0.self_attn.{part}_proj.weight"].T for part in "qk"]
    theirs = [x @ tensors[f"blk.0.attn_{part}.weight"].T for part in "qk"]
    for own, other in zip(ours, theirs, strict=True):
        halves = rotate(own.view(1, 5, -1, CFG.d_head).transpose(1, 2), cos, sin)[0]  # NTH
        pairs = torch.view_as_complex(other.view(5, -1, CFG.d_head // 2, 2).transpose(0, 1).contiguous())
        angles = torch.arange(5.0)[:, None] * CFG.rope_theta ** (-torch.arange(0, CFG.d_head, 2) / CFG.d_head)
        turned = pairs * torch.polar(torch.ones_like(angles), angles)
        torch.testing.assert_close(turned, torch.complex(*halves.chunk(2, dim=-1)), atol=1e-5, rtol=1e-5)
