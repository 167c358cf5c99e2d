"""Words, lines and paragraphs as spans of code points: compiled parts of counts.py.

Contract: each function returns (starts, ends), int32, ascending and disjoint, none empty. `codes` are the
document's code points, `flags` their classes (readers.characters).
"""

from __future__ import annotations

import numpy as np

from data_pipeline.readers.characters import SPACE
from twofold.compiled import compiled

_FEED = 10


@compiled
def words_of(flags):  # type: ignore[no-untyped-def]
    """Like `str.split()`."""
    starts, ends = _room(flags)
    count, inside = 0, False
    for i in range(len(flags)):
        space = flags[i] & SPACE != 0
        if inside and space:
            ends[count] = i
            count += 1
        elif not (inside or space):
            starts[count] = i
        inside = not space
    if inside:
        ends[count] = len(flags)
        count += 1
    return starts[:count], ends[:count]


@compiled
def lines_of(codes, flags):  # type: ignore[no-untyped-def]
    """Stripped parts between line feeds, without empty ones."""
    starts, ends = _room(flags)
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
    starts, ends = _room(flags)
    first, last = _stripped(flags, 0, len(codes))
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
def _room(flags):  # type: ignore[no-untyped-def]
    """Spans are not empty and something lies between two of them, so this many fit."""
    capacity = len(flags) // 2 + 1
    return np.empty(capacity, np.int32), np.empty(capacity, np.int32)


@compiled
def _stripped(flags, start, end):  # type: ignore[no-untyped-def]
    while start < end and flags[start] & SPACE != 0:
        start += 1
    while end > start and flags[end - 1] & SPACE != 0:
        end -= 1
    return start, end
