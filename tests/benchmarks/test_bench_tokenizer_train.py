"""The tokenizer benchmark's own parts, on a corpus of a few lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import tokenizer_train
from tests.tokenizer.tables import read_words
from tokenizer.training.count_words import training_files
from tokenizer.training.learn import learn_words
from tokenizer.training.word_files import write_batches

TEXT = "바람이 불면 배를 살폈다. The wind rose, and the people went down to look after the boats. "


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    for folder, texts in {"general/ko-text/a": [TEXT] * 40, "domain/law/b": [TEXT * 2] * 10 + ["last"]}.items():
        (tmp_path / "corpus" / folder).mkdir(parents=True)
        lines = [json.dumps({"text": text}) for text in texts]
        (tmp_path / "corpus" / folder / "0000.jsonl").write_text("\n".join(lines))
    size = len(TEXT.encode())
    assert tokenizer_train.write_documents(tmp_path / "corpus", tmp_path, 30 * size + 2) == 30 * size
    return tmp_path


def test_every_source_gives_the_same_share(documents: Path) -> None:
    assert [source for source, _ in training_files(documents)] == ["a", "b"]
    assert sum(map(len, tokenizer_train._batches(documents))) == 20 + 5


@pytest.mark.parametrize("contestant", ["counting", "counter", "BpeTrainer"])
def test_contestants_run_to_the_end(documents: Path, contestant: str) -> None:
    found = tokenizer_train.CONTESTANTS[contestant](documents, 20)
    assert found["seconds"] > 0
    assert found.get("pieces", 20) == 20


def test_a_child_is_watched(documents: Path) -> None:
    tokenizer_train.measure_growth(documents, 100, 10)
    found = tokenizer_train.run("growth", documents, 10)
    assert found["pieces"] == 10
    assert 0.02 < found["peak_gb"] < 5


def test_synthetic_words_are_distinct(tmp_path: Path) -> None:
    write_batches(tmp_path / "synthetic.arrow", tokenizer_train._synthetic(5_000))
    words = dict(read_words(tmp_path / "synthetic.arrow"))
    assert len(words) == 5_000
    assert len(learn_words(tmp_path / "synthetic.arrow", 50)) == 50
