"""Quantities: exact, and the wrong unit refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from configs.units import format_bytes, format_count, parse_bytes, parse_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("6T", 6 * 10**12),
        ("4.2M", 4_200_000),
        ("200K", 200_000),
        ("200k", 200_000),
        ("2B", 2 * 10**9),
        (512, 512),
        ("1_000", 1000),
    ],
)
def test_tokens(text: str | int, tokens: int) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize(("text", "size"), [("30MB", 30_000_000), ("8MiB", 8 * 2**20), ("1TB", 10**12), ("7B", 7)])
def test_bytes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["30MB", "1GiB", "6 tokens", "-3", "1.5", "nan", "", True, None, 1.5, "99999999T"])
def test_what_is_no_number_of_tokens_is_refused_with_a_hint(text: object) -> None:
    with pytest.raises(PydanticCustomError) as refused:
        parse_tokens(text)
    assert refused.value.context is not None
    assert "write 6T" in refused.value.context["hint"]


def test_a_token_unit_is_no_unit_of_bytes() -> None:
    with pytest.raises(PydanticCustomError, match="unit of tokens, not of bytes"):
        parse_bytes("30M")


@given(st.integers(1, 9_000_000))
def test_no_rounding_at_the_top_of_the_range(millions: int) -> None:
    assert parse_tokens(f"{millions}.000001T") == millions * 10**12 + 10**6


def test_counts_and_sizes_as_people_read_them() -> None:
    assert (format_count(6e12), format_count(4_190_000), format_count(512)) == ("6.00T", "4.19M", "512")
    assert (format_bytes(30_000_000), format_bytes(12)) == ("30.0 MB", "12 B")
