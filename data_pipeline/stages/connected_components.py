"""Linked documents -> sets of documents that are linked directly or through others (union-find), compiled.

Contract: a set is named by its smallest member, whatever the order of the links. Takes almost linear time and 8 bytes
of memory for each document, linked or not. The tests compare it with growing sets until nothing changes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from twofold.compiled import compiled, entry_point

Numbers = npt.NDArray[np.int64]


class Sets:
    """Sets over the documents 0..count - 1, each alone at first."""

    def __init__(self, count: int) -> None:
        # The parent of each document; of the first of a set, minus the size of the set.
        self._parents = np.full(count, -1, np.int64)

    def join(self, pairs: Numbers) -> None:
        """Join the sets of both documents of each pair; `pairs` has the shape (n, 2)."""
        _join(np.ascontiguousarray(pairs), self._parents)

    def of(self, start: int, stop: int) -> tuple[Numbers, Numbers]:
        """The first member and the size of the sets of the documents start..stop - 1; -1 and 1 for one alone."""
        names, sizes = np.empty((2, stop - start), np.int64)
        _names(self._parents, start, names, sizes)
        return names, sizes

    def count(self) -> tuple[int, int]:
        """The number of sets of at least two documents, and of their documents beyond the first of each."""
        sets = np.count_nonzero(self._parents < -1)
        return int(sets), int(np.count_nonzero(self._parents >= 0))


@compiled
def _root(parents, place):  # type: ignore[no-untyped-def]
    """The first of the set of `place`; halves the way to it."""
    while parents[place] >= 0:
        above = parents[place]
        if parents[above] < 0:
            return above
        parents[place] = parents[above]
        place = parents[above]
    return place


def join_sets(pairs, parents):  # type: ignore[no-untyped-def]
    """The smaller root becomes the parent, so a parent is smaller than its child."""
    for pair in range(len(pairs)):
        left, right = _root(parents, pairs[pair, 0]), _root(parents, pairs[pair, 1])
        if left != right:
            small, large = min(left, right), max(left, right)
            parents[small] += parents[large]
            parents[large] = small


def set_names(parents, start, names, sizes):  # type: ignore[no-untyped-def]
    """Name and size of the set of each document from `start` on."""
    for place in range(len(names)):
        root = _root(parents, start + place)
        sizes[place] = -parents[root]
        names[place] = root if sizes[place] > 1 else -1


_join = entry_point(join_sets)
_names = entry_point(set_names)
