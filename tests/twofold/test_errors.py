"""One line a problem, whatever the value."""

from __future__ import annotations

from twofold.errors import user_error


def test_a_long_value_keeps_its_two_ends() -> None:
    path = "/data/" + "very-long-folder/" * 20 + "shard-00017.ds"
    (line,) = str(user_error("shards", path, "is cut", "make it again")).splitlines()
    assert "'/data/very-long" in line
    assert "shard-00017.ds'" in line
    assert len(line) < 160


def test_a_value_with_line_ends_stays_one_line() -> None:
    assert len(str(user_error("x", "a\nb", "is odd", "fix it")).splitlines()) == 1
