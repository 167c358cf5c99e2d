"""Counts are exact, bounded by the sample and the budget, weighted as asked, and independent of files."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import Tokenizer
from tests.conftest import InProcessRunner
from tests.tokenizer.conftest import ENGLISH, KOREAN, decided, write_documents, write_rows
from tests.tokenizer.tables import counter_of, map_bytes, read_words, table_of
from tokenizer.engine import WordTable
from tokenizer.engine import count_words as add_words
from tokenizer.patterns import PATTERNS
from tokenizer.training import count_words as counts
from tokenizer.training.count_words import Counted, count_words, multipliers, prune, sample_place
from tokenizer.training.word_files import number_of_batches, read_batch, words_of, write_words
from twofold.artifacts import Artifact
from twofold.errors import UserError

EVERYTHING = 10**15


def counted(
    documents: Path, work: Path, limit: int = EVERYTHING, pattern: str = "exaone3", **wishes: object
) -> Counted:
    wish = Tokenizer(sample_bytes_per_source=limit, **wishes)
    return count_words(documents, wish, [pattern], work, InProcessRunner())[pattern]


def bytes_of(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_words_are_counted_as_a_counter_over_all_text_does(documents: Artifact, tmp_path: Path, pattern: str) -> None:
    expected = counter_of((KOREAN + ENGLISH) * 3, pattern)
    result = counted(documents.path, tmp_path, pattern=pattern)
    assert dict(read_words(result.path)) == expected
    assert (result.distinct_words, result.words) == (len(expected), expected.total())
    assert (result.pruned_words, result.pruned_count) == (0, 0)
    assert result.sampled_bytes == {"ko-text": bytes_of(KOREAN * 3), "en-text": bytes_of(ENGLISH * 3)}


def test_words_and_stretches_are_counted_in_one_reading(
    documents: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is read once to be measured and once to be counted, and the counts are those of one pattern alone."""
    read: list[str] = []
    texts = counts._texts
    monkeypatch.setattr(counts, "_texts", lambda path: read.append(path.parent.name) or texts(path))
    wish = Tokenizer(sample_bytes_per_source=EVERYTHING, max_words=20)
    both = count_words(documents.path, wish, ["exaone3-code", "superwords"], tmp_path / "both", InProcessRunner())
    assert sorted(read) == ["en-text", "en-text", "ko-text", "ko-text"]
    for pattern, found in both.items():
        alone = counted(documents.path, tmp_path / pattern, pattern=pattern, max_words=20)
        assert found.path.read_bytes() == alone.path.read_bytes()
        assert found.sampled_bytes == alone.sampled_bytes
    assert sum(both["superwords"].sampled_bytes.values()) <= 64 * 20 < sum(both["exaone3-code"].sampled_bytes.values())


@pytest.mark.parametrize("limit", [EVERYTHING, 900])
def test_the_table_does_not_depend_on_files_or_spills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(counts, "_PARTITION_BYTES", 300)
    whole = counted(decided(tmp_path / "1", files=1).path, tmp_path / "work-1", limit)
    monkeypatch.setattr(counts, "RUN_WORDS", 7)
    monkeypatch.setattr(counts, "RUN_BYTES", 300)
    cut = counted(decided(tmp_path / "5", files=5).path, tmp_path / "work-5", limit)
    assert len(list((tmp_path / "work-5" / "exaone3" / "runs").iterdir())) > 10 or limit < EVERYTHING
    assert len(list((tmp_path / "work-5" / "exaone3" / "merged").iterdir())) > 1
    assert cut.path.read_bytes() == whole.path.read_bytes()
    assert cut.sampled_bytes == whole.sampled_bytes


def test_partitions_change_nothing_but_the_batches(
    documents: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = list(read_words(counted(documents.path, tmp_path / "1").path))
    monkeypatch.setattr(counts, "_PARTITION_BYTES", 1)
    assert list(read_words(counted(documents.path, tmp_path / "1024").path)) == one


def test_a_task_run_again_writes_the_same(documents: Artifact, tmp_path: Path) -> None:
    first = counted(documents.path, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert counted(documents.path, tmp_path) == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# --- the sample and the mixture ----------------------------------------------------------------


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


def test_weights_scale_counts_exactly_and_leave_out_what_has_none(tmp_path: Path) -> None:
    for source, words in (("web", 300), ("law", 100), ("code", 5)):
        write_documents(tmp_path, "train", source, [f" {source}" * words + " both"], "en")
    result = counted(tmp_path, tmp_path / "work", weights={"web": 0.25, "law": 0.75})
    sizes = {"web": 1205, "law": 405}
    factors = multipliers({"web": 0.25, "law": 0.75}, sizes)
    assert result.sampled_bytes == sizes
    assert dict(read_words(result.path)) == {
        map_bytes(" web"): 300 * factors["web"],
        map_bytes(" law"): 100 * factors["law"],
        map_bytes(" both"): factors["web"] + factors["law"],
    }
    masses = {source: sizes[source] * factors[source] for source in sizes}
    assert masses["law"] / sum(masses.values()) == pytest.approx(0.75, rel=1e-5)


@given(st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.floats(1e-3, 1e3), st.integers(1, 10**6)), min_size=1))
def test_shares_are_met(sources: dict[str, tuple[float, int]]) -> None:
    weights = {name: weight for name, (weight, _) in sources.items()}
    sizes = {name: size for name, (_, size) in sources.items()}
    factors = multipliers(weights, sizes)
    assert max(factors.values()) == 2**20
    first = max(factors, key=factors.__getitem__)
    for name, factor in factors.items():
        wanted = weights[name] / sizes[name] / (weights[first] / sizes[first]) * 2**20
        assert factor == pytest.approx(max(1.0, wanted), abs=0.501)


