"""Merges equal an independent trainer's; ids equal sentencepiece's; what cannot be trained is refused."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenizer import oracle
from tests.tokenizer.conftest import ENGLISH, KOREAN, RESERVED, VOCAB_SIZE, decided, trained, write_documents
from tests.tokenizer.tables import counter_of, cut, map_bytes, table_of
from tokenizer.encoder import Encoder
from tokenizer.engine import bpe_trainer as merges
from tokenizer.formats import merges_of, special_tokens
from tokenizer.patterns import CODE_POINT_OF_BYTE, PATTERNS
from tokenizer.training import learn
from tokenizer.training.learn import learn_words
from twofold.artifacts import Artifact, StageSpec, ensure
from twofold.errors import UserError
from twofold.special_ids import EOS_ID, SPECIAL_TOKENS, UNK_ID

FIRST_BYTE = len(SPECIAL_TOKENS) + RESERVED
MERGES = VOCAB_SIZE - FIRST_BYTE - 256


def words_of(pattern: str) -> Counter[str]:
    return counter_of((KOREAN + ENGLISH) * 3, pattern)


def real_texts(corpus_dir: Path, characters: int) -> list[str]:
    texts = []
    for folder in ("general/ko-text/kowiki", "general/en-text/enwiki"):
        with min((corpus_dir / folder).glob("*.zst")).open("rb") as stream:
            texts.append(io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(stream), "utf-8").read(characters))
    return texts


def learnt(tokenizer: Artifact) -> list[str]:
    """Merged pieces in the order of their ids, from tokenizer.json."""
    vocabulary = json.loads((tokenizer.path / "tokenizer.json").read_text())["model"]["vocab"]
    return sorted(vocabulary, key=vocabulary.__getitem__)[FIRST_BYTE + 256 :]


@pytest.mark.parametrize("pattern", ["exaone3", "exaone3-code", "plain"])
def test_merges_equal_the_oracle(documents: Artifact, tmp_path: Path, pattern: str) -> None:
    made = trained(tmp_path, documents, f"tokenizer.pattern={pattern}")
    assert learnt(made) == oracle.learn(words_of(pattern), MERGES)
    merges = json.loads((made.path / "tokenizer.json").read_text())["model"]["merges"]
    assert [left + right for left, right in merges] == learnt(made)


@settings(max_examples=60)
@given(
    words=st.dictionaries(st.text("abcd", min_size=1, max_size=9), st.integers(1, 9), min_size=1, max_size=20),
    short_by=st.integers(-30, 5),
)
def test_merges_and_their_limit_equal_the_oracle_on_any_words(
    tmp_path_factory: pytest.TempPathFactory, words: dict[str, int], short_by: int
) -> None:
    """Few letters: many ties and runs. Asked for more than the words support, exactly those are given."""
    table = table_of(tmp_path_factory.getbasetemp() / "table.arrow", words)
    all_merges = oracle.learn(words, 10_000)
    asked = max(0, len(all_merges) - short_by)
    assert learn_words(table, asked) == all_merges[:asked]


@settings(max_examples=30)
@given(words=st.dictionaries(st.text("abc ", min_size=1, max_size=90), st.integers(1, 3), min_size=1, max_size=4))
def test_long_words_and_pieces_equal_the_oracle(
    tmp_path_factory: pytest.TempPathFactory, words: dict[str, int]
) -> None:
    mapped = {map_bytes(word): count for word, count in words.items()}
    table = table_of(tmp_path_factory.getbasetemp() / "table.arrow", mapped)
    assert learn_words(table, 10_000) == oracle.learn(mapped, 10_000)


def test_room_is_found_for_many_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merges, "_FIRST_PAIRS", 1)
    words = words_of("exaone3-code")
    assert learn_words(table_of(tmp_path / "table.arrow", words), 200) == oracle.learn(words, 200)


def test_words_beyond_what_places_can_count_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "MOST_PLACES", 5)
    with pytest.raises(UserError, match=r"tokenizer\.max_words: leaves words of more than 5 bytes together"):
        learn_words(table_of(tmp_path / "table.arrow", {"abc": 1, "def": 2}), 10)


def by_sentencepiece(words: dict[str, int], merges: int) -> list[str]:
    """The same merges by another engine, with every rule of its own switched off."""
    model = io.BytesIO()
    rows = [*words.items(), *((letter, 1 + sum(words.values()) // 1000) for letter in CODE_POINT_OF_BYTE)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(f"{word}\t{count}" for word, count in rows),
        input_format="tsv",
        model_writer=model,
        model_type="bpe",
        num_threads=2,
        minloglevel=2,
        vocab_size=257 + merges,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_by_whitespace=False,
        split_by_unicode_script=False,
        split_by_number=False,
        split_digits=False,
        allow_whitespace_only_pieces=True,
        character_coverage=1.0,
        byte_fallback=False,
        max_sentence_length=1 << 20,
        max_sentencepiece_length=64,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(number) for number in range(1, processor.get_piece_size())]
    return [piece for piece in pieces if len(piece) > 1]


def test_merges_equal_sentencepieces(tmp_path: Path) -> None:
    words = words_of("exaone3-code")
    assert learn_words(table_of(tmp_path / "table.arrow", words), 300) == by_sentencepiece(words, 300)


@pytest.mark.corpus
def test_merges_equal_sentencepieces_on_real_text(corpus_dir: Path, tmp_path: Path) -> None:
    words = counter_of(real_texts(corpus_dir, 1_500_000), "exaone3-code")
    assert learn_words(table_of(tmp_path / "table.arrow", words), 20_000) == by_sentencepiece(words, 20_000)


def test_words_longer_than_a_piece_are_no_endless_supply(tmp_path: Path) -> None:
    words = {"x" * 200: 3, "y" * 65: 2}
    table = table_of(tmp_path / "table.arrow", words)
    assert learn_words(table, 500) == oracle.learn(words, 500)


def test_ids_equal_sentencepiece(tokenizer: Artifact) -> None:
    """The model that the merges came from, cut by the same pattern, gives the same pieces."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.path / "pieces.model"))
    encoder = Encoder(tokenizer.path)
    assert (model.get_piece_size(), model.unk_id()) == (VOCAB_SIZE, UNK_ID)
    for text in [*KOREAN, *ENGLISH, "낯선 낱말 unseen wwwwwwwww 가가가가", "\x00\x7f\x85", "<|eos|>"]:
        words = [map_bytes(word) for word in cut(PATTERNS["exaone3-code"], text)]
        assert encoder.encode([text])[0] == [number for word in words for number in model.encode(word)]


