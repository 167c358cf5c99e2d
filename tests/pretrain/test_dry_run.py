"""The dry run's tournament of links."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from pretrain.profiling.dry_run import rounds


@given(st.lists(st.integers(0, 5000), unique=True, max_size=40))
def test_everyone_meets_everyone_once_and_nobody_plays_twice_in_a_round(players: list[int]) -> None:
    found = rounds(players)
    games = [game for games in found for game in games]
    assert sorted(games) == sorted((min(pair), max(pair)) for pair in combinations(players, 2))
    for games in found:
        assert len({player for game in games for player in game}) == 2 * len(games)


@given(st.integers(2, 300))
def test_there_are_as_few_rounds_as_can_be(players: int) -> None:
    assert len(rounds(range(players))) == players - 1 + players % 2
