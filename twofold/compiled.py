"""Python loops compiled to machine code; the only module that imports numba.

Contract: `compiled` is for functions that other compiled functions call. `entry_point` is for those that Python calls:
they are compiled on first use and cached on disk for each kind of processor, in `__pycache__` or in numba's per-user
folder. Where neither can be written, every process compiles for itself. There is no fast-math, so every machine
computes the same result. The global interpreter lock is released while compiled code runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import xxhash


def compiled(function: Callable[..., Any]) -> Any:
    """Compile `function` into the compiled functions that call it."""
    return numba.njit(nogil=True)(function)


def entry_point(function: Callable[..., Any], *modules: ModuleType) -> Any:
    """Compile and cache `function`.

    `modules` are the other modules whose compiled functions or constants it uses. numba renews its cache only when
    the file that holds `function` changes, so the contents of those modules become part of the cache's file name.
    """
    sources = digest(__file__, *(str(module.__file__) for module in modules))
    function.__qualname__ += f"_{sources[:16]}"
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no folder that can hold its cache
        return numba.njit(nogil=True)(function)


def digest(*files: str) -> str:
    """A hash of the contents of source files."""
    return xxhash.xxh3_128_hexdigest(b"".join(Path(file).read_bytes() for file in files))
