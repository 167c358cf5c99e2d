"""Quantities with units, parsed exactly (no float rounding) into 64-bit integers.

    Tokens   6T, 4.2M, 200K or a plain integer; K (or k), M, B, T are powers of 1,000
    Bytes    30MB, 8MiB, 1TB or a plain integer

Each refuses the other's notation ("30MB" tokens, "6T" bytes), since a budget in the wrong unit
costs a cluster a month.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

_INT64_MAX = 2**63 - 1
_TOKEN_SCALE = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_BYTE_SCALE = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
}
_QUANTITY = re.compile(r"^\s*(\d+(?:_\d+)*(?:\.\d+)?)\s*([A-Za-z]*)\s*$")


def invalid(problem: str, hint: str) -> PydanticCustomError:
    """A validator's error that carries its hint; `recipe.py` turns it into a `UserError`."""
    return PydanticCustomError("twofold", "{problem}", {"problem": problem, "hint": hint})


def parse_tokens(value: Any) -> int:
    """`"6T"` -> 6_000_000_000_000."""
    return _parse(value, _TOKEN_SCALE, "tokens", "6T, 4.2M, 200K or a plain integer")


def parse_bytes(value: Any) -> int:
    """`"30MB"` -> 30_000_000."""
    return _parse(value, _BYTE_SCALE, "bytes", "30MB, 8MiB or a plain integer")


def format_count(count: int | float) -> str:
    """A count as people read it: 6.00T, 4.19M, 512."""
    for suffix, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= scale:
            return f"{count / scale:.2f}{suffix}"
    return f"{count:.0f}"


def format_bytes(count: int | float) -> str:
    """A size as people read it: 30.0 MB."""
    for suffix, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {suffix}"
    return f"{count:.0f} B"


def _parse(value: Any, scales: dict[str, int], unit: str, examples: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise invalid(f"is not a number of {unit}", f"write {examples}")
    match = _QUANTITY.match(str(value))
    if match is None:
        raise invalid(f"is not a number of {unit}", f"write {examples}")
    digits, suffix = match.groups()
    if suffix not in scales:
        other = _BYTE_SCALE if scales is _TOKEN_SCALE else _TOKEN_SCALE
        mixed_up = f"has a unit of {'bytes' if other is _BYTE_SCALE else 'tokens'}, not of {unit}"
        problem = mixed_up if suffix in other else f"has the unknown unit {suffix!r}"
        raise invalid(problem, f"this field counts {unit}: write {examples}")
    quantity = Decimal(digits.replace("_", "")) * scales[suffix]
    if quantity != quantity.to_integral_value() or quantity > _INT64_MAX:
        raise invalid(f"is not a whole 64-bit number of {unit}", f"write {examples}")
    return int(quantity)


def _json_schema(unit: str) -> WithJsonSchema:
    """A quantity in the recipe's JSON schema: an integer, or a number with a suffix."""
    return WithJsonSchema({"type": ["integer", "string"], "x-unit": unit})


Tokens = Annotated[int, BeforeValidator(parse_tokens), Field(gt=0), _json_schema("tokens")]
TokensOrZero = Annotated[int, BeforeValidator(parse_tokens), Field(ge=0), _json_schema("tokens")]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0), _json_schema("bytes")]
