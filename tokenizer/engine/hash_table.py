"""Open addressing with linear probing: the one hash table of the engine's compiled code.

Contract: slots are uint64, a power of two of them, and at least half stay free; a free slot holds 0. What a slot holds
otherwise is up to the user of the table, who says by `matches(slot, table, data, key)` whether it is the slot of a key:
`key` holds numbers, and `table` and `data` the arrays that they refer to (arrays in a tuple cost twice the time).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from twofold.compiled import compiled

FREE = np.uint64(0)
_ONE, _SHIFT = np.uint64(1), np.uint64(33)
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)

Slots = npt.NDArray[np.uint64]


def slots_for(entries: int) -> int:
    """How many slots a table of at most `entries` entries needs."""
    return 1 << max(4, (2 * entries - 1).bit_length())


@compiled
def mix(value):  # type: ignore[no-untyped-def]
    """Spread 64 bits evenly; reversible (the end of MurmurHash3)."""
    value = value * _MIX_1
    value = (value ^ (value >> _SHIFT)) * _MIX_2
    return value ^ (value >> _SHIFT)


def finder(matches: Callable[..., Any]) -> Any:
    """`find(slots, hashed, table, data, key)`: the place of a key, or the free one where it belongs."""

    @compiled
    def find(slots, hashed, table, data, key):  # type: ignore[no-untyped-def]
        mask = np.uint64(len(slots) - 1)
        place = hashed & mask
        while slots[place] != FREE and not matches(slots[place], table, data, key):
            place = (place + _ONE) & mask
        return place

    return find