def test_ids_are_specials_then_bytes_then_merges(tokenizer: Artifact) -> None:
    sizes = np.load(tokenizer.path / "token_bytes.npy")
    assert (sizes.shape, sizes.dtype) == ((VOCAB_SIZE,), np.uint16)
    assert not sizes[:FIRST_BYTE].any()
    assert (sizes[FIRST_BYTE : FIRST_BYTE + 256] == 1).all()
    assert sizes[FIRST_BYTE + 256 :].tolist() == [len(piece) for piece in learnt(tokenizer)]
    assert Encoder(tokenizer.path).vocab_size == VOCAB_SIZE
    assert special_tokens(2) == ["<|pad|>", "<|unused|>", "<|eos|>", "<|unk|>", "<|reserved_0|>", "<|reserved_1|>"]
    assert special_tokens(0)[EOS_ID] == "<|eos|>"


def test_a_merge_is_the_pair_that_earlier_ranks_leave() -> None:
    assert merges_of(["ab", "cd", "abcd"]) == [("a", "b"), ("c", "d"), ("ab", "cd")]


def test_the_tokenizer_does_not_depend_on_how_documents_are_cut(tmp_path: Path) -> None:
    one = trained(tmp_path / "1", decided(tmp_path / "1", files=1))
    three = trained(tmp_path / "3, with a comma", decided(tmp_path / "3", files=3))
    for name in ("tokenizer.json", "pieces.model", "token_bytes.npy"):
        assert (one.path / name).read_bytes() == (three.path / name).read_bytes(), name


def test_nothing_of_the_machine_is_in_the_model(tokenizer: Artifact) -> None:
    assert b"/" + tokenizer.path.parts[1].encode() not in (tokenizer.path / "pieces.model").read_bytes()


