"""Open addressing with linear probing: the one hash table of the engine's compiled code.

Contract: slots are uint64, a power of two of them, and at least half stay free. A free slot holds 0; what the others
hold is up to the user of the table, as long as some of their bits, the tag, tell most keys apart. Where two keys can
share a tag, the user compares the keys and probes on.
"""

from __future__ import annotations

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


@compiled
def probe(slots, place, tag, tag_bits):  # type: ignore[no-untyped-def]
    """The first place from `place` (a hash, or the next place) on that is free, or whose `tag_bits` are `tag`."""
    last = np.uint64(len(slots) - 1)
    place = place & last
    while slots[place] != FREE and slots[place] & tag_bits != tag:
        place = (place + _ONE) & last
    return place
