"""Merges equal an independent trainer's; ids equal sentencepiece's; every string survives the round trip."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import regex
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from configs.errors import UserError
from configs.manifest import Artifact
from tests.conftest import InProcessRunner
from tests.tokenizer.conftest import ENGLISH, KOREAN, RESERVED, VOCAB_SIZE, decided, small_recipe, trained
from tokenizer.convert import EOS_ID, SPECIALS, merges_of, special_tokens
from tokenizer.counts import count_words, read_words
from tokenizer.encode import Encoder
from tokenizer.patterns import PATTERNS, byte_to_code_point, map_bytes, unmap_bytes

FIRST_BYTE = len(SPECIALS) + RESERVED


def oracle(words: dict[str, int], merges: int) -> list[str]:
    """Greedy BPE, the slow and obvious way: count all pairs, merge the most frequent, again.

    Ties go to the shorter piece, then to code point order, as in sentencepiece.
    """
    split = {word: list(word) for word in words}
    pieces = []
    for _ in range(merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], len(pair[0] + pair[1]), pair[0] + pair[1]))
        pieces.append(best[0] + best[1])
        for word, parts in split.items():
            split[word] = _merge(parts, best)
    return pieces


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def _words(pattern: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for text in (KOREAN + ENGLISH) * 3:
        counts.update(map_bytes(word) for word in regex.findall(PATTERNS[pattern], text))
    return counts


def _learnt(tokenizer: Artifact) -> list[str]:
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.path / "tokenizer.model"))
    return [piece for n in range(1, model.get_piece_size()) if len(piece := model.id_to_piece(n)) > 1]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_merges_equal_the_oracle(documents: Artifact, tmp_path: Path, pattern: str) -> None:
    made = trained(tmp_path, documents, f"tokenizer.pattern={pattern}")
    assert _learnt(made) == oracle(_words(pattern), VOCAB_SIZE - FIRST_BYTE - 256)


def test_ids_equal_sentencepiece(tokenizer: Artifact) -> None:
    """The model that the merges came from, cut by the same pattern, gives the same pieces."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.path / "tokenizer.model"))
    encoder = Encoder(tokenizer.path)
    order = {piece: FIRST_BYTE + n for n, piece in enumerate([*byte_to_code_point(), *_learnt(tokenizer)])}
    for text in KOREAN + ENGLISH:
        words = [map_bytes(word) for word in regex.findall(PATTERNS["exaone3-code"], text)]
        pieces = [piece for word in words for piece in model.encode(word, out_type=str)]
        assert encoder.encode([text])[0] == [order[piece] for piece in pieces]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_string_survives_the_round_trip(tokenizer: Artifact, text: str) -> None:
    encoder = Encoder(tokenizer.path)
    ids = encoder.encode([text])[0]
    assert encoder.decode(ids) == text
    sizes = np.load(tokenizer.path / "token_bytes.npy")
    assert sum(int(sizes[i]) for i in ids) == len(text.encode("utf-8"))


@pytest.mark.parametrize(
    "text",
    ["각 각", "ㅋㅋㅋ", "👩‍👩‍👧‍👦", "\x00\x01\x1c\x1f", "\u2028\u2029 \x85", "a\r\n\r\n\tb   1 2", "\ufeff", "\U0010ffff"],
)
def test_hard_strings_survive_too(tokenizer: Artifact, text: str) -> None:
    encoder = Encoder(tokenizer.path)
    assert encoder.decode(encoder.encode([text])[0]) == text


def test_special_strings_in_text_stay_text(tokenizer: Artifact) -> None:
    encoder = Encoder(tokenizer.path)
    text = "the end <|eos|> of <|reserved_0|>"
    ids = encoder.encode([text])[0]
    assert min(ids) >= FIRST_BYTE
    assert encoder.decode(ids) == text


def test_a_lone_surrogate_is_refused(tokenizer: Artifact) -> None:
    with pytest.raises(UserError, match="lone surrogate at 1"):
        Encoder(tokenizer.path).encode(["a\ud800"])


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no tokenizer"):
        Encoder(tmp_path)


def test_it_opens_in_transformers_with_its_specials(tokenizer: Artifact) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tokenizer.path)
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, EOS_ID, 3)
    assert len(theirs) == VOCAB_SIZE
    for text in KOREAN + ENGLISH:
        assert theirs(text)["input_ids"] == Encoder(tokenizer.path).encode([text])[0]
        assert theirs.decode(theirs(text)["input_ids"]) == text


