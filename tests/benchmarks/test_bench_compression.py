"""The benchmark measures on sources that it did not train on, and divides the peers' tokens by ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import compression, tokenizer_variants

KOREAN = "바람이 불면 마을 사람들은 항구로 나가 배 {0}척을 살폈다. 도서관은 아침 일곱 시에 문을 연다."
ENGLISH = "When the wind rose the people of the village looked after {0} boats in the harbour."


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for source, text, language in (
        ("a/ko", KOREAN, "ko"),
        ("a/en", ENGLISH, "en"),
        ("b/ko", KOREAN[::-1], "ko"),
        ("b/en", ENGLISH, "en"),
        ("b/code/py", "def f(n):\n    return n + {0}\n", "python"),
    ):
        path = tmp_path / "corpus" / source / "0000.jsonl"
        path.parent.mkdir(parents=True)
        rows = [{"id": f"{source}/{n}", "text": text.replace("{0}", str(n)), "lang": language} for n in range(40)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = tmp_path / "corpus" / "c" / "web" / "0000.jsonl"
    page.parent.mkdir(parents=True)
    html = f"<html><body><article><p>{KOREAN * 3}</p><p>{KOREAN * 3}</p></article></body></html>"
    page.write_text("".join(json.dumps({"id": str(n), "html": html, "lang": "ko"}) + "\n" for n in range(5)))
    return tmp_path / "corpus"


def test_figures_are_those_of_sources_not_trained_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "TRAINED", ("a/ko", "a/en"))
    monkeypatch.setattr(compression, "HELD_OUT", ("b/ko", "b/en", "b/code/py"))
    monkeypatch.setattr(compression, "CONFIRMATION", ("c/web", "b/ko", "b/en"))
    monkeypatch.setattr(
        compression, "VARIANTS", {name: tokenizer_variants.VARIANTS[name] for name in ("plain", "superbpe")}
    )
    arguments = ["--corpus", str(corpus), "--vocab-size", "700", "--scratch", str(tmp_path / "scratch")]
    (tmp_path / "peers").mkdir()
    kept = tokenizer_variants.documents(corpus, compression.TRAINED, tmp_path / "scratch")
    wish = compression.Tokenizer(vocab_size=640, pattern="plain")
    small = tokenizer_variants.trained(kept, wish, tmp_path / "scratch")
    shutil.copy(small.path / "tokenizer.json", tmp_path / "peers" / "small.json")
    compression.main([*arguments, "--with", str(tmp_path / "peers"), "--json", str(tmp_path / "out.json")])
    result = json.loads((tmp_path / "out.json").read_text())
    assert set(result["ours"]) == {"plain", "superbpe"}
    assert set(result["measured_bytes"]) == {"ko/ko", "en/en", "code/py"}
    assert set(result["confirmation"]["measured_bytes"]) == {"ko/web", "ko/ko", "en/en"}
    assert set(result["confirmation"]["ratio"]) == {"plain", "superbpe"}
    assert result["trained_on_bytes"] == {"ko": kept.counts["a/ko"], "en": kept.counts["a/en"]}
    for language in ("ko", "en", "code"):
        own, peer = (
            result[side][name][language]["tokens_per_word"] for side, name in (("ours", "plain"), ("peers", "small"))
        )
        assert result["ratio"]["plain"][language] == pytest.approx(peer / own)
    assert result["ratio"]["plain"]["en"] > 1, "more merges of the same words"
    assert result["ratio"]["superbpe"]["en_equal_vocabulary"] == result["ratio"]["superbpe"]["en"]


def test_no_source_is_on_two_sides() -> None:
    sides = (compression.TRAINED, compression.HELD_OUT, compression.CONFIRMATION)
    assert len({source for side in sides for source in side}) == sum(map(len, sides))


def test_what_is_held_out_is_a_fiftieth_and_depends_on_the_id_alone() -> None:
    chosen = [number for number in range(20_000) if tokenizer_variants.is_held_out(f"doc-{number}")]
    assert 300 < len(chosen) < 500
    assert chosen == [number for number in range(20_000) if tokenizer_variants.is_held_out(f"doc-{number}")]
