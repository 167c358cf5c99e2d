"""The benchmark compares equal tokens of all contestants, and writes its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import encode


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two folders a source, as the benchmark names them."""
    for folders in encode._FOLDERS.values():
        for number, folder in enumerate(folders):
            path = tmp_path / "corpus" / folder / "0000.jsonl"
            path.parent.mkdir(parents=True)
            rows = [
                {"id": f"{folder}/{n}", "text": f"항구의 배 {n}척과 the {n * 7} boats of harbour {number}."}
                for n in range(60)
            ]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "corpus"


def test_tokens_are_equal_and_figures_are_written(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(encode.os, "sched_getaffinity", lambda pid: {0})
    encode.main(
        [
            "--corpus",
            str(corpus),
            "--megabytes",
            "1",
            "--vocab-size",
            "300",
            "--repetitions",
            "1",
            "--json",
            str(tmp_path / "out.json"),
        ]
    )
    result = json.loads((tmp_path / "out.json").read_text())
    assert set(result["peers"]) == {"datatrove", "encode_batch_fast"}
    assert result["documents"] == 240
    assert result["ours"]["1_core"]["megabytes_per_s"] > 0
    assert set(result["engines_megabytes_per_s_one_core"]) >= {"ours", "tokenizers"}


def test_other_tokens_are_not_taken_for_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "_in_new_process", lambda name, kept, tokenizer, out, cores: out.mkdir())
    monkeypatch.setattr(encode, "_tokens_of_ours", lambda folder: [1, 2])
    monkeypatch.setattr(encode, "_TOKENS", dict.fromkeys(encode._CONTESTANTS, lambda folder: [1, 3]))
    with pytest.raises(AssertionError, match="ours gives other tokens"):
        encode.end_to_end(tmp_path, tmp_path, tmp_path, [1], 1)
