"""Near duplicates against exact Jaccard similarity: families and chains stay, near copies go."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.stages import near_pairs

SIZES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(1, 3)), max_size=20)


@given(SIZES)
def test_of_small_groups_every_pair_of_different_texts_is_compared(found: list[tuple[int, int, int]]) -> None:
    keys, copies, sizes = (np.array([row[n] for row in found], np.int64) for n in range(3))
    hashes = np.stack([copies, copies], axis=1).astype(np.uint64)
    pairs = near_pairs.unique(np.sort(near_pairs.to_compare(keys.astype(np.uint64), hashes, sizes), axis=1))
    best: dict[tuple[int, int], int] = {}
    for place in sorted(range(len(found)), key=lambda place: (-sizes[place], place)):
        best.setdefault((keys[place], copies[place]), place)
    expected = [tuple(sorted(pair)) for pair in combinations(best.values(), 2) if keys[pair[0]] == keys[pair[1]]]
    assert pairs.tolist() == sorted(map(list, expected))


def test_of_large_groups_each_is_compared_with_the_longest_and_the_next() -> None:
    sizes = np.random.default_rng(1).permutation(100)
    keys = np.repeat(np.array([5, 6], np.uint64), [100, 64])
    sizes = np.concatenate([sizes, sizes[:64]])
    copies = np.arange(2 * len(keys), dtype=np.uint64).reshape(-1, 2)
    pairs = {tuple(pair) for pair in near_pairs.to_compare(keys, copies, sizes).tolist()}
    large, small = (sorted(np.flatnonzero(keys == key).tolist(), key=lambda place: -sizes[place]) for key in (5, 6))
    expected = {pair for pair in combinations(range(100), 2) if pair[0] < 32 or pair[1] - pair[0] <= 8}
    assert pairs == {(large[one], large[other]) for one, other in expected} | set(combinations(small, 2))


def test_large_groups_are_compared_with_the_longest_in_linear_numbers() -> None:
    count = 5_000
    keys, sizes = np.zeros(count, np.uint64), np.random.default_rng(0).permutation(count)
    copies = np.arange(2 * count, dtype=np.uint64).reshape(-1, 2)
    pairs = near_pairs.to_compare(keys, copies, sizes)
    longest = int(np.argmax(sizes))
    assert len(pairs) == len(near_pairs.unique(np.sort(pairs, axis=1))) < 41 * count
    assert np.count_nonzero((pairs == longest).any(axis=1)) == count - 1


def jaccard(one: str, other: str) -> float:
    first, second = (
        {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))} for words in (one.split(), other.split())
    )
    return len(first & second) / len(first | second)


def _family(count: int, shared: float, seed: int) -> list[str]:
    """Pages in one frame: a run of words of their own takes the place of part of it."""
    dice = random.Random(seed)
    frame = [f"틀{n}" for n in range(300)]
    own = round(300 * (1 - shared))
    return [" ".join([*frame[own:], *(f"말{dice.randrange(10**9)}" for _ in range(own))]) for _ in range(count)]


def _decide(texts: list[str], folder: Path, make_recipe, write_jsonl, run_chain, decisions_of) -> dict:
    records = [{"id": f"{number:04d}", "text": text} for number, text in enumerate(texts)]
    source = {"s": {"path": str(write_jsonl(folder / "in/s.jsonl", records))}}
    return decisions_of(run_chain(make_recipe(source), folder / "run"))


@pytest.fixture
def decide(tmp_path, make_recipe, write_jsonl, run_chain, decisions_of):
    return lambda texts: _decide(texts, tmp_path, make_recipe, write_jsonl, run_chain, decisions_of)


def test_pages_in_one_frame_stay(decide) -> None:
    decisions = decide(_family(120, 0.72, 1))
    assert {row["decision"] for row in decisions.values()} == {"kept"}


def test_of_a_chain_several_stay_and_each_drop_is_near_its_witness(decide) -> None:
    words = [f"낱말{n}" for n in random.Random(3).sample(range(10_000), 860)]
    texts = [" ".join(words[30 * n : 30 * n + 290]) for n in range(20)]
    decisions = decide(texts)
    text_of = {f"s/{number:04d}": text for number, text in enumerate(texts)}
    dropped = {name: row for name, row in decisions.items() if row["decision"] == "dropped"}
    assert 7 <= len(decisions) - len(dropped) < 20
    for name, row in dropped.items():
        assert decisions[row["duplicate_of"]]["decision"] == "kept"
        assert jaccard(text_of[name], text_of[row["duplicate_of"]]) >= 0.8
        assert row["duplicate_similarity"] == pytest.approx(
            jaccard(text_of[name], text_of[row["duplicate_of"]]), abs=0.05
        )


def test_planted_pairs_are_found_as_theory_says_and_none_below_the_threshold(decide) -> None:
    dice = random.Random(5)
    texts, similarities = [], []
    for _ in range(500):
        words = [f"말{dice.randrange(10**6)}" for _ in range(400)]
        edited = list(words)
        for place in dice.sample(range(400), dice.randrange(2, 15)):
            edited[place] = f"글{dice.randrange(10**6)}"
        texts += [" ".join(words), " ".join(edited)]
        similarities.append(jaccard(*texts[-2:]))
    decisions = decide(texts)
    dropped = [
        any(decisions[f"s/{2 * number + side:04d}"]["decision"] == "dropped" for side in (0, 1))
        for number in range(500)
    ]
    pairs = list(zip(similarities, dropped, strict=True))
    clear = [(s, drop) for s, drop in pairs if s >= 0.85]
    theory = np.mean([1 - (1 - s**8) ** 14 for s, _ in clear])
    assert np.mean([drop for _, drop in clear]) >= theory - 0.02
    found = [s for s, drop in pairs if drop]
    assert np.mean([s >= 0.8 for s in found]) >= 0.99
    assert min(found) > 0.77


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25))
def test_of_one_address_each_document_agrees_itself_with_the_one_that_stands_for_it(found) -> None:
    agreeing = sorted({(min(pair), max(pair)) for pair in found if pair[0] != pair[1]})  # the smaller is the longer
    chosen = near_pairs.same_pages(np.array(agreeing, np.int64).reshape(-1, 2)).tolist()
    stands: set[int] = set()
    expected = set()
    for document in sorted({number for pair in agreeing for number in pair}):
        if not any((longer, document) in agreeing for longer in stands):
            stands.add(document)
        else:
            expected.add(document)
    assert {shorter for _, shorter in chosen} == expected
    assert len(chosen) == len(expected)
    assert all((longer, shorter) in agreeing and longer in stands for longer, shorter in chosen)