def test_counts_tell_size_sample_and_compression(tokenizer: Artifact) -> None:
    counts = tokenizer.counts
    words = words_of("exaone3-code")
    assert (counts["vocab_size"], counts["merges"]) == (VOCAB_SIZE, MERGES)
    assert (counts["distinct_words"], counts["words"]) == (len(words), sum(words.values()))
    assert counts["sampled_bytes"]["ko-text"] == sum(len(text.encode()) for text in KOREAN * 3)
    tokens = sum(map(len, Encoder(tokenizer.path).encode(KOREAN[:2])))
    assert counts["held_out"]["ko"] == {
        "tokens_per_word": tokens / len(" ".join(KOREAN[:2]).split()),
        "bytes_per_token": sum(len(text.encode()) for text in KOREAN[:2]) / tokens,
    }
    assert list(counts["held_out"]) == ["en", "ko"]
    assert (counts["superwords"], counts["unused_ids"]) == (0, 0)
    assert (counts["pruned_words"], counts["pruned_share"]) == (0, 0.0)


def test_a_vocabulary_that_the_documents_do_not_support_is_refused(documents: Artifact, tmp_path: Path) -> None:
    supported = len(oracle.learn(words_of("exaone3-code"), 100_000))
    largest = FIRST_BYTE + 256 + supported
    with pytest.raises(UserError) as refusal:
        trained(tmp_path, documents, "tokenizer.vocab_size=4000")
    assert str(refusal.value) == (
        f"tokenizer.vocab_size = 4000: asks for 3,736 merges, and the sampled documents support {supported:,}. "
        f"Hint: use tokenizer.vocab_size={largest} at most, add documents, or set tokenizer.allow_smaller=true."
    )
    assert trained(tmp_path, documents, f"tokenizer.vocab_size={largest}").counts["merges"] == supported


def test_a_smaller_one_keeps_the_size_with_reserved_slots(documents: Artifact, tmp_path: Path) -> None:
    words = words_of("exaone3-code")
    made = trained(tmp_path, documents, "tokenizer.vocab_size=4000", "tokenizer.allow_smaller=true")
    pieces = oracle.learn(words, 100_000)
    unused = 4000 - FIRST_BYTE - 256 - len(pieces)
    assert (made.counts["merges"], made.counts["unused_ids"]) == (len(pieces), unused)
    assert Encoder(made.path).vocab_size == 4000
    vocabulary = json.loads((made.path / "tokenizer.json").read_text())["model"]["vocab"]
    assert sorted(vocabulary, key=vocabulary.__getitem__) == [
        *special_tokens(RESERVED + unused),
        *CODE_POINT_OF_BYTE,
        *pieces,
    ]


def test_one_word_again_and_again_is_learnt_and_no_more(tmp_path: Path) -> None:
    def build(out: Path, work: Path) -> dict[str, int]:
        write_documents(out, "train", "ko-text", ["바람 바람 바람"] * 9, "ko")
        return {}

    kept = ensure(tmp_path, StageSpec("write", 1, {}, {}), build)
    made = trained(tmp_path, kept, "tokenizer.allow_smaller=true")
    assert made.counts["merges"] == 6 == len(oracle.learn({map_bytes("바람"): 9, map_bytes(" 바람"): 18}, 100))
    assert len(Encoder(made.path).encode(["바람 바람"])[0]) == 2


def test_weights_budget_and_sample_are_reported(documents: Artifact, tmp_path: Path) -> None:
    made = trained(
        tmp_path,
        documents,
        "tokenizer.weights={ko-text: 0.9, en-text: 0.1}",
        "tokenizer.max_words=60",
        "tokenizer.allow_smaller=true",
    )
    words = words_of("exaone3-code")
    assert made.counts["pruned_words"] == len(words) - 60
    assert 0 < made.counts["pruned_share"] < 1
    assert made.counts["words"] > 2**20
    assert set(made.counts["sampled_bytes"]) == {"ko-text", "en-text"}


@pytest.mark.parametrize("texts", [None, [], [""], ["1 2 3"]])
def test_nothing_to_learn_from_is_refused(tmp_path: Path, texts: list[str] | None) -> None:
    def build(out: Path, work: Path) -> dict[str, int]:
        if texts is not None:
            write_documents(out, "train", "ko-text", texts, "ko")
        return {}

    with pytest.raises(UserError, match="no kept training text to learn from"):
        trained(tmp_path, ensure(tmp_path, StageSpec("write", 1, {}, {}), build))


@pytest.mark.corpus
def test_merges_equal_the_oracle_on_real_text(corpus_dir: Path, tmp_path: Path) -> None:
    """The first pages of kowiki and enwiki, 200 merges."""
    words = counter_of(real_texts(corpus_dir, 12_000), "exaone3-code")
    table = table_of(tmp_path / "table.arrow", words)
    assert learn_words(table, 200) == oracle.learn(words, 200)
