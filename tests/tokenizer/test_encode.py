"""Every string survives the round trip; special strings in text stay text; all engines give the same ids."""

from __future__ import annotations

import base64
import json
import shutil
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.tokenizer import oracle
from tests.tokenizer.conftest import ENGLISH, KOREAN, RESERVED, VOCAB_SIZE
from tests.tokenizer.tables import cut, map_bytes
from tokenizer.encoder import Encoder
from tokenizer.engine import Vocabulary, encode
from tokenizer.formats import read_tokenizer, write_tokenizer
from twofold.artifacts import Artifact
from twofold.errors import UserError
from twofold.special_ids import EOS_ID, PAD_ID, SPECIAL_TOKENS, UNK_ID

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)),
    st.text(st.characters(min_codepoint=0x1100, max_codepoint=0x11FF)),
    st.text(st.sampled_from("👩‍👩‍👧‍👦🇰🇷🏽️\x00\x01\x1c\x1f\x7f\x85\u2028\ufeff\U0010ffff \t\r\n")),
    st.text(st.characters(exclude_categories=["Cs"])).map(lambda text: unicodedata.normalize("NFD", text)),
)

HARD = [
    *KOREAN,
    *ENGLISH,
    "",
    "한",
    "각",
    "a\r\n\r\n\tb   1 2",
    "ㅋ" * 3000,
    " " * 3000,
    "가a" * 30_000,
    "<unk> <s> </s> <|eos|><|pad|>",
    "낯선 낱말 unseen " + "w" * 63 + " " + "w" * 64 + " " + "w" * 65,
]
Engine = Callable[[str], list[int]]


def record(folder: Path) -> Engine:
    """tokenizer.json in `tokenizers`."""
    engine = Tokenizer.from_file(str(folder / "tokenizer.json"))
    engine.encode_special_tokens = True
    return lambda text: list(engine.encode(text).ids)


def in_tiktoken(folder: Path) -> tiktoken.Encoding:
    lines = (line.split() for line in (folder / "tokenizer.tiktoken").read_bytes().splitlines())
    ranks = {base64.b64decode(piece): int(number) for piece, number in lines}
    return tiktoken.Encoding(mergeable_ranks=ranks, **json.loads((folder / "tiktoken.json").read_text()))


def in_sentencepiece(folder: Path) -> Engine:
    """Its model knows words as mapped bytes."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "pieces.model"))
    pattern = read_tokenizer(folder).pattern
    return lambda text: [number for word in cut(pattern, text) for number in model.encode(map_bytes(word))]


def slowly(folder: Path) -> Engine:
    """The definition: merges in order of rank, each wherever its pair stands, leftmost first."""
    told = read_tokenizer(folder)
    pieces = {piece: number for number, piece in enumerate(told.pieces) if number >= told.specials}
    merges = [(told.pieces[left], told.pieces[right]) for left, right, _ in told.merges.tolist()]

    def encode(text: str) -> list[int]:
        ids = []
        for word in cut(told.pattern, text):
            parts = [bytes([byte]) for byte in word.encode()]
            for pair in merges:
                parts = oracle.merge(parts, pair) if pair in pairwise(parts) else parts
            ids += [pieces[part] for part in parts]
        return ids

    return encode


@given(text=TEXT)
def test_all_engines_give_the_same_ids_on_any_text(tokenizer: Artifact, text: str) -> None:
    ids = Encoder(tokenizer.path).encode([text])[0]
    assert ids == record(tokenizer.path)(text)
    assert ids == in_tiktoken(tokenizer.path).encode_ordinary(text)
    assert ids == in_sentencepiece(tokenizer.path)(text) == slowly(tokenizer.path)(text)


@pytest.mark.parametrize("text", HARD, ids=lambda text: text[:9])
def test_all_engines_give_the_same_ids_on_hard_text(tokenizer: Artifact, text: str) -> None:
    ids = Encoder(tokenizer.path).encode([text])[0]
    assert ids == record(tokenizer.path)(text) == in_tiktoken(tokenizer.path).encode_ordinary(text)
    assert ids == in_sentencepiece(tokenizer.path)(text)
    assert in_tiktoken(tokenizer.path).decode(ids) == text


@settings(max_examples=40)
@given(
    learnt=st.dictionaries(st.text("abc", min_size=2, max_size=12), st.integers(1, 9), min_size=1, max_size=12),
    merges=st.integers(1, 60),
    words=st.lists(
        st.text("abc", min_size=1, max_size=40) | st.text("abc", min_size=60, max_size=200), min_size=1, max_size=20
    ),
)
def test_any_merges_give_the_record_s_ids_in_short_words_and_in_long_ones(
    tmp_path_factory: pytest.TempPathFactory, learnt: dict[str, int], merges: int, words: list[str]
) -> None:
    """Few letters: long runs, ties and overlapping pairs. A cache of two places: every word meets another's."""
    folder = tmp_path_factory.getbasetemp() / "any-merges"
    write_tokenizer(folder, oracle.learn(learnt, merges), 0, "exaone3")
    encoder, told = Encoder(folder), read_tokenizer(folder)
    encoder._vocabulary = Vocabulary.of(told.pattern, told.byte_ids, told.merges, cache_slots=2)
    text = " ".join([*words, *words])
    assert encoder.encode([text])[0] == record(folder)(text)


