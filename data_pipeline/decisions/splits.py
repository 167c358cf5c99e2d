"""Which kept documents validate: a pure function of (seed, id) and of the extremes of each destination.

Contract: a kept document goes to validation if the hash of (seed, id) is below `validation_share`. If a
destination keeps two or more documents, the one with the lowest hash always validates (unless the share is 0)
and the one with the highest always trains, so that neither split is empty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

_HASH_RANGE = 2**64


def split_hash(seed: int, identity: str) -> int:
    """64-bit hash of (seed, id), which places a kept document in a split."""
    digested = hashlib.blake2b(f"{seed}:{identity}".encode(), digest_size=8).digest()
    return int.from_bytes(digested, "big")


def ends_of(hashes: list[int]) -> dict[str, int]:
    """Count, lowest and highest of the hashes of a destination's kept documents."""
    return {"count": len(hashes), "lowest": min(hashes, default=0), "highest": max(hashes, default=0)}


def joined_ends(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The ends of all hashes, given those of disjoint parts."""
    found = [part for part in parts if part["count"]]
    extremes = ends_of([part[end] for part in found for end in ("lowest", "highest")])
    return {**extremes, "count": sum(part["count"] for part in found)}


def split_of(value: int, ends: Mapping[str, int], share: float) -> str:
    """The split of a kept document with split hash `value`; `ends` are those of its destination."""
    if ends["count"] >= 2 and share > 0 and value == ends["lowest"]:
        return "validation"
    return "validation" if value < share * _HASH_RANGE and value != ends["highest"] else "train"
