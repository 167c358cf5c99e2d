"""Building blocks of a recipe's sections: strict base class, numbers with ranges, names.

Contract: nothing is coerced except what YAML cannot write (1 for 1.0, a list for a tuple).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def as_tuple(value: Any) -> Any:
    # YAML has lists only; strict mode would refuse one where a tuple is meant.
    return tuple(value) if isinstance(value, list) else value


def _real(value: Any) -> Any:
    # YAML writes 1 where 1.0 is meant; strict mode would refuse the integer.
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Real = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_real)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_real)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_real)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(_real)]
Count = Annotated[int, Field(gt=0, lt=2**63)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**63)]
Strings = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]


class Section(BaseModel):
    """Base of every section: unknown keys refused, no coercion, immutable; a field's docstring is its description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, use_attribute_docstrings=True
    )