JOINED = st.lists(st.sampled_from(["a", "b", "가"]) | st.sampled_from([" ", ", ", "'"]), min_size=2, max_size=40)
WILD = st.lists(st.sampled_from(["a", "b", "가", " ", ",", "'", "\u0301", "$"]), min_size=2, max_size=40)
STRETCH = (JOINED | WILD).map("".join)


# A word by itself meets the late merge that the stretch's first joint forbids.
@example(learnt={"b a": 9, "ab": 3}, merges=3, texts=["ab", "ab a", "ab"])
@settings(max_examples=60)
@given(
    learnt=st.dictionaries(STRETCH, st.integers(1, 9), min_size=1, max_size=4),
    merges=st.integers(1, 20),
    texts=st.lists(STRETCH, max_size=12),
)
def test_merges_that_reach_over_joints_at_any_rank_give_the_record_s_ids(
    tmp_path_factory: pytest.TempPathFactory, learnt: dict[str, int], merges: int, texts: list[str]
) -> None:
    """From none of them (all is remembered) to the first one (all is late)."""
    folder = tmp_path_factory.getbasetemp() / "joints"
    pieces = oracle.learn({map_bytes(text): count for text, count in learnt.items()}, merges)
    write_tokenizer(folder, pieces, 0, "superwords")
    encoder, told = Encoder(folder), read_tokenizer(folder)
    encoder._vocabulary = Vocabulary.of(told.pattern, told.byte_ids, told.merges, cache_slots=64)
    texts = 2 * [*texts, *learnt]
    assert encoder.encode(texts) == [record(folder)(text) for text in texts]


@given(st.binary(max_size=80))
def test_bytes_that_are_no_text_lose_nothing(tokenizer: Artifact, data: bytes) -> None:
    """The shards' stage refuses them; the machine code stays within its arrays, and the bytes come back."""
    encoder = Encoder(tokenizer.path)
    ids, ends = encoder.encode_utf8(np.frombuffer(data, np.uint8), np.array([len(data)]))
    assert ends.tolist() == [len(ids)]
    assert b"".join(map(encoder.piece, ids[:-1].tolist())) == data


def test_what_ends_other_engines_is_encoded(tokenizer: Artifact) -> None:
    """A million spaces overflow tiktoken's stack; a word of a megabyte must not take a square of that."""
    encoder = Encoder(tokenizer.path)
    for text in (" " * 1_200_000, "가나" * 200_000, "=" * 1_000_000):
        assert encoder.decode(encoder.encode([text])[0]) == text


def test_tiktoken_knows_the_specials(tokenizer: Artifact) -> None:
    encoding = in_tiktoken(tokenizer.path)
    assert encoding.n_vocab == VOCAB_SIZE
    assert encoding.encode("<|eos|>", allowed_special="all") == [EOS_ID]
    assert encoding.name.startswith("twofold-")


@given(TEXT)
def test_every_string_survives_the_round_trip(tokenizer: Artifact, text: str) -> None:
    encoder = Encoder(tokenizer.path)
    ids = encoder.encode([text])[0]
    assert encoder.decode(ids) == text
    sizes = np.load(tokenizer.path / "token_bytes.npy")
    assert sum(int(sizes[i]) for i in ids) == len(text.encode("utf-8"))


def test_special_strings_in_text_stay_text(tokenizer: Artifact) -> None:
    encoder = Encoder(tokenizer.path)
    text = "the end <|eos|> of <|reserved_0|><|pad|>"
    ids = encoder.encode([text])[0]
    assert min(ids) >= len(SPECIAL_TOKENS) + RESERVED
    assert encoder.decode(ids) == text
    assert ids == record(tokenizer.path)(text) == in_tiktoken(tokenizer.path).encode_ordinary(text)
    assert ids == in_sentencepiece(tokenizer.path)(text)


