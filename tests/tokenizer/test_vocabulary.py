"""What a vocabulary holds, and what the training shards use of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from tests.conftest import InProcessRunner
from tests.tokenizer.conftest import ENGLISH, KOREAN, RESERVED, VOCAB_SIZE, small_recipe
from tokenizer.evaluation import vocabulary
from tokenizer.evaluation.candidates import Candidate, load
from tokenizer.formats import TOKENIZER_FILE
from tokenizer.shards import Index, read_index
from tokenizer.stages import tokenize
from twofold.artifacts import Artifact
from twofold.special_ids import EOS_ID

ODD = [
    "한국の",
    "漢字かな",
    " ab가",
    "B2C",
    " 2026",
    "7",
    "====",
    "...",
    "!?…",
    "   ",
    "\n\n",
    "\x1b[",
    "of the",
    "ㅋㅋㅋ",
]


@pytest.fixture(scope="module")
def shards(documents: Artifact, tokenizer: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("shards")
    tokenize.build(small_recipe(), documents, tokenizer, folder, folder / "work", InProcessRunner())
    return read_index(folder, tokenizer.identity)


def odd(tmp_path: Path) -> Candidate:
    Tokenizer(models.BPE({text: number for number, text in enumerate(ODD)}, [])).save(str(tmp_path / "odd.json"))
    return load("odd", tmp_path / "odd.json")


def test_tokens_are_told_apart_by_kind(tmp_path: Path) -> None:
    found = vocabulary.contents(odd(tmp_path))
    assert {kind: set(row["examples"]) for kind, row in found.items() if kind != "longest"} == {
        "across words": {"of the"},
        "mixed scripts": {"한국の", " ab가"},
        "letters and digits": {"B2C"},
        "several digits": {" 2026"},
        "one character repeated": {"====", "...", "   ", "ㅋㅋㅋ"},
        "punctuation": {"====", "...", "!?…"},
        "white space": {"   ", "\n\n"},
        "control characters": {"\x1b["},
    }
    assert found["longest"]["count"] == len(ODD)
    assert found["longest"]["examples"][0] == "of the"


def test_parts_of_characters_are_counted_without_single_bytes(tokenizer: Artifact) -> None:
    own = load("ours", tokenizer.path / TOKENIZER_FILE)
    slow = 0
    for piece in own.pieces:
        if piece is not None and len(piece) > 1:
            try:
                piece.decode()
            except UnicodeDecodeError:
                slow += 1
    assert vocabulary.partial_count(own) == slow > 0


def test_ids_are_counted_over_the_training_shards_alone(shards: Index, tokenizer: Artifact) -> None:
    own = load("ours", tokenizer.path / TOKENIZER_FILE)
    expected = Counter(number for row in own.encode([*KOREAN * 3, *ENGLISH * 3]) for number in row)
    expected[EOS_ID] = 3 * (len(KOREAN) + len(ENGLISH))
    counts = vocabulary.token_counts(shards)
    assert counts.tolist() == [expected[number] for number in range(VOCAB_SIZE)]


def test_use_is_counted_without_specials_and_bytes(shards: Index, tokenizer: Artifact) -> None:
    own = load("ours", tokenizer.path / TOKENIZER_FILE)
    counts = vocabulary.token_counts(shards)
    merges = range(4 + RESERVED + 256, VOCAB_SIZE)
    found = vocabulary.usage(own, shards)
    assert found["tokens"] == len(merges)
    assert found["training_tokens"] == counts.sum()
    assert found["unused"] == sum(counts[number] == 0 for number in merges) > 0
    assert found["rare"] == sum(counts[number] < 100 for number in merges)
    assert sum(row["tokens"] for row in found["by_count"]) == len(merges)
    assert found["by_count"][0] == {"least": 0, "most": 0, "tokens": found["unused"]}
    assert found["by_count"][-1]["most"] == max(counts[number] for number in merges)
    listed = found["candidates"]
    assert [row["count"] for row in listed] == sorted(row["count"] for row in listed)
    assert all(row["count"] == counts[row["id"]] < 100 and row["id"] in merges for row in listed)
    assert bytes.fromhex(listed[0]["bytes"]) == own.pieces[listed[0]["id"]]
