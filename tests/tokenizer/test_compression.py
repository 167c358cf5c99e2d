"""Figures of compression are those that counting by hand gives."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from tests.tokenizer.conftest import ENGLISH, KOREAN, write_documents
from tests.tokenizer.test_candidates import sentencepiece_like
from tokenizer.evaluation import compression as measures
from tokenizer.evaluation.candidates import Candidate, load
from tokenizer.evaluation.compression import LabelledText
from tokenizer.formats import TOKENIZER_FILE
from twofold.artifacts import Artifact


@pytest.fixture(scope="module")
def own(tokenizer: Artifact) -> Candidate:
    return load("ours", tokenizer.path / TOKENIZER_FILE)


def labelled() -> list[LabelledText]:
    rows = [LabelledText("ko", "law" if "조례" in text else "general", text) for text in KOREAN]
    return [*rows, *(LabelledText("en", "general", text) for text in ENGLISH)]


def test_figures_equal_those_counted_text_by_text(own: Candidate) -> None:
    found = measures.compression(own, measures.groups_of(labelled()))
    assert set(found) == {"ko", "en"}
    assert set(found["ko"]) == {"all", "general", "law"}
    for language, domain in (("ko", "all"), ("ko", "general"), ("ko", "law"), ("en", "all")):
        texts = [row.text for row in labelled() if row.language == language and domain in ("all", row.domain)]
        ids = [number for text in texts for number in own.encode([text])[0]]
        words = sum(len(text.split()) for text in texts)
        partial = sum(
            (own.pieces[number] or b"").decode("utf-8", "ignore").encode() != own.pieces[number] for number in ids
        )
        row = found[language][domain]
        assert (row["documents"], row["tokens"], row["words"]) == (len(texts), len(ids), words)
        assert row["tokens_per_word"] == len(ids) / words
        assert row["bytes_per_token"] == len("".join(texts).encode()) / len(ids)
        assert row["characters_per_token"] == len("".join(texts)) / len(ids)
        assert row["partial_character_share"] == partial / len(ids)
        assert row["no_text_share"] == 0
    assert found["ko"]["all"]["partial_character_share"] > 0


def test_a_tokenizer_that_loses_text_is_told(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    engine = Tokenizer(models.BPE({"<unk>": 0, "a": 1}, [], unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    engine.save(str(tmp_path / "x.json"))
    groups = measures.groups_of([LabelledText("en", "x", "a b a c")])
    assert measures.compression(load("x", tmp_path / "x.json"), groups)["en"]["x"]["no_text_share"] == 0.5


def test_empty_texts_are_left_out_and_lone_surrogates_replaced(own: Candidate) -> None:
    rows = [LabelledText("ko", "x", text) for text in ("", " \n", "a\ud800b", "\ud83d\udc4d")]
    groups = measures.groups_of(rows)
    assert groups == {("ko", "x"): ["a\ufffdb", "👍"]}
    assert measures.compression(own, groups)["ko"]["x"]["documents"] == 2
    assert measures.compression(own, {}) == {}


def test_syllables_are_counted_one_by_one(own: Candidate, tmp_path: Path) -> None:
    found = measures.syllables(own)
    sizes = [len(own.encode([syllable])[0]) for syllable in measures.SYLLABLES[::97]]
    assert sum(found.values()) == len(measures.SYLLABLES) == 11_172
    assert found["one"] >= sizes.count(1)
    single = {
        piece.decode()
        for piece in own.pieces
        if piece and len(piece) == 3 and "가" <= piece.decode("utf-8", "ignore")[:1] <= "힣"
    }
    assert found["one"] == len(single)
    assert measures.syllables(load("x", sentencepiece_like(tmp_path / "x.json"))) == {
        "one": 3,
        "two": 0,
        "more": 11_169,
    }


def test_decomposed_text_costs_more_tokens(own: Candidate) -> None:
    composed = sum(len(own.encode([text])[0]) for text in KOREAN)
    decomposed = sum(len(own.encode([unicodedata.normalize("NFD", text)])[0]) for text in KOREAN)
    assert measures.nfd_penalty(own, KOREAN) == decomposed / composed > 1.5
    assert measures.nfd_penalty(own, []) == 0


def test_the_curve_falls_to_what_the_whole_tokenizer_gives(tokenizer: Artifact, own: Candidate) -> None:
    groups = measures.groups_of(labelled())
    curve = measures.curve(tokenizer.path / TOKENIZER_FILE, groups)
    whole = measures.compression(own, groups)
    for language, points in curve.items():
        assert points["vocab_size"] == sorted(points["vocab_size"])
        assert points["tokens_per_word"] == sorted(points["tokens_per_word"], reverse=True)
        assert points["vocab_size"][-1] == own.vocab_size
        assert points["tokens_per_word"][-1] == whole[language]["all"]["tokens_per_word"]


def test_held_out_text_is_that_of_validation(tmp_path: Path) -> None:
    write_documents(tmp_path, "train", "a", ["never"], "ko")
    write_documents(tmp_path, "validation", "a", ["일", "이", "삼"], "ko")
    write_documents(tmp_path, "validation", "b", ["one two three"] * 2, "en")
    assert list(measures.held_out(tmp_path, 4)) == [
        LabelledText("ko", "general", "일"),
        LabelledText("ko", "general", "이"),
        LabelledText("en", "general", "one two three"),
    ]
    assert list(measures.held_out(tmp_path / "nothing", 4)) == []


def test_a_sample_holds_the_first_texts_of_each_group() -> None:
    groups = {("ko", "x"): ["가나", "다", "라"], ("en", "x"): ["long enough", "no more"]}
    assert measures.sample(groups, 7) == {("ko", "x"): ["가나", "다"], ("en", "x"): ["long enough"]}
