"""`twofold compare-tokenizers`: the page, the JSON, the table, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from configs.recipe import load_recipe
from launch.actions import compare_tokenizers as command
from launch.cli import main
from launch.reports import tokenizers
from tests.launch.conftest import SMOKE, twofold
from twofold.errors import UserError, user_error


@pytest.fixture(scope="module")
def run_dir(packed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packed run, since the page is written into it."""
    copy = tmp_path_factory.mktemp("compared") / "run"
    shutil.copytree(packed_run, copy, symlinks=True)
    return copy


@pytest.fixture(scope="module")
def peers(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's own tokenizer under another name, which breaks out of HTML if it can, and half of it."""
    folder = tmp_path_factory.mktemp("peers")
    shutil.copy(run_dir / "tokenizer" / "tokenizer.json", folder / "<b>same.json")
    raw = json.loads((run_dir / "tokenizer" / "tokenizer.json").read_text())
    merges = raw["model"]["merges"]
    kept, first = len(merges) // 2, len(raw["model"]["vocab"]) - len(merges)
    vocabulary = {token: number for token, number in raw["model"]["vocab"].items() if number < first + kept}
    raw["model"] |= {"merges": merges[:kept], "vocab": vocabulary}
    (folder / "half").mkdir()
    (folder / "half" / "tokenizer.json").write_text(json.dumps(raw))
    return folder


@pytest.fixture(scope="module")
def found(run_dir: Path, peers: Path) -> dict[str, Any]:
    """What the command writes, of a run whose shards are made."""
    code, out, err = twofold("compare-tokenizers", str(SMOKE), f"run_dir={run_dir}", "--with", str(peers))
    assert (code, err) == (0, "")
    assert "2,048" in out
    assert str(run_dir / "tokenizers.html") in out
    result: dict[str, Any] = json.loads((run_dir / "tokenizers.json").read_text())
    return result


def test_the_same_tokenizer_gets_the_same_figures(found: dict[str, Any]) -> None:
    rows = found["tokenizers"]
    assert list(rows) == ["smoke", "<b>same", "half"]
    assert rows["<b>same"] == rows["smoke"]
    for language in ("ko", "en", "code"):
        own, half = (rows[name]["compression"][language]["all"] for name in ("smoke", "half"))
        assert own["tokens_per_word"] < half["tokens_per_word"]
        assert found["curve"][language]["tokens_per_word"][-2:] == [half["tokens_per_word"], own["tokens_per_word"]]
    assert rows["smoke"]["nfd_penalty"] > 2
    assert found["text"]["held_out"]
    assert found["usage"]["tokens"] == 1_760


def test_examples_give_their_text_back(found: dict[str, Any]) -> None:
    labels = [example["label"] for example in found["examples"]]
    assert labels[: len(command.EXAMPLES)] == list(command.EXAMPLES)
    assert "held-out text: ko" in labels
    for example in found["examples"]:
        for pieces in example["cuts"].values():
            assert "".join(pieces).isprintable()
    english = next(example for example in found["examples"] if example["label"] == "English")
    plain = "".join(english["cuts"]["smoke"]).encode()
    assert plain.startswith(b"Tokenization isn't")


def test_the_page_is_self_contained_and_escaped(run_dir: Path, found: dict[str, Any]) -> None:
    page = (run_dir / "tokenizers.html").read_text()
    assert "<b>same" not in page
    assert "&lt;b&gt;same" in page
    assert "<script" not in page
    assert not re.search(r"src=|<link|<img|@import|href=.?http", page)
    assert "default-src 'none'" in page
    for title in ("Compression", "How text is split", "Vocabulary size", "Korean", "Vocabulary usage in training"):
        assert title in page
    assert tokenizers.render(found) == page, "the JSON is all that the page needs"


def test_the_best_other_is_named_with_the_difference(found: dict[str, Any]) -> None:
    cards = {label for _, label in tokenizers.cards(found, {"ko": "Korean"})}
    assert "Korean: tokens per word, 0.0% more than <b>same, the best other" in cards
    assert [row["name"] for row in tokenizers.compression_rows(found, "ko")] == ["<b>same", "smoke", "half"]


def test_texts_of_ones_own_without_mecab_or_shards(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise user_error("tokenizer.morphemes", "mecab", "does not exist", "install it")

    shutil.copytree(run_dir, tmp_path / "run", symlinks=True)
    shutil.rmtree(next((tmp_path / "run" / "artifacts").glob("shards-*")))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("항구의 배 세 척")
    monkeypatch.setattr("tokenizer.training.morphemes.analyser", missing)
    recipe = load_recipe(SMOKE, [f"run_dir={tmp_path / 'run'}"])
    target = tmp_path / "out" / "page.html"
    command.compare_tokenizers(recipe, None, tmp_path / "texts", target, Console(quiet=True))
    result = json.loads(target.with_suffix(".json").read_text())
    assert list(result["tokenizers"]) == ["smoke"]
    assert list(result["tokenizers"]["smoke"]["compression"]) == ["ko"]
    assert result["no_morphemes"] == "Not measured: MeCab does not exist."
    assert result["tokenizers"]["smoke"]["morphemes"] is None
    assert result["usage"] is None
    assert not result["text"]["held_out"]
    assert "are not built yet" in target.read_text()
    assert "Not measured: MeCab does not exist." in target.read_text()


def test_texts_without_korean_are_measured_as_well(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the boats of the harbour")
    recipe = load_recipe(SMOKE, [f"run_dir={run_dir}"])
    stream = io.StringIO()
    target = tmp_path / "page.html"
    command.compare_tokenizers(recipe, None, tmp_path / "a.txt", target, Console(file=stream, width=100))
    assert "The measured text has no Korean" in target.read_text()
    assert "tokenizers, on 24 B of text" in stream.getvalue()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--with", "{tmp}/absent"], "holds no tokenizer"),
        (["--with", "{tmp}/broken"], "x.json: is not a tokenizer.json"),
        (["--with", "{tmp}/same"], "is also the recipe's own name"),
        (["--text", "{tmp}/absent"], "does not exist"),
        (["--text", "{tmp}/empty.txt"], "has nothing to measure"),
    ],
)
def test_mistakes_are_told(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.json").write_text("{")
    (tmp_path / "same").mkdir()
    shutil.copy(run_dir / "tokenizer" / "tokenizer.json", tmp_path / "same" / "smoke.json")
    (tmp_path / "empty.txt").write_text(" ")
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    assert main(["compare-tokenizers", str(SMOKE), f"run_dir={run_dir}", *given]) == 2
    assert problem in capsys.readouterr().err


def test_a_mistake_is_told_before_anything_is_made(tmp_path: Path) -> None:
    recipe = load_recipe(SMOKE, [f"run_dir={tmp_path / 'run'}"])
    with pytest.raises(UserError, match="does not exist"):
        command.compare_tokenizers(recipe, None, tmp_path / "absent", None, Console(quiet=True))
    assert not (tmp_path / "run").exists()
