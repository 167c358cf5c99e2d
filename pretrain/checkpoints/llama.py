"""Llama-format checkpoints: a folder of config.json and *.safetensors, written and read.

Contract: `write` and `read` hold one tensor at a time. Names are the model's own (decoder.py), so nothing is
translated. `read` refuses what does not fit this model (llama_config.py). The rotary base is written twice:
transformers 5 reads `rope_parameters`, version 4 reads `rope_theta`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from configs.schema import Model
from pretrain.checkpoints import llama_config, safetensors_stream
from pretrain.model.decoder import EMBEDDING, HEAD, parameter_shapes
from twofold.errors import user_error
from twofold.files import patiently, write_json
from twofold.special_ids import EOS_ID, PAD_ID

SHARD_BYTES = 5_000_000_000
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def write(
    folder: Path,
    cfg: Model,
    vocab_size: int,
    dtype: torch.dtype,
    weights: Iterable[tuple[str, Tensor]],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write `weights` (in the model's order) as `dtype`, in files of at most `shard_bytes` or one tensor."""
    shapes = parameter_shapes(cfg, vocab_size)
    shards = _cut(shapes, dtype, shard_bytes)
    names = [_SINGLE] if len(shards) == 1 else [_shard_name(n, len(shards)) for n in range(1, len(shards) + 1)]
    stream = iter(weights)
    for name, keys in zip(names, shards, strict=True):
        part = (next(stream) for _ in keys)
        safetensors_stream.write(folder / name, {key: shapes[key] for key in keys}, dtype, part)
    if len(shards) > 1:
        total = sum(safetensors_stream.size_in_bytes(shape, dtype) for shape in shapes.values())
        weight_map = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
        write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    write_json(folder / "config.json", config_of(cfg, vocab_size, dtype))
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": EOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID, "do_sample": True, "temperature": 0.8},
    )


def config_of(cfg: Model, vocab_size: int, dtype: torch.dtype) -> dict[str, Any]:
    """config.json. What stands before a document in training is eos, so it is named as bos too."""
    name = str(dtype).removeprefix("torch.")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        **llama_config.shape_keys(cfg),
        **llama_config.FIXED_KEYS,
        "tie_word_embeddings": False,
        "rope_theta": cfg.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": cfg.rope_theta},
        "max_position_embeddings": cfg.max_sequence_length,
        "initializer_range": cfg.init_std,
        "bos_token_id": EOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": PAD_ID,
        "dtype": name,
        "torch_dtype": name,
        # Without a version from 5 on, transformers 4.57 warns of a tokenizer of Mistral's that has a wrong pattern.
        "transformers_version": "5.0.0",
    }


def read(folder: Path, cfg: Model, vocab_size: int) -> Iterator[tuple[str, Tensor]]:
    """(name, float32 value) of every parameter, in the model's order; `UserError` if something does not fit."""
    config = llama_config.checked(folder, cfg, vocab_size)
    files = _files(folder)
    for name, shape in parameter_shapes(cfg, vocab_size).items():
        stored = EMBEDDING if name == HEAD and config.get("tie_word_embeddings") else name
        yield name, _read_tensor(folder, files, stored, shape)


def read_file(path: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, value) of every tensor of one safetensors file, in the order of its bytes."""
    with safe_open(path, framework="pt") as opened:
        for name in opened.offset_keys():
            yield name, opened.get_tensor(name)


def _read_tensor(folder: Path, files: dict[str, str], name: str, shape: tuple[int, ...]) -> Tensor:
    if name not in files:
        raise user_error(str(folder), name, "is not among its tensors", "restore the checkpoint's files")
    path = folder / files[name]
    try:
        with patiently(safe_open, path, framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
    except (FileNotFoundError, SafetensorError) as error:
        raise user_error(str(path), None, f"cannot be read ({error})", "restore the checkpoint's files") from None
    if tuple(tensor.shape) != shape:
        raise user_error(
            str(path),
            name,
            f"has shape {tuple(tensor.shape)}, and this model needs {shape}",
            "start from a checkpoint whose config.json is true",
        )
    return tensor.float()


def _files(folder: Path) -> dict[str, str]:
    """Tensor name -> file name."""
    if (folder / _INDEX).exists():
        weight_map: dict[str, str] = llama_config.read_json_of(folder / _INDEX)["weight_map"]
        return weight_map
    try:
        with patiently(safe_open, folder / _SINGLE, framework="pt") as opened:
            return dict.fromkeys(opened.keys(), _SINGLE)
    except (FileNotFoundError, SafetensorError) as error:
        raise user_error(
            str(folder / _SINGLE), None, f"cannot be read ({error})", "name a folder with safetensors files"
        ) from None


def _cut(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        size = safetensors_stream.size_in_bytes(shape, dtype)
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _shard_name(number: int, total: int) -> str:
    return f"model-{number:05d}-of-{total:05d}.safetensors"
