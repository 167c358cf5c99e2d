"""Kernels are compiled ahead for the types that the stages use, once, and where caches are known to lie."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from configs.data_schema import NearDuplicates
from data_pipeline.features import overlap
from data_pipeline.stages.score import attributes
from launch import kernels
from tokenizer.engine import Vocabulary, encode, pretokenize
from tokenizer.patterns import PATTERNS


def signatures() -> dict[str, list[Any]]:
    """Kernel -> the types that this process has compiled or loaded it for."""
    ours = [module for name, module in sys.modules.items() if name.startswith(("data_pipeline.", "tokenizer."))]
    found = {f"{module.__name__}.{name}": value for module in ours for name, value in vars(module).items()}
    return {name: list(kernel.signatures) for name, kernel in found.items() if isinstance(kernel, Dispatcher)}


def test_other_texts_need_no_further_compilation() -> None:
    for rank in range(len(kernels.GROUPS)):
        kernels.compile_kernels(rank, len(kernels.GROUPS))
    before = signatures()
    assert before["data_pipeline.features.counts.count_documents"]
    attributes("def f(x):\n    return x + 1\n" * 5, "code", NearDuplicates(num_buckets=3), {})
    overlap.every(["a", "", "긴 글 " * 50], overlap.index_of(*overlap.fold(["글 " * 60, "b"]), 20, True))
    text = np.frombuffer("다른 글, another text".encode(), np.uint8)
    ends = np.array([5, len(text)], np.int64)
    pretokenize(text, ends, PATTERNS["plain"])
    encode(
        text, ends, Vocabulary.of(PATTERNS["plain"], np.arange(256, dtype=np.uint32), np.zeros((0, 3), np.uint32)), 2
    )
    assert signatures() == before


def test_a_cache_of_an_earlier_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not kernels.are_compiled()
    (tmp_path / "features_1").mkdir()
    (tmp_path / "features_1" / "counts._count_documents_ab-50.py311.nbi").touch()
    assert kernels.are_compiled()
