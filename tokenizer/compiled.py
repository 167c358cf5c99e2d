"""Loops over bytes as machine code: the only module of `tokenizer` that imports numba.

Contract: that of data_pipeline/measuring/compiled.py, which is written again here because stages do not
import each other: compiled at first use, cached on disk by processor, renewed when a source changes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import xxhash


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled into those that call it."""
    return numba.njit(nogil=True)(function)


def entry_point(function: Callable[..., Any]) -> Any:
    """Compiled and cached. `function` must close over `digest(…)` of all files that it is compiled from."""
    assert function.__closure__, "numba's cache knows the file of the function and its closure, nothing else"
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no folder that can hold its cache
        return numba.njit(nogil=True)(function)


def digest(*files: str) -> str:
    """Names the contents of source files, so that a change of one renews the cache."""
    return xxhash.xxh3_128_hexdigest(b"".join(Path(file).read_bytes() for file in files))
