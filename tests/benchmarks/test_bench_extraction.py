"""The measures of the extraction benchmark, and its figures over a small corpus."""

from __future__ import annotations

import json

import pytest

from benchmarks import extraction

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]


def test_f1_weighs_pages_alike():
    right = " ".join(WORDS)
    assert extraction.score([(right, right)]) == (1.0, 1.0, 1.0)
    assert extraction.score([(right, right), (right, "")])[1] == 0.5  # recall
    half = " ".join(WORDS[:5])  # two of five shingles
    assert extraction.score([(right, half)])[:2] == (1.0, pytest.approx(0.4))
    assert extraction.score([(right, "nothing of it at all")]) == (0.0, 0.0, 0.0)


def test_a_captured_block_must_be_whole():
    text = "A paragraph of some length that loses a word on its way."
    page = f"<body><p>{text}</p><p>short</p><p>Another paragraph, which is not captured at all.</p>"
    assert next(extraction.page_blocks(page)) == text.replace(" ", "")
    assert extraction.block_fidelity([(page, text)]) == 1.0
    assert extraction.block_fidelity([(page, text.replace("some ", ""))]) == 0.0
    assert extraction.block_fidelity([(page, "nothing")]) == 0.0


def test_blocks_around_blocks_and_formulas_are_not_judged():
    inner = "A paragraph that is long enough to be judged."
    page = f"<ul><li><p>{inner}</p></li><li>A formula of this length: 2<sup>10</sup></li></ul>"
    assert list(extraction.page_blocks(page)) == [inner.replace(" ", "")]


def _corpus(folder):
    article = "".join(f"<p>Sentence number {n} of this page has a few more words.</p>" for n in range(30))
    record = {"id": "1", "html": f"<body><article>{article}</article>"}
    for place in extraction.SPEED_FOLDERS:
        (folder / place).mkdir(parents=True)
        (folder / place / "0.jsonl").write_text(json.dumps(record) + "\n")
    text = "\n".join(f"Sentence number {n} of this page has a few more words." for n in range(30))
    (folder / "gold").mkdir()
    (folder / "gold" / "0.jsonl").write_text(json.dumps({"id": "1", "expected_text": text}) + "\n")
    return folder


def test_the_figures_are_written_with_their_peers(tmp_path):
    out = tmp_path / "out.json"
    extraction.main(["--corpus", str(_corpus(tmp_path / "corpus")), "--json", str(out), "--repetitions", "1"])
    result = json.loads(out.read_text())
    assert result["ours"]["f1"] == 1.0
    assert set(result["peers"]) == {"resiliparse", "trafilatura"}
    assert result["ours"]["html_megabytes_per_cpu_s"] > 0
    assert {"ratio", "machine", "date"} <= result.keys()


def test_an_empty_corpus_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"corpus = .*gold: there are no pages. Hint: --corpus DIR"):
        extraction.main(["--corpus", str(tmp_path)])