def test_ids_are_specials_then_bytes_then_merges(tokenizer: Artifact) -> None:
    sizes = np.load(tokenizer.path / "token_bytes.npy")
    assert sizes.shape == (VOCAB_SIZE,)
    assert not sizes[:FIRST_BYTE].any()
    assert (sizes[FIRST_BYTE : FIRST_BYTE + 256] == 1).all()
    assert (sizes[FIRST_BYTE + 256 :] > 1).all()
    assert Encoder(tokenizer.path).vocab_size == VOCAB_SIZE
    assert special_tokens(2)[:6] == ["<|pad|>", "<|bos|>", "<|eos|>", "<|unk|>", "<|reserved_0|>", "<|reserved_1|>"]


def test_the_tokenizer_does_not_depend_on_how_documents_are_cut(tmp_path: Path) -> None:
    one = trained(tmp_path / "1", decided(tmp_path / "1", files=1))
    three = trained(tmp_path / "3", decided(tmp_path / "3", files=3))
    for name in ("tokenizer.json", "tokenizer.model", "token_bytes.npy"):
        assert (one.path / name).read_bytes() == (three.path / name).read_bytes(), name


def test_a_vocabulary_that_the_documents_do_not_support_is_refused(documents: Artifact, tmp_path: Path) -> None:
    supported = len(oracle(_words("exaone3-code"), 100_000))
    with pytest.raises(UserError, match=f"asks for 3,736 merges, and the kept documents support {supported}"):
        trained(tmp_path, documents, "tokenizer.vocab_size=4000")


def test_no_documents_are_refused(tmp_path: Path) -> None:
    from configs.manifest import StageSpec, ensure

    empty = ensure(tmp_path, StageSpec("decide", 1, {}, {}), lambda out, work: {})
    with pytest.raises(UserError, match="no kept training document"):
        trained(tmp_path, empty)


def test_the_sample_is_bounded_by_source(documents: Artifact, tmp_path: Path) -> None:
    counted = count_words(documents.path, "exaone3", 300, tmp_path, InProcessRunner())
    assert counted.sampled_bytes == {"en-text": 300, "ko-text": 300}
    whole = count_words(documents.path, "exaone3", 10**9, tmp_path / "whole", InProcessRunner())
    assert whole.sampled_bytes["ko-text"] == sum(len(text.encode()) for text in KOREAN * 3)
    assert sum(count for _, count in read_words(whole.path)) > sum(count for _, count in read_words(counted.path))


def test_words_are_counted_exactly_and_cut_at_256_bytes(tmp_path: Path) -> None:
    from tests.tokenizer.conftest import write_documents

    write_documents(tmp_path, "train", "noise", ["ha " * 3, "가" * 100 + "\n" + "가" * 100], "ko")
    counted = count_words(tmp_path, "exaone3", 10**9, tmp_path / "work", InProcessRunner())
    words = dict(read_words(counted.path))
    assert words == {"ha": 1, " ha": 2, " ": 1, "\n": 1, "가" * 85: 2, "가" * 15: 2}
    assert list(words) == sorted(words)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cn"])))
def test_both_regex_engines_cut_alike_and_lose_nothing(pattern: str, text: str) -> None:
    ours = regex.findall(PATTERNS[pattern], text)
    theirs = pre_tokenizers.Split(Regex(PATTERNS[pattern]), behavior="isolated").pre_tokenize_str(text)
    assert "".join(ours) == text
    assert ours == [word for word, _ in theirs]


def test_digits_stand_alone_and_contractions_do_not_split_words() -> None:
    assert regex.findall(PATTERNS["exaone3"], "in 2026, don't") == ["in", " ", "2", "0", "2", "6", ",", " don", "'t"]
    assert regex.findall(PATTERNS["exaone3-code"], "    x.append(1)\n\n") == ["   ", " x", ".append", "(", "1", ")\n\n"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_as_code_points_and_back(text: str) -> None:
    assert unmap_bytes(map_bytes(text)) == text.encode("utf-8")


def test_a_merge_is_the_pair_that_earlier_ranks_leave() -> None:
    assert merges_of(["ab", "cd", "abcd"]) == [("a", "b"), ("c", "d"), ("ab", "cd")]
    assert small_recipe().tokenizer.vocab_size == VOCAB_SIZE
