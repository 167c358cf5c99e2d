"""Every string survives the round trip; special strings in text stay text; transformers agrees."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UserError
from configs.manifest import Artifact
from tests.tokenizer.conftest import ENGLISH, KOREAN, RESERVED, VOCAB_SIZE
from tokenizer.convert import EOS_ID, SPECIALS
from tokenizer.encode import Encoder

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)),
    st.text(st.characters(min_codepoint=0x1100, max_codepoint=0x11FF)),
    st.text(st.sampled_from("👩‍👩‍👧‍👦🇰🇷🏽️\x00\x01\x1c\x1f\x7f\x85\u2028\ufeff\U0010ffff \t\r\n")),
    st.text(st.characters(exclude_categories=["Cs"])).map(lambda text: unicodedata.normalize("NFD", text)),
)


@given(TEXT)
def test_every_string_survives_the_round_trip(tokenizer: Artifact, text: str) -> None:
    encoder = Encoder(tokenizer.path)
    ids = encoder.encode([text])[0]
    assert encoder.decode(ids) == text
    sizes = np.load(tokenizer.path / "token_bytes.npy")
    assert sum(int(sizes[i]) for i in ids) == len(text.encode("utf-8"))


@pytest.mark.parametrize("text", ["", "한", "각", "a\r\n\r\n\tb   1 2", "ㅋ" * 3000, " " * 3000, "가a" * 30_000])
def test_hard_strings_survive_too(tokenizer: Artifact, text: str) -> None:
    encoder = Encoder(tokenizer.path)
    assert encoder.decode(encoder.encode([text])[0]) == text


def test_special_strings_in_text_stay_text(tokenizer: Artifact) -> None:
    encoder = Encoder(tokenizer.path)
    text = "the end <|eos|> of <|reserved_0|><|pad|>"
    ids = encoder.encode([text])[0]
    assert min(ids) >= len(SPECIALS) + RESERVED
    assert encoder.decode(ids) == text


def test_specials_are_left_out_of_decoded_text(tokenizer: Artifact) -> None:
    encoder = Encoder(tokenizer.path)
    assert encoder.decode([1, *encoder.encode(["문을 연다"])[0], EOS_ID, 0, 4]) == "문을 연다"


def test_half_a_character_decodes_to_the_replacement_character(tokenizer: Artifact) -> None:
    first_byte = len(SPECIALS) + RESERVED
    assert Encoder(tokenizer.path).decode([first_byte + 0xEA]) == "\ufffd"


def test_a_lone_surrogate_is_refused(tokenizer: Artifact) -> None:
    with pytest.raises(UserError, match="lone surrogate at 1"):
        Encoder(tokenizer.path).encode(["fine", "a\ud800"])


@pytest.mark.parametrize("content", [None, "", "{}", '{"model": 3}'])
def test_a_folder_without_tokenizer_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"is no tokenizer \(.*Mend: train the tokenizer again"):
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
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, EOS_ID, 3)
    assert len(theirs) == VOCAB_SIZE
    assert theirs.model_max_length > 10**9, "the model's limit, not the tokenizer's"
    for text in [*KOREAN, *ENGLISH, " a , b . don ' t", "\n\n  x"]:
        ids = theirs(text)["input_ids"]
        assert ids == Encoder(tokenizer.path).encode([text])[0]
        assert theirs.decode(ids) == text
