"""`twofold train-tokenizer`, `tokenize` and `inspect-tokens`: what they show, and what never reaches the terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from configs.recipe import load_recipe
from launch.actions.tokenizer import characters, inspect_tokens, tokenize, train_tokenizer
from launch.cli import _options, main
from tests.launch.conftest import SMOKE, twofold
from twofold.errors import UserError


def recorded() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=160, highlight=False), stream


def test_the_tokenizer_and_the_shards_are_shown(packed_run: Path) -> None:
    recipe = load_recipe(SMOKE, [f"run_dir={packed_run}"])
    console, stream = recorded()
    train_tokenizer(recipe, console)
    tokenize(recipe, console)
    shown = stream.getvalue()
    assert "2,048 ids, 1,760 of them merges" in shown
    assert "tokens per word" in shown
    assert "tokenizer.tiktoken" in shown
    assert "medicine" in shown
    assert "bytes per token" in shown


def test_a_text_is_shown_by_pieces(packed_run: Path) -> None:
    console, stream = recorded()
    inspect_tokens("r.yaml", load_recipe(SMOKE, [f"run_dir={packed_run}"]), "도서관은 the 뷁", console)
    shown = stream.getvalue()
    assert "도서관은 the" in shown
    assert "␣the" in shown
    assert "<eb>" in shown, "a part of a character that has no token"
    assert "eb b7 81" not in shown
    assert " 10 characters, 20 bytes, 3 words" in shown


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        (b"a b", "a␣b"),
        ("가".encode(), "가"),
        ("가".encode()[:2], "<ea><b0>"),
        ("가나".encode()[2:5], "<80><eb><82>"),
        (b"\x1b[31m\x00\r\n", r"\x1b[31m\x00\r\n"),
        ("\u202e\u2028\x85\ufeff".encode(), r"\u202e\u2028\x85\ufeff"),
        ("[red]👩".encode(), "[red]👩"),
        (b"\xff\xc0", "<ff><c0>"),
    ],
)
def test_only_printable_characters_are_shown(piece: bytes, shown: str) -> None:
    assert "".join(characters(piece, blank="␣")) == shown
    assert shown.isprintable()


def test_markup_and_escapes_of_a_text_do_nothing(packed_run: Path) -> None:
    code, out, err = twofold("inspect-tokens", str(SMOKE), "[red]x[/red] \x1b[31m\x07\u202e", f"run_dir={packed_run}")
    assert (code, err) == (0, "")
    assert "[red]" in out.replace("\n", "")
    assert not set(out) & set("\x1b\x07\u202e")


def test_an_empty_text_has_no_token(packed_run: Path) -> None:
    console, stream = recorded()
    inspect_tokens("r.yaml", load_recipe(SMOKE, [f"run_dir={packed_run}"]), "", console)
    assert "0 tokens, 0 characters, 0 bytes, 0 words" in stream.getvalue()


def test_a_text_is_read_from_standard_input(
    packed_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("읽은 글"))
    assert main(["inspect-tokens", str(SMOKE), "-", f"run_dir={packed_run}"]) == 0
    assert "10 bytes, 2 words" in capsys.readouterr().out


def test_a_text_with_bytes_that_are_none_is_refused(packed_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect-tokens", str(SMOKE), "a\udcff", f"run_dir={packed_run}"]) == 2
    assert "holds a lone surrogate at 1" in capsys.readouterr().err


def test_a_text_may_look_like_an_override() -> None:
    options = _options(["inspect-tokens", "r.yaml", "seed=7", "name=x"])
    assert (options.text, options.overrides) == ("seed=7", ["name=x"])


def test_a_recipe_without_tokenizer_is_told_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"RECIPE = 'r.yaml': has no tokenizer yet. Hint: run `twofold train-tokenizer r.yaml`"
    ):
        inspect_tokens("r.yaml", load_recipe(SMOKE, [f"run_dir={tmp_path}"]), "x", Console(quiet=True))
