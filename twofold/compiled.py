"""Compiled loops; the only module that imports numba.

Contract: `compiled` is for functions that other compiled ones call; `entry_point` for those that Python
calls: they are compiled at first use and cached on disk, by processor. The cache lies in `__pycache__`,
or in numba's folder of the user where that cannot be written; where neither can, every process compiles
for itself. No fast-math: every machine computes the same. The global interpreter lock is released.
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
