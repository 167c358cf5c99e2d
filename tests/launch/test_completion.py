"""The completion scripts name every command, its options and the shipped recipes, and shells accept them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from launch.cli import main
from launch.commands import all_commands


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_there(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)
    assert all(command.name in text for command in all_commands())
    assert "--until" in text
    assert "exaone3_7p8b" in text
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["twofold", "tra"], ["train-tokenizer", "train-classifier"]),
        (["twofold", "run", "smo"], ["smoke"]),
        (["twofold", "run", "smoke", "--un"], ["--until"]),
    ],
)
def test_bash_completes(words: list[str], completed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    press = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _twofold; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", script("bash", capsys) + press], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted(completed)
