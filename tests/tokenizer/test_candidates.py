"""Any tokenizer.json is opened as what it is, and refused by name where it is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.tokenizer.conftest import KOREAN
from tests.tokenizer.oracle import encode_slowly
from tokenizer.encoder import Encoder
from tokenizer.evaluation.candidates import CURVE, load, load_folder, prefixes
from tokenizer.formats import TOKENIZER_FILE, read_tokenizer
from twofold.artifacts import Artifact
from twofold.errors import UserError


def sentencepiece_like(path: Path) -> Path:
    """Gemma's kind: a blank is `▁`, unknown characters are bytes."""
    pieces = ["<unk>", "<bos>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "배", "는", "▁배", "가", "\n\n"]
    engine = Tokenizer(
        models.BPE({piece: number for number, piece in enumerate(pieces)}, [("▁", "배")], byte_fallback=True)
    )
    engine.normalizer = normalizers.Replace(" ", "▁")
    engine.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    engine.add_special_tokens([AddedToken("<bos>", special=True), AddedToken("<unk>", special=True)])
    path.parent.mkdir(parents=True, exist_ok=True)
    engine.save(str(path))
    return path


def test_our_own_is_opened_with_the_pieces_and_ids_that_it_has(tokenizer: Artifact) -> None:
    own, encoder = load("ours", tokenizer.path / TOKENIZER_FILE), Encoder(tokenizer.path)
    assert own.vocab_size == encoder.vocab_size
    for number, piece in enumerate(own.pieces):
        assert piece == (None if encoder.is_special(number) else encoder.piece(number))
    assert own.encode(KOREAN) == encoder.encode(KOREAN)
    assert own.encode(["a<|eos|>b"]) == encoder.encode(["a<|eos|>b"]), "a special's name in a text is text"


def test_sentencepieces_kind_gives_its_text_back(tmp_path: Path) -> None:
    found = load("x", sentencepiece_like(tmp_path / "x.json"))
    text = " 배는 뷁 가"
    assert b"".join(found.pieces[number] or b"?" for number in found.encode([text])[0]).decode() == text
    assert found.pieces[0] is found.pieces[1] is None
    assert found.pieces[2 + 0xEB] == b"\xeb"


def test_a_special_is_no_text_and_truncation_is_undone(tmp_path: Path) -> None:
    engine = Tokenizer.from_file(str(sentencepiece_like(tmp_path / "x.json")))
    engine.enable_truncation(2)
    engine.enable_padding(length=9)
    engine.save(str(tmp_path / "x.json"))
    found = load("x", tmp_path / "x.json")
    assert len(found.encode(["배는배는배는"])[0]) == 6
    assert len(found.encode(["배"])[0]) == 1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60))
def test_a_prefix_of_the_merges_is_the_smaller_tokenizer(tokenizer: Artifact, text: str) -> None:
    record = read_tokenizer(tokenizer.path)
    full = load("ours", tokenizer.path / TOKENIZER_FILE)
    for smaller, share in zip(prefixes(tokenizer.path / TOKENIZER_FILE), CURVE, strict=True):
        kept = round(share * len(record.merges))
        assert smaller.vocab_size == full.vocab_size - len(record.merges) + kept
        words = [word for word, _ in smaller.engine.pre_tokenizer.pre_tokenize_str(text)]
        assert smaller.encode([text])[0] == [number for word in words for number in encode_slowly(word, record, kept)]


def test_a_folder_is_read_in_both_layouts(tokenizer: Artifact, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    shutil.copy(tokenizer.path / TOKENIZER_FILE, tmp_path / "b")
    sentencepiece_like(tmp_path / "a.json")
    assert [found.name for found in load_folder(tmp_path)] == ["a", "b"]


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    sentencepiece_like(tmp_path / "a.json")
    sentencepiece_like(tmp_path / "a" / TOKENIZER_FILE)
    with pytest.raises(UserError, match=r"a.json: has the name of .*a/tokenizer.json"):
        load_folder(tmp_path)


@pytest.mark.parametrize("folder", ["empty", "absent"])
def test_a_folder_without_tokenizers_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--with = .*holds no tokenizer"):
        load_folder(tmp_path / folder)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is not a tokenizer.json"),
        ("[1, 2]", "is not a tokenizer.json"),
        ('{"model": null}', "is not a tokenizer.json"),
        ('{"version": "1.0"}', "is not a tokenizer.json"),
        ('{"model": {"type": "WordPiece", "vocab": {}}}', "is of the kind WordPiece, whose tokens do not give"),
        ('{"model": {"vocab": {}}}', "is of the kind None"),
        ('{"model": {"type": "BPE", "vocab": 3}}', "cannot be read by tokenizers"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=rf"x.json: {problem}"):
        load_folder(tmp_path)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(UserError, match=r"x.json: is not a tokenizer.json"):
        load("x", tmp_path / "x.json")


def test_a_byte_level_token_outside_the_alphabet_is_text(tmp_path: Path) -> None:
    engine = Tokenizer(models.BPE({"a": 0, "가 나": 1}, []))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.add_tokens(["가 나"])
    engine.save(str(tmp_path / "x.json"))
    assert load("x", tmp_path / "x.json").pieces == (b"a", "가 나".encode())
    assert "가 나" in json.loads((tmp_path / "x.json").read_text())["added_tokens"][0]["content"]
