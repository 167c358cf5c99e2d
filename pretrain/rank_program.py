"""What the programs that a launcher starts on every rank have in common: their arguments and how they end."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from pretrain import layout
from pretrain.engine.distributed import OtherRankFailed
from twofold.errors import UserError
from twofold.exit_codes import EXIT_CODE_FAILED, EXIT_CODE_USER_ERROR
from twofold.files import as_user_error, read_json, world_problem


def exit_code_of(program: Callable[[], int], out: Path) -> int:
    """Run `program`; if a user's error ends it, leave error.json in `out` and return EXIT_CODE_USER_ERROR.

    A file system that failed for longer than our patience ends it with one line and EXIT_CODE_FAILED, so that the
    supervisor starts it again.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.environ.update(read_json(out / layout.ENVIRONMENT_FILE))
        return program()
    except UserError as error:
        layout.write_error(out, error)
        return EXIT_CODE_USER_ERROR
    except OtherRankFailed:
        return EXIT_CODE_USER_ERROR
    except OSError as error:
        if refused := as_user_error(error):
            layout.write_error(out, refused)
            return EXIT_CODE_USER_ERROR
        if problem := world_problem(error):
            traceback.print_exc()
            print(problem, file=sys.stderr)
            return EXIT_CODE_FAILED
        raise


def parser(name: str, description: str, **folders: str) -> argparse.ArgumentParser:
    """A parser with the arguments of every program, and with a required one per input folder (name = help)."""
    found = argparse.ArgumentParser(prog=name, description=description)
    found.add_argument("--recipe", type=Path, required=True, help="resolved recipe (YAML)")
    for folder, text in folders.items():
        found.add_argument(f"--{folder}", type=Path, required=True, help=text)
    found.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    found.add_argument("--local_rank", type=int, help="appended by DeepSpeed's launcher; LOCAL_RANK is what counts")
    return found