def test_a_weight_for_a_source_without_text_is_refused(documents: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer.weights.law = 0.5: weighs a source without kept training text"):
        counted(documents.path, tmp_path, weights={"ko-text": 0.5, "law": 0.5})


# --- the budget --------------------------------------------------------------------------------


@settings(max_examples=60)
@given(words=st.dictionaries(st.text("abcdefgh", min_size=1), st.integers(1, 5), min_size=1), budget=st.integers(1, 30))
def test_the_rarest_words_go_first_and_the_rest_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, words: dict[str, int], budget: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    table = add_words(words_of((word.encode(), count) for word, count in words.items()), WordTable.with_room(1, 1))
    write_words(folder / "part.arrow", *table.sorted())
    order = {word: place for place, (word, _) in enumerate(read_words(folder / "part.arrow"))}
    result = prune([folder / "part.arrow"], budget, {}, folder / "words.arrow")
    ranked = sorted(words, key=lambda word: (-words[word], order[word]))
    assert dict(read_words(result.path)) == {word: words[word] for word in ranked[:budget]}
    assert (result.distinct_words, result.words) == (len(words), sum(words.values()))
    assert result.pruned_words == len(ranked[budget:])
    assert result.pruned_count == sum(words[word] for word in ranked[budget:])


def test_the_budget_is_over_all_partitions(
    documents: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = counted(documents.path, tmp_path / "1", max_words=50)
    monkeypatch.setattr(counts, "_PARTITION_BYTES", 1)
    many = counted(documents.path, tmp_path / "1024", max_words=50)
    assert list(read_words(many.path)) == list(read_words(one.path))
    assert len(list(read_words(one.path))) == 50
    assert one.pruned_words == one.distinct_words - 50


# --- files -------------------------------------------------------------------------------------


def test_partitions_cut_the_hashes_and_lose_nothing(tmp_path: Path) -> None:
    words = Counter({f"word{number}": number + 1 for number in range(500)})
    table = add_words(words_of((word.encode(), count) for word, count in words.items()), WordTable.with_room(3, 20))
    write_words(tmp_path / "words.arrow", *table.sorted(), bits=3)
    assert number_of_batches(tmp_path / "words.arrow") == 8
    assert all(len(read_batch(tmp_path / "words.arrow", part).counts) > 30 for part in range(8))
    assert dict(read_words(tmp_path / "words.arrow")) == words


def test_every_count_is_written_in_full(tmp_path: Path) -> None:
    words = {map_bytes("a"): 1, map_bytes("가\t\n"): 9, map_bytes("\x00"): 10, "b": 10**18 + 7, "c": 2**63 - 1}
    assert dict(read_words(table_of(tmp_path / "words.arrow", words))) == words


@pytest.mark.parametrize("left", [0, 7, 0.5, 0.99])
def test_a_count_file_that_was_cut_off_is_refused(documents: Artifact, tmp_path: Path, left: float) -> None:
    counted(documents.path, tmp_path)
    run = min((tmp_path / "exaone3" / "runs").iterdir())
    whole = run.read_bytes()
    run.write_bytes(whole[: int(left * len(whole)) if left < 1 else int(left)])
    with pytest.raises(UserError, match=r"00000-000.arrow: is not a complete file of word counts .* Hint: remove"):
        counts.merge_runs(tmp_path / "exaone3", 0, InProcessRunner())


def test_tasks_travel_to_other_processes(documents: Artifact, tmp_path: Path) -> None:
    files = tuple(path for _, path in counts.training_files(documents.path))
    for task in (
        counts._Measure(files, tmp_path),
        counts._Count(files, (counts._Cut("exaone3", ((9, 1), (9, 1)), 0, tmp_path),)),
        counts._Merge(files, tmp_path),
    ):
        assert pickle.loads(pickle.dumps(task)) == task
