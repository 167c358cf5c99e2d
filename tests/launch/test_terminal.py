"""What the command line prints on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch import terminal


def test_nothing_is_cut_outside_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    identity = "source/" + "x" * 300
    terminal.new_console().print(identity)
    assert capsys.readouterr().out == identity + "\n"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.new_console().no_color


def test_quiet_prints_errors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_verbose", False)
    monkeypatch.setattr(terminal.OUT, "quiet", False)
    terminal.configure(quiet=True, verbose=False)
    assert terminal.OUT.quiet
    assert not terminal.ERRORS.quiet


def test_json_holds_korean_as_it_is_and_bytes_as_hexadecimal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"text": "글", "hash": b"\x0a", "path": Path("a")})
    assert json.loads(capsys.readouterr().out) == {"text": "글", "hash": "0a", "path": "a"}
