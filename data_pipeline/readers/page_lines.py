"""Lines of a page's text: what an extractor broke is made whole, and what another one chose is found again.

Contract: `whole` is all of a page's text and holds every block unbroken. `mended` and `selected` return lines of it,
so that what they return is either a whole line or, where nothing matches, the extractor's own. Linear time.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

_GRAM = 5
_CAPTURED_SHARE = 0.6
"""Of a line's 5-grams, from which on it counts as captured."""
_MIN_PIECE_SHARE = 0.4
_MIN_PIECE = 10
_SURE_LENGTH = 20
"""Shorter lines may stand in a page twice by chance."""
_LONG_LINE = 40
_MARGIN = 5
_REACH = 20
"""Lines in which a broken line's block is looked for."""
_DECORATION = re.compile(r"^\s*(?:[•\-–*]|\d+\.)\s+")
_IGNORED = str.maketrans("", "", " \t\n\r\f\v\xa0|")


def bare(line: str) -> str:
    """The line without white space, bullet, number and bars, as which extractors write lists and tables."""
    return squeezed(_DECORATION.sub("", line))


def squeezed(text: str) -> str:
    """The text without white space and bars."""
    return text.translate(_IGNORED)


def size(lines: Sequence[str]) -> int:
    """Characters."""
    return sum(map(len, lines))


def mended(part: Sequence[str], whole: Sequence[str]) -> list[str]:
    """`part`, a page's extracted lines, with each broken line replaced by the line of `whole` that it is from."""
    places: dict[str, list[int]] = {}
    for at, line in enumerate(whole):
        places.setdefault(line, []).append(at)
    out: list[str] = []
    at, used = 0, set[int]()
    for line in part:
        if line in places:
            later = bisect_left(places[line], at)
            if len(line) >= _SURE_LENGTH and later < len(places[line]):
                at = places[line][later] + 1
            out.append(line)
        elif (found := _block_of(line, whole, at, used)) is None:
            out.append(line)
        elif found not in used:  # else it is another piece of the block that was put in last
            used.add(found)
            at = found
            out.append(whole[found])
    return out


def selected(whole: Sequence[str], choice: str) -> list[str]:
    """The lines of `whole` that `choice`, another extractor's text, holds, whole or for the greater part."""
    keys = [bare(line) for line in whole]
    chosen = {bare(line) for line in choice.split("\n")}
    loose = {gram for key in chosen.difference(keys) for gram in _grams(key)}
    kept = [key in chosen or (len(key) >= _SURE_LENGTH and _share(key, loose) >= _CAPTURED_SHARE) for key in keys]
    sure = [at for at, key in enumerate(keys) if kept[at] and len(key) >= _LONG_LINE]
    first, last = (sure[0] - _MARGIN, sure[-1] + _MARGIN) if sure else (0, len(keys))
    return [line for at, line in enumerate(whole) if not keys[at] or (kept[at] and first <= at <= last)]


def _block_of(line: str, whole: Sequence[str], start: int, used: set[int]) -> int | None:
    """The index of the next line of which this piece is a good part, or of a used one that holds it whole."""
    key = bare(line)
    if len(key) < _MIN_PIECE:
        return None
    for at in range(start, min(start + _REACH, len(whole))):
        if at in used:
            if key in bare(whole[at]):
                return at
        elif _MIN_PIECE_SHARE * len(whole[at]) <= len(line) <= len(whole[at]):
            block = bare(whole[at])
            begins_or_ends = key[:_GRAM] in block or key[-_GRAM:] in block
            if begins_or_ends and _share(key, set(_grams(block))) >= _CAPTURED_SHARE:
                return at
    return None


def _share(key: str, grams: set[str]) -> float:
    own = _grams(key)
    return sum(gram in grams for gram in own) / len(own) if grams else 0.0


def _grams(text: str) -> list[str]:
    return [text[at : at + _GRAM] for at in range(max(1, len(text) - _GRAM + 1))]
