"""`twofold`: the command line. The commands themselves are declared in launch/commands/.

Contract: the exit code is 0 when done; 2 for anything that the user can fix, with one line per problem and never
a traceback; 75 when training was interrupted after saving; 1 when the trainer failed by itself.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from rich.markup import escape

from launch import terminal
from launch.commands import GROUPS, Command, all_commands
from launch.outcomes import Interrupted, TrainingFailed
from twofold import VERSION
from twofold.errors import UserError, nearest, user_error
from twofold.exit_codes import EXIT_CODE_FAILED, EXIT_CODE_KEYBOARD, EXIT_CODE_STOPPED, EXIT_CODE_USER_ERROR
from twofold.files import as_user_error, world_problem

_RENAMED = {
    "why": "explain",
    "check": "validate",
    "verify-resume": "resume-test",
    "average": "merge",
    "trace": "inspect-batch",
    "pack": "tokenize",
    "calibrate": "tune-thresholds",
    "decide": "filter",
}
"""Old name of a command -> its new one. The old `tokenize` is `inspect-tokens`; `pack` is `tokenize` now."""


class _Parser(argparse.ArgumentParser):
    """Reports mistakes as everything else here does: one line with a hint."""

    def error(self, message: str) -> NoReturn:
        hint = f"see `{self.prog} --help`"
        if unknown := re.match(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message):
            word, near = unknown.group(1), nearest(unknown.group(1), re.findall(r"[\w-]+", unknown.group(2)))
            raise user_error(
                f"twofold {word}", None, "is not a command", f"did you mean `twofold {near[0]}`?" if near else hint
            )
        # Overrides are optional, but argparse lists them among the missing words.
        raise user_error(self.prog, None, message.replace("RECIPE, key=value", "RECIPE"), hint)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        options = _options(arguments)
        terminal.configure(options.quiet, options.verbose)
        return options.command.run(options, terminal.OUT) or 0
    except UserError as error:
        return _report(error)
    except BrokenPipeError:  # `twofold … | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CODE_FAILED
    except OSError as error:
        if refused := as_user_error(error):
            return _report(refused)
        if problem := world_problem(error):
            return _report(UserError(problem), EXIT_CODE_FAILED)
        raise
    except Interrupted as stop:
        terminal.ERRORS.print(f"[yellow]interrupted[/yellow]: {escape(str(stop))}")
        return EXIT_CODE_STOPPED
    except TrainingFailed as failure:
        terminal.ERRORS.print(f"[bold red]training failed[/bold red]\n{escape(str(failure))}")
        return EXIT_CODE_FAILED
    except KeyboardInterrupt:
        terminal.ERRORS.print("[yellow]interrupted[/yellow]: finished stages are kept; run the same command to resume")
        return EXIT_CODE_KEYBOARD


def _report(error: UserError, code: int = EXIT_CODE_USER_ERROR) -> int:
    for problem in error.problems:
        terminal.ERRORS.print(f"[bold red]error[/bold red]: {escape(str(problem))}", soft_wrap=True)
    return code


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; overrides may stand before and after options, which argparse alone refuses."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in _RENAMED:
        raise user_error(f"twofold {words[0]}", None, "renamed", f"use twofold {_RENAMED[words[0]]}")
    parser = new_parser()
    options, rest = parser.parse_known_args(words)
    if any(word.startswith("-") or "=" not in word for word in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides = [*options.overrides, *rest]
    return options


def new_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    commands = all_commands()
    parser = _Parser(
        prog="twofold",
        description="Pre-train a Korean-English language model, from raw documents to an exported model.",
        epilog=_overview(commands),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"twofold {VERSION}")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", title="commands", help="one of those below")
    for command in commands:
        command.add_to(parsers)
    return parser


def _overview(commands: Sequence[Command]) -> str:
    """The commands by group."""
    lines = []
    for group, title in GROUPS.items():
        lines += [f"{title}:", *(f"  {one.name:<20}{one.help}" for one in commands if one.group == group), ""]
    return "\n".join([*lines, "`twofold COMMAND --help` shows a command's options and an example."])


if __name__ == "__main__":
    sys.exit(main())
