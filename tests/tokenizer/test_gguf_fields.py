"""What a GGUF file says of the tokenizer: the ids, merges and specials of tokenizer.json, and a pattern's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokenizer import gguf
from tokenizer.formats import write_tokenizer
from twofold.artifacts import Artifact
from twofold.errors import UserError


@pytest.mark.parametrize(
    ("pattern", "name"), [("exaone3", "exaone"), ("plain", "llama-bpe"), ("superwords", "exaone-moe")]
)
def test_fields_are_those_of_the_record(tmp_path: Path, pattern: str, name: str) -> None:
    write_tokenizer(tmp_path, ["ab", "abc"], 2, pattern)
    fields = gguf.fields(tmp_path)
    record = json.loads((tmp_path / "tokenizer.json").read_text())
    assert fields["tokenizer.ggml.pre"] == name
    tokens = fields["tokenizer.ggml.tokens"]
    assert {token: number for number, token in enumerate(tokens)} == record["model"]["vocab"]
    assert fields["tokenizer.ggml.merges"] == ["a b", "ab c"] == [" ".join(pair) for pair in record["model"]["merges"]]
    assert fields["tokenizer.ggml.token_type"] == [3] * 6 + [1] * 258
    assert (fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.eos_token_id"]) == (2, 2)
    assert fields["tokenizer.ggml.add_bos_token"] is False


def test_a_pattern_that_llama_cpp_does_not_know_is_refused(tokenizer: Artifact) -> None:
    with pytest.raises(UserError, match=r"does not know\. Hint: train with tokenizer\.superwords above 0"):
        gguf.fields(tokenizer.path)