def test_specials_are_left_out_of_decoded_text(tokenizer: Artifact) -> None:
    encoder = Encoder(tokenizer.path)
    assert encoder.decode([1, *encoder.encode(["문을 연다"])[0], EOS_ID, 0, 4]) == "문을 연다"


def test_half_a_character_decodes_to_the_replacement_character(tokenizer: Artifact) -> None:
    first_byte = len(SPECIAL_TOKENS) + RESERVED
    assert Encoder(tokenizer.path).decode([first_byte + 0xEA]) == "\ufffd"


@given(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=12))
def test_any_ids_decode_as_in_tokenizers(tokenizer: Artifact, ids: list[int]) -> None:
    theirs = Tokenizer.from_file(str(tokenizer.path / "tokenizer.json"))
    assert Encoder(tokenizer.path).decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_threads_that_share_an_encoder_take_turns(tokenizer: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the interpreter's lock, one thread would read ids from the cache that another is writing."""
    inside: list[str] = []
    most = 0

    def watched(*arguments: Any) -> Any:
        nonlocal most
        inside.append("here")
        most = max(most, len(inside))
        time.sleep(0.02)
        inside.pop()
        return encode(*arguments)

    monkeypatch.setattr("tokenizer.encoder.encode", watched)
    encoder, texts = Encoder(tokenizer.path), [[text] for text in HARD]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(encoder.encode, texts)) == [encoder.encode(text) for text in texts]
    assert most == 1


def test_a_folder_that_transformers_saved_again_is_read(tokenizer: Artifact, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(tokenizer.path).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["post_processor"], "which adds nothing"
    for text in HARD:
        assert Encoder(tmp_path).encode([text]) == Encoder(tokenizer.path).encode([text])


def test_a_lone_surrogate_is_refused(tokenizer: Artifact) -> None:
    with pytest.raises(UserError, match="lone surrogate at 1"):
        Encoder(tokenizer.path).encode(["fine", "a\ud800"])


@pytest.mark.parametrize("content", [None, "", "{}", '{"model": 3}'])
def test_a_folder_without_tokenizer_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"is not a tokenizer \(.*Hint: restore it, or remove the folder"):
        Encoder(tmp_path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("normalizer",), {"type": "NFC"}),
        (("post_processor",), {"type": "ByteLevel"}),
        (("post_processor",), {"type": "TemplateProcessing", "special_tokens": {"<|eos|>": {"ids": [2]}}}),
        (("model", "dropout"), 0.1),
        (("pre_tokenizer", "pretokenizers", 0, "behavior"), "Removed"),
        (("pre_tokenizer", "pretokenizers", 1, "add_prefix_space"), True),
        (("model", "vocab", "A"), VOCAB_SIZE + 5),
        (("pre_tokenizer", "pretokenizers", 0, "pattern", "Regex"), "a"),
    ],
)
def test_a_tokenizer_that_is_not_ours_is_refused(
    tokenizer: Artifact, tmp_path: Path, place: tuple[str | int, ...], value: object
) -> None:
    raw = json.loads((tokenizer.path / "tokenizer.json").read_text())
    node = raw
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"not written by this project|leaves some text uncut"):
        Encoder(tmp_path)


@pytest.mark.parametrize("model_type", [None, "llama"])
def test_it_opens_in_transformers_with_its_specials(
    tokenizer: Artifact, tmp_path: Path, model_type: str | None
) -> None:
    """On its own, and beside the configuration of an exported Llama-format model."""
    from transformers import AutoTokenizer

    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tokenizer.path / name, tmp_path)
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ids = theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id, theirs.unk_token_id
    assert ids == (PAD_ID, EOS_ID, EOS_ID, UNK_ID)
    assert len(theirs) == VOCAB_SIZE
    assert theirs.model_max_length > 10**9, "the model's limit, not the tokenizer's"
    for text in [*KOREAN, *ENGLISH, " a , b . don ' t", "\n\n  x"]:
        encoded = theirs(text)
        assert set(encoded) == {"input_ids", "attention_mask"}, "what a Llama model's generate takes"
        ids = encoded["input_ids"]
        assert ids == Encoder(tokenizer.path).encode([text])[0]
        assert theirs.decode(ids) == text
