"""Shell completion: scripts for bash, zsh and fish that list commands, options and shipped recipes.

Contract: a script is made from the parser, and holds every word itself, so that pressing Tab starts no Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The completion script of `bash`, `zsh` or `fish`."""
    words = _words(parser)
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](words)


def _words(parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """Command -> its options and, if it takes a recipe, the shipped ones."""
    shipped = sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.yaml"))
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    found = {}
    for name, command in commands.choices.items():
        recipe = any(action.dest == "recipe" for action in command._actions)
        options = [option for action in command._actions for option in action.option_strings]
        found[name] = [*options, *(shipped if recipe else ())]
    return found


def _bash(words: Mapping[str, list[str]]) -> str:
    cases = "\n".join(f"    {name}) words='{' '.join(options)}' ;;" for name, options in words.items())
    return f"""# twofold completion bash > ~/.local/share/bash-completion/completions/twofold
_twofold() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} words
  case ${{COMP_WORDS[1]}} in
{cases}
    *) words='' ;;
  esac
  [ "$COMP_CWORD" -eq 1 ] && words='{" ".join(words)}'
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -o default -F _twofold twofold
"""


def _zsh(words: Mapping[str, list[str]]) -> str:
    cases = "\n".join(f"    {name}) compadd -- {' '.join(options)} ;;" for name, options in words.items())
    return f"""#compdef twofold
# twofold completion zsh > a folder of $fpath, as _twofold
_twofold() {{
  if (( CURRENT == 2 )); then
    compadd -- {" ".join(words)}
    return
  fi
  case $words[2] in
{cases}
  esac
  _files
}}
compdef _twofold twofold
"""


def _fish(words: Mapping[str, list[str]]) -> str:
    lines = ["# twofold completion fish > ~/.config/fish/completions/twofold.fish"]
    lines += [f"complete -c twofold -n __fish_use_subcommand -f -a '{' '.join(words)}'"]
    lines += [
        f"complete -c twofold -n '__fish_seen_subcommand_from {name}' -a '{' '.join(options)}'"
        for name, options in words.items()
    ]
    return "\n".join(lines) + "\n"
