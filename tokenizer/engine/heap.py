"""A binary heap in two arrays: the one heap of the engine's compiled code.

Contract: entry i is `items[i]` with the priority `keys[i]` (int64); the least key is on top, and of equal keys the item
that `precedes(table, item, other)`. The caller keeps the number of entries and provides room for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twofold.compiled import compiled


def heap_of(precedes: Callable[..., Any]) -> tuple[Any, Any]:
    """`push` and `replace_top` of a heap whose ties `precedes` breaks."""

    @compiled
    def is_above(table, key, item, other_key, other):  # type: ignore[no-untyped-def]
        return key < other_key or (key == other_key and precedes(table, item, other))

    @compiled
    def push(keys, items, size, key, item, table):  # type: ignore[no-untyped-def]
        """Add an entry to a heap of `size` entries."""
        at = size
        while at > 0:
            parent = (at - 1) >> 1
            if not is_above(table, key, item, keys[parent], items[parent]):
                break
            keys[at], items[at] = keys[parent], items[parent]
            at = parent
        keys[at], items[at] = key, item

    @compiled
    def replace_top(keys, items, size, key, item, table):  # type: ignore[no-untyped-def]
        """Put an entry in the place of the top one, in a heap of `size` entries.

        To remove the top, replace it by the last entry in a heap of one entry fewer.
        """
        at, child = 0, 1
        while child < size:
            last = child + 1
            if last < size and is_above(table, keys[last], items[last], keys[child], items[child]):
                child = last
            if not is_above(table, keys[child], items[child], key, item):
                break
            keys[at], items[at] = keys[child], items[child]
            at, child = child, 2 * child + 1
        keys[at], items[at] = key, item

    return push, replace_top
