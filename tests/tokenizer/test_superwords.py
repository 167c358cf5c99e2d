"""Superwords are learnt and encoded alike: greedy merges over stretches of words, after those within words."""

from __future__ import annotations

import json
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import Tokenizer
from tests.tokenizer import oracle
from tests.tokenizer.conftest import ENGLISH, KOREAN, RESERVED, small_recipe, trained
from tests.tokenizer.tables import counter_of, cut, map_bytes
from tests.tokenizer.test_word_counts import DENSE_TEXT
from tokenizer.encoder import Encoder
from tokenizer.patterns import CODE_POINT_OF_BYTE, PATTERNS
from tokenizer.training.count_words import stretch_limit
from twofold.artifacts import Artifact
from twofold.errors import UserError
from twofold.special_ids import SPECIAL_TOKENS

FIRST_BYTE = len(SPECIAL_TOKENS) + RESERVED
VOCAB_SIZE = 700
MERGES = VOCAB_SIZE - FIRST_BYTE - 256
ACROSS = round(0.3 * MERGES)
OVERRIDES = (f"tokenizer.vocab_size={VOCAB_SIZE}", "tokenizer.superwords=0.3")
UNSEEN = [
    *KOREAN,
    *ENGLISH,
    "the people of the village, and the cat's books; don't the 12 boats",
    "낯선 낱말, 배를 살폈다",
]


@pytest.fixture(scope="module")
def tokenizer(documents: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return trained(tmp_path_factory.mktemp("superwords"), documents, *OVERRIDES)


def learnt(tokenizer: Artifact) -> list[str]:
    vocabulary = json.loads((tokenizer.path / "tokenizer.json").read_text())["model"]["vocab"]
    return sorted(vocabulary, key=vocabulary.__getitem__)[FIRST_BYTE + 256 :]


def encode(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding, the slow and obvious way."""
    parts = list(word)
    while True:
        known = [pair for pair in pairwise(parts) if pair in ranks]
        if not known:
            return parts
        parts = oracle.merge(parts, min(known, key=ranks.__getitem__))


def ranks_of(tokenizer: Artifact) -> dict[tuple[str, str], int]:
    merges = json.loads((tokenizer.path / "tokenizer.json").read_text())["model"]["merges"]
    return {(left, right): rank for rank, (left, right) in enumerate(merges)}


def test_both_stages_equal_the_oracle(tokenizer: Artifact) -> None:
    texts = (KOREAN + ENGLISH) * 3
    first = oracle.learn(counter_of(texts, "exaone3-code"), MERGES - ACROSS)
    first_ranks = {pair: rank for pair, rank in ranks_of(tokenizer).items() if rank < len(first)}
    stretches = counter_of(texts, "superwords")
    expected = oracle.learn(stretches, MERGES - len(first), lambda stretch: encode(stretch, first_ranks))
    assert learnt(tokenizer) == [*first, *expected]
    assert tokenizer.counts["superwords"] == len(expected) == MERGES - len(first)
    assert any("Ġ" in piece[1:] for piece in expected)


def test_ids_are_those_of_all_merges_in_order_of_rank(tokenizer: Artifact) -> None:
    ranks, order = ranks_of(tokenizer), {piece: FIRST_BYTE + 256 + n for n, piece in enumerate(learnt(tokenizer))}
    order |= {letter: FIRST_BYTE + n for n, letter in enumerate(CODE_POINT_OF_BYTE)}
    encoder = Encoder(tokenizer.path)
    for text in UNSEEN:
        stretches = [map_bytes(stretch) for stretch in cut(PATTERNS["superwords"], text)]
        assert encoder.encode([text])[0] == [order[part] for stretch in stretches for part in encode(stretch, ranks)]
        assert encoder.decode(encoder.encode([text])[0]) == text


def test_the_sentencepiece_model_has_both_stages(tokenizer: Artifact) -> None:
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.path / "pieces.model"))
    pieces = [model.id_to_piece(number) for number in range(FIRST_BYTE, model.get_piece_size())]
    assert pieces == [*CODE_POINT_OF_BYTE, *learnt(tokenizer)]
    ranks = ranks_of(tokenizer)
    for text in UNSEEN:
        for stretch in cut(PATTERNS["superwords"], text):
            assert model.encode(map_bytes(stretch), out_type=str) == encode(map_bytes(stretch), ranks)


@given(DENSE_TEXT | st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40))
def test_every_border_of_a_stretch_is_one_of_words(text: str) -> None:
    def ends(pattern: str) -> set[int]:
        return set(accumulate(map(len, cut(PATTERNS[pattern], text))))

    assert ends("superwords") <= ends("exaone3-code")


def test_superwords_beyond_what_stretches_support_are_refused_or_left_unused(
    documents: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="the sampled documents support"):
        trained(tmp_path, documents, "tokenizer.vocab_size=9000", "tokenizer.superwords=0.9")
    made = trained(
        tmp_path, documents, "tokenizer.vocab_size=9000", "tokenizer.superwords=0.9", "tokenizer.allow_smaller=true"
    )
    assert made.counts["unused_ids"] == 9000 - FIRST_BYTE - 256 - len(ranks_of(made))


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=8), st.integers(1, 300))
def test_stretches_are_sampled_as_far_as_their_budget_goes(sizes: list[int], max_words: int) -> None:
    """Sources give equally much, but for those that have less; all of it where all of it fits."""
    wish = Tokenizer(max_words=max_words)
    limit = stretch_limit(wish, {str(number): size for number, size in enumerate(sizes)})
    budget = 64 * max_words
    if sum(sizes) <= budget:
        assert limit == wish.sample_bytes_per_source
    else:
        assert sum(min(size, limit) for size in sizes) <= max(budget, len(sizes))
        assert sum(min(size, limit + 1) for size in sizes) > budget


@pytest.mark.parametrize(
    ("said", "share"),
    [
        ({}, 0.1),
        ({"pattern": "exaone3-code"}, 0.1),
        ({"morphemes": "none"}, 0.1),
        ({"superwords": 0}, 0),
        ({"pattern": "plain"}, 0),
        ({"pattern": "exaone3", "morphemes": "mecab"}, 0),
        ({"morphemes": "mecab"}, 0),
    ],
)
def test_the_default_profile_has_superwords_and_no_other(said: dict[str, Any], share: float) -> None:
    assert Tokenizer(**said).superwords == share


@pytest.mark.parametrize(
    ("other", "says"),
    [("tokenizer.pattern=plain", r"with the pattern plain"), ("tokenizer.morphemes=mecab", r"with morphemes mecab")],
)
def test_superwords_go_with_their_pattern_only(other: str, says: str) -> None:
    with pytest.raises(UserError, match=rf"has superwords 0\.1 {says}"):
        small_recipe("tokenizer.superwords=0.1", other)
