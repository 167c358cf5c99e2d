"""Write a safetensors file tensor by tensor, in the memory of one tensor.

The library's writer takes all tensors at once. The format is eight bytes of header length, a JSON header (name ->
dtype, shape, byte range), then the bytes (github.com/huggingface/safetensors, README), so a file whose names, dtypes
and shapes are known in advance can be written in one pass.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from twofold.files import atomic_path

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_ALIGNMENT = 8


def write(
    target: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, tensors: Iterable[tuple[str, Tensor]]
) -> None:
    """Write `tensors`, which must come in the order of `shapes`, as `dtype`; atomic."""
    with atomic_path(target) as path, path.open("wb") as stream:
        stream.write(_header(shapes, dtype))
        expected = iter(shapes.items())
        for name, tensor in tensors:
            assert (name, tuple(tensor.shape)) == next(expected), name
            stream.write(tensor.to("cpu", dtype).contiguous().view(torch.uint8).numpy().data)
        assert next(expected, None) is None, "tensors are missing"


def size_in_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes that a tensor takes in a file."""
    return math.prod(shape) * dtype.itemsize


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + size_in_bytes(shape, dtype)
        entries[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
