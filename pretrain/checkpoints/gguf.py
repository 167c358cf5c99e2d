"""A Llama-format folder -> one GGUF file, which llama.cpp and Ollama open.

Contract: weights keep their precision, vectors become float32, and one tensor is held at a time. The fields of the
tokenizer come from tokenizer/gguf.py, so that llama.cpp gives the ids of tokenizer.json.

The format (ggml, docs/gguf.md): magic, version, numbers of tensors and fields; the fields; name, shape, type and offset
of each tensor; then the tensors, each at a multiple of 32 bytes. Shapes are written with the fastest axis first.
llama.cpp rotates neighbouring pairs of a head where the Llama format rotates its halves, so the rows of queries and
keys are interleaved.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from configs.schema import Model
from pretrain.checkpoints import llama, safetensors_stream
from pretrain.model.decoder import EMBEDDING, HEAD, parameter_shapes
from twofold.files import atomic_path

_ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_TENSOR_TYPES = {torch.float32: 0, torch.bfloat16: 30}
_FILE_TYPES = {torch.float32: 0, torch.bfloat16: 32}
_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
Fields = Mapping[str, str | bool | int | float | Sequence[str] | Sequence[int]]
"""Integers are written as uint32, floating-point numbers as float32; integers in a sequence as int32."""


class _Entry(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def padded_bytes(self) -> int:
        size = safetensors_stream.size_in_bytes(self.shape, self.dtype)
        return size + -size % _ALIGNMENT


def write(target: Path, folder: Path, cfg: Model, vocab_size: int, precision: str, tokenizer: Fields) -> None:
    """Write the checkpoint in `folder`, whose weights have the `export.dtype` of its recipe; atomic."""
    dtype = getattr(torch, precision)
    entries = [
        _Entry(_name(name), shape, dtype if len(shape) > 1 else torch.float32)
        for name, shape in parameter_shapes(cfg, vocab_size).items()
    ]
    with atomic_path(target) as path, path.open("wb") as stream:
        stream.write(_header({**_model_fields(cfg, vocab_size, dtype), **tokenizer}, entries))
        stream.write(bytes(-stream.tell() % _ALIGNMENT))
        for entry, (name, value) in zip(entries, llama.read(folder, cfg, vocab_size), strict=True):
            tensor = _interleaved(name, value, cfg).to(entry.dtype).contiguous()
            stream.write(tensor.view(torch.uint8).numpy().data)
            stream.write(bytes(-stream.tell() % _ALIGNMENT))


def _model_fields(cfg: Model, vocab_size: int, dtype: torch.dtype) -> Fields:
    return {
        "general.architecture": "llama",
        "general.file_type": _FILE_TYPES[dtype],
        "general.alignment": _ALIGNMENT,
        "llama.vocab_size": vocab_size,
        "llama.context_length": cfg.max_sequence_length,
        "llama.embedding_length": cfg.d_model,
        "llama.block_count": cfg.n_layers,
        "llama.feed_forward_length": cfg.d_ff,
        "llama.attention.head_count": cfg.n_heads,
        "llama.attention.head_count_kv": cfg.n_kv_heads,
        "llama.attention.layer_norm_rms_epsilon": float(cfg.norm_eps),
        "llama.rope.dimension_count": cfg.d_head,
        "llama.rope.freq_base": float(cfg.rope_theta),
    }


def _name(name: str) -> str:
    fixed = {EMBEDDING: "token_embd.weight", "model.norm.weight": "output_norm.weight", HEAD: "output.weight"}
    if name in fixed:
        return fixed[name]
    layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{_NAMES[part]}.weight"


def _interleaved(name: str, value: Tensor, cfg: Model) -> Tensor:
    """Rows of a head from (first half, second half) to pairs of one of each; other tensors as they are."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return value
    return value.view(-1, 2, cfg.d_head // 2, value.shape[1]).transpose(1, 2).reshape(value.shape)


def _header(fields: Fields, entries: Sequence[_Entry]) -> bytes:
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(entries), len(fields)))
    for key, value in fields.items():
        out += _string(key) + _field(value)
    offset = 0
    for entry in entries:
        out += _string(entry.name) + struct.pack("<I", len(entry.shape))
        out += struct.pack(f"<{len(entry.shape)}Q", *reversed(entry.shape))
        out += struct.pack("<IQ", _TENSOR_TYPES[entry.dtype], offset)
        offset += entry.padded_bytes
    return bytes(out)


def _field(value: Any) -> bytes:
    """A value after its type."""
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, bool):
        return struct.pack("<IB", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    kind = _STRING if isinstance(value[0], str) else _INT32
    items = map(_string, value) if kind == _STRING else (struct.pack("<i", item) for item in value)
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + b"".join(items)


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data
