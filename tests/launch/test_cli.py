"""How the command line reads its words."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from launch import commands as commands_package
from launch.cli import _options, main
from launch.commands import GROUPS, all_commands
from tests.conftest import ROOT
from twofold.errors import UserError


@pytest.mark.parametrize(
    "words",
    [
        ["run", "r.yaml", "seed=7", "name=x", "--until", "extract"],
        ["run", "r.yaml", "--until", "extract", "seed=7", "name=x"],
        ["run", "r.yaml", "seed=7", "--until", "extract", "name=x"],
    ],
)
def test_overrides_may_stand_before_and_after_options(words) -> None:
    options = _options(words)
    assert (options.recipe, options.overrides, options.until) == ("r.yaml", ["seed=7", "name=x"], "extract")


@pytest.mark.parametrize("word", ["--nonsense", "-x"])
def test_an_unknown_option_is_refused(word) -> None:
    with pytest.raises(UserError, match=rf"{word}. Hint: see `twofold"):
        _options(["run", "r.yaml", word])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tokenise", "smoke"], "twofold tokenise: is not a command. Hint: did you mean `twofold tokenize`?"),
        (["frobnicate"], "twofold frobnicate: is not a command. Hint: see `twofold --help`."),
        (["validate"], "arguments are required: RECIPE. Hint: see `twofold validate --help`."),
        (["inspect-batch", "smoke", "--step", "x"], "Hint: see `twofold inspect-batch --help`."),
        (["run", "smoke", "-q", "-v"], "not allowed with argument"),
        ([], "are required: COMMAND"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(words: list[str], line: str) -> None:
    with pytest.raises(UserError) as refused:
        _options(words)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_command_is_listed_in_its_group_with_help_and_example(capsys) -> None:
    commands = all_commands()
    assert {"run", "validate", "schema"} <= {command.name for command in commands}
    with pytest.raises(SystemExit):
        _options(["--help"])
    overview = capsys.readouterr().out
    for command in commands:
        assert f"  {command.name:<20}{command.help}" in overview
        words = shlex.split(re.split(r" > |[()]", command.example.replace("source <(", ""))[0])
        assert words[:2] == ["twofold", command.name]
        _options(words[1:])  # the example is valid
    assert all(f"{title}:\n" in overview for title in GROUPS.values())


def test_a_new_module_registers_its_command(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "hello.py").write_text(
        "from launch.commands import Command\n"
        "COMMANDS = [Command('hello', 'data', 'greet', 'twofold hello smoke', lambda options, console: 5)]\n"
    )
    monkeypatch.setattr(commands_package, "__path__", [*commands_package.__path__, str(tmp_path)])
    assert main(["hello", "smoke"]) == 5
    sys.modules.pop("launch.commands.hello")


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "datatrove", "pyarrow", "numpy", "numba", "matplotlib", "tokenizers", "pydantic", "yaml")
    script = (
        "import sys; from launch.cli import _options, all_commands; all_commands(); "
        f"sys.exit(', '.join(name for name in {heavy} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, ""), done.stderr
