"""The program's first moments: foreign packages and an early Ctrl-C take one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch import main as program
from tests.conftest import ROOT

START = "import sys; from launch.main import main; sys.exit(main())"


@pytest.mark.parametrize("name", ["configs", "twofold", "tokenizer"])
def test_a_namesake_on_the_path_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", START, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: package {name} = '{tmp_path / name}")
    assert done.stderr.count("\n") == 1
    assert "Hint: remove that folder from PYTHONPATH" in done.stderr


def test_our_own_packages_are_no_namesakes() -> None:
    assert program.namesake() is None


def test_an_early_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "namesake", interrupt)
    assert program.main() == 130
    assert capsys.readouterr().err == "interrupted\n"
