"""Counts are exact, bounded by the sample, and independent of how documents are cut over files."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from configs.manifest import Artifact
from tests.conftest import InProcessRunner
from tests.tokenizer.conftest import ENGLISH, KOREAN, decided, write_documents, write_rows
from tokenizer import counts
from tokenizer.counts import Counted, count_words, merge_runs, pieces_of, read_words, sample_place
from tokenizer.patterns import PATTERNS, map_bytes

EVERYTHING = 10**15


def counted(documents: Path, work: Path, limit: int = EVERYTHING, pattern: str = "exaone3") -> Counted:
    return count_words(documents, pattern, limit, work, InProcessRunner())


def bytes_of(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_words_are_counted_as_a_counter_over_all_text_does(documents: Artifact, tmp_path: Path, pattern: str) -> None:
    expected: Counter[str] = Counter()
    for text in (KOREAN + ENGLISH) * 3:
        expected.update(map_bytes(word) for word in regex.findall(PATTERNS[pattern], text))
    result = counted(documents.path, tmp_path, pattern=pattern)
    assert list(read_words(result.path)) == sorted(expected.items())
    assert result.sampled_bytes == {"ko-text": bytes_of(KOREAN * 3), "en-text": bytes_of(ENGLISH * 3)}


@pytest.mark.parametrize("limit", [EVERYTHING, 900])
def test_the_table_does_not_depend_on_files_or_spills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    whole = counted(decided(tmp_path / "1", files=1).path, tmp_path / "work-1", limit)
    monkeypatch.setattr(counts, "RUN_WORDS", 7)
    monkeypatch.setattr(counts, "MERGED_RUNS", 2)
    cut = counted(decided(tmp_path / "5", files=5).path, tmp_path / "work-5", limit)
    assert len(list((tmp_path / "work-5" / "runs").iterdir())) > 10 or limit < EVERYTHING
    assert cut.path.read_bytes() == whole.path.read_bytes()
    assert cut.sampled_bytes == whole.sampled_bytes


def test_a_task_run_again_writes_the_same(documents: Artifact, tmp_path: Path) -> None:
    first = counted(documents.path, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert counted(documents.path, tmp_path) == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_sample_is_bounded_and_spread_over_the_source(tmp_path: Path) -> None:
    rows = [(f"web/{n}", f"{n:05d} and some more words") for n in range(4000)]
    write_rows(tmp_path, "train", "web", rows, "en")
    write_documents(tmp_path, "train", "law", ["short"], "en")
    limit = bytes_of([text for _, text in rows]) // 8
    result = counted(tmp_path, tmp_path / "work", limit)
    taken = dict(read_words(result.path))[map_bytes(" and")]
    assert result.sampled_bytes == {"web": taken * len(rows[0][1]), "law": 5}
    assert 0.95 * limit < result.sampled_bytes["web"] <= limit
    places = np.array([sample_place(name) for name, _ in rows])
    sampled = np.flatnonzero(places < np.sort(places)[taken])
    assert abs(sampled.mean() - 2000) < 200, "the sample leans to one end of the source"


def test_a_limit_below_every_document_samples_nothing(documents: Artifact, tmp_path: Path) -> None:
    result = counted(documents.path, tmp_path, limit=1)
    assert list(read_words(result.path)) == []
    assert result.sampled_bytes == {"ko-text": 0, "en-text": 0}


def test_places_follow_the_hash_and_stay_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = sorted({0, 1, 127, 128, 129, 2**63, 2**64 - 1, *(3**n for n in range(40)), *(2**n - 1 for n in range(64))})
    places = []
    for value in hashes:
        monkeypatch.setattr(counts.xxhash, "xxh3_64_intdigest", lambda _, value=value: value)
        places.append(sample_place("any"))
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0, counts._PLACES - 1)


def test_long_words_are_counted_in_pieces(tmp_path: Path) -> None:
    write_documents(tmp_path, "train", "noise", ["ha " * 3, "가" * 100 + "\n" + "가" * 100, "z" * 6_000_001], "ko")
    words = dict(read_words(counted(tmp_path, tmp_path / "work").path))
    expected = {"ha": 1, " ha": 2, " ": 1, "\n": 1, "가" * 85: 2, "가" * 15: 2, "z" * 256: 23437, "z" * 129: 1}
    assert words == {map_bytes(word): count for word, count in expected.items()}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400))
@example("한👩‍👩‍👧‍👦" * 40)
def test_pieces_of_a_word_lose_nothing(word: str) -> None:
    pieces = list(pieces_of(word))
    assert "".join(pieces) == word
    assert all(0 < len(piece.encode()) <= counts.WORD_BYTES for piece in pieces)


def test_many_runs_are_merged_in_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MERGED_RUNS", 3)
    runs = []
    for number in range(30):
        runs.append(tmp_path / f"{number}.tsv")
        runs[-1].write_text(f"both\t{2**40}\nown{number:02d}\t{number}\n")
    table = dict(read_words(merge_runs(runs, tmp_path / "out" / "words.tsv")))
    assert table == {"both": 30 * 2**40, **{f"own{number:02d}": number for number in range(30)}}


def test_tasks_travel_to_other_processes(documents: Artifact, tmp_path: Path) -> None:
    files = tuple(path for _, path in counts.training_files(documents.path))
    for task in (counts._Measure(files, tmp_path), counts._Count(files, (9, 9), "exaone3", tmp_path)):
        assert pickle.loads(pickle.dumps(task)) == task
