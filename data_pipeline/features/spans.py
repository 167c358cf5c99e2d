"""Words, lines and paragraphs as spans of code points: compiled parts of kernel.py.

Contract: each function gives (starts, ends), int32, ascending and disjoint, none empty. `codes` are the
document's code points, `flags` their classes (reading.characters).
"""

from __future__ import annotations

import numpy as np

from data_pipeline.readers.characters import SPACE
from twofold.compiled import compiled

_FEED = 10


@compiled
def words_of(flags):  # type: ignore[no-untyped-def]
    """As `str.split()`."""
    starts, ends = np.empty(len(flags) // 2 + 2, np.int32), np.empty(len(flags) // 2 + 2, np.int32)
    begun, ended, inside = 0, 0, False
    # Without a branch: no processor can guess where words end.
    for i in range(len(flags)):
        space = flags[i] & SPACE != 0
        starts[begun] = ends[ended] = i
        begun += not (inside or space)
        ended += inside and space
        inside = not space
    ends[ended] = len(flags)
    return starts[:begun], ends[:begun]


@compiled
def lines_of(codes, flags):  # type: ignore[no-untyped-def]
    """Parts between line feeds, stripped; what is then empty is left out."""
    capacity = _feeds(codes, 0, len(codes)) + 1
    starts, ends = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    count = start = 0
    for i in range(len(codes) + 1):
        if i == len(codes) or codes[i] == _FEED:
            first, last = _stripped(flags, start, i)
            if first < last:
                starts[count], ends[count] = first, last
                count += 1
            start = i + 1
    return starts[:count], ends[:count]


@compiled
def paragraphs_of(codes, flags):  # type: ignore[no-untyped-def]
    """Parts of the stripped text between two or more line feeds."""
    first, last = _stripped(flags, 0, len(codes))
    capacity = _feeds(codes, first, last) // 2 + 1
    starts, ends = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    count, start, feeds = 0, first, 0
    for i in range(first, last):
        if codes[i] == _FEED:
            feeds += 1
            continue
        if feeds > 1:
            starts[count], ends[count] = start, i - feeds
            count += 1
            start = i
        feeds = 0
    if first < last:
        starts[count], ends[count] = start, last
        count += 1
    return starts[:count], ends[:count]


@compiled
def _feeds(codes, start, end):  # type: ignore[no-untyped-def]
    found = 0
    for i in range(start, end):
        found += codes[i] == _FEED
    return found


@compiled
def _stripped(flags, start, end):  # type: ignore[no-untyped-def]
    while start < end and flags[start] & SPACE != 0:
        start += 1
    while end > start and flags[end - 1] & SPACE != 0:
        end -= 1
    return start, end
