"""Cuts of Korean words against borders that are known."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.tokenizer.tables import map_bytes
from tokenizer.evaluation.candidates import Candidate, load
from tokenizer.evaluation.morpheme_scores import boundary_scores, korean_words
from tokenizer.patterns import CODE_POINT_OF_BYTE

BORDERS = {"배를": ["배", "를"], "살폈다": ["살피", "었", "다"], "사람들은": ["사람", "들", "은"], "뷁은": ["뷁", "은"]}


def analyse(word: str) -> list[str]:
    return BORDERS.get(word.strip(), [word.strip()])


def byte_level(path: Path, merges: list[tuple[str, str]], trim: bool = False) -> Candidate:
    """Byte-level BPE with the given merges of text."""
    pieces = [*CODE_POINT_OF_BYTE, *(map_bytes(left + right) for left, right in merges)]
    pairs = [(map_bytes(left), map_bytes(right)) for left, right in merges]
    engine = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, pairs))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if trim:
        engine.post_processor = processors.ByteLevel(trim_offsets=True)
    engine.save(str(path))
    return load("x", path)


def letters(path: Path, *pieces: str) -> Candidate:
    """Characters, and pieces of two or more that begin with a shorter one."""
    characters = dict.fromkeys(" 배를살폈다사람들은뷁a" + "".join(pieces))
    vocabulary = {piece: number for number, piece in enumerate([*characters, *pieces])}
    engine = Tokenizer(models.BPE(vocabulary, [(piece[:-1], piece[-1]) for piece in pieces]))
    engine.save(str(path))
    return load("x", path)


def test_words_are_counted_and_analysed_once() -> None:
    seen: list[str] = []

    def noted(word: str) -> list[str]:
        seen.append(word)
        return analyse(word)

    found = korean_words(["배를 살폈다 the 배를", "배를\n2026"], noted)
    assert found.counts == {" 배를": 3, " 살폈다": 1}
    assert found.borders == {" 배를": {2}, " 살폈다": frozenset()}, "surfaces that are not the word's text give none"
    assert seen == [" 배를", " 살폈다"]


def test_recall_and_precision_are_weighed_by_occurrences(tmp_path: Path) -> None:
    words = korean_words(["배를 배를 배를 사람들은"], analyse)
    found = boundary_scores(letters(tmp_path / "x.json", " 배", " 배를", "사람"), words)
    # " 배를" is not cut: 3 borders missed; " 사람들은" is cut into blank, 사람, 들, 은: 2 of 2.
    assert found == {"recall": 2 / 5, "precision": 1.0, "words": 4, "distinct_words": 2}
    found = boundary_scores(letters(tmp_path / "y.json"), words)
    # Every letter alone: all 5 borders, and one cut of 사람 that is none.
    assert found == {"recall": 1.0, "precision": 5 / 6, "words": 4, "distinct_words": 2}


@pytest.mark.parametrize("trim", [False, True])
def test_a_cut_inside_a_character_is_no_border(tmp_path: Path, trim: bool) -> None:
    words = korean_words(["뷁은"], analyse)
    whole = byte_level(tmp_path / "x.json", [], trim)
    # 6 bytes after the blank: 5 cuts, of which one is at the border.
    found = boundary_scores(whole, words)
    assert (found["recall"], found["precision"]) == (1.0, 1 / 5)


def test_without_words_or_cuts_nothing_is_divided_by_zero(tmp_path: Path) -> None:
    empty = korean_words(["no Korean"], analyse)
    assert boundary_scores(letters(tmp_path / "x.json"), empty)["recall"] == 0
    words = korean_words(["배를"], analyse)
    assert boundary_scores(letters(tmp_path / "y.json", " 배", " 배를"), words)["precision"] == 0
