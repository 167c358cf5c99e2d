"""What the command line prints on: colours, width and how much is said.

Contract: colours and moving bars appear only in a terminal, and never with NO_COLOR (https://no-color.org). Outside of
a terminal nothing is wrapped or cut, unless COLUMNS says how wide the output is; progress is whole lines of text.
"""

from __future__ import annotations

import json
import os
from typing import Any

from rich.console import Console

_UNLIMITED = 10_000
"""Characters per line outside of a terminal."""
_verbose = False


def new_console(stderr: bool = False) -> Console:
    """A console on standard output or standard error."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _UNLIMITED
    return console


OUT = new_console()
ERRORS = new_console(stderr=True)


def configure(quiet: bool, verbose: bool) -> None:
    """Apply the options `-q` (print errors only) and `-v` (print details) to this process."""
    global _verbose
    OUT.quiet, _verbose = quiet, verbose


def verbose() -> bool:
    """Whether `-v` asks for details: every logged step of training."""
    return _verbose


def print_json(value: Any) -> None:
    """Print what `--json` asks for, even with `-q`; bytes as hexadecimal."""
    print(json.dumps(value, ensure_ascii=False, indent=1, default=lambda other: getattr(other, "hex", other.__str__)()))
