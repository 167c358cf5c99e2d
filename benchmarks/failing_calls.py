"""File-system calls of this process that fail as a test or benchmarks/survival.py decides.

Contract: within `failing_calls(root, decide)`, each call below `root` of those in `CALLS` first asks
`decide(call, path)`, which may raise an `OSError`, end the process, wait, return a function that changes the call's
result, or do nothing. Files are opened for reading (`read`) or writing (`write`). Calls that native code makes by
itself (safetensors, Arrow) are not seen.
"""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

Decide = Callable[[str, str], Callable[[Any], Any] | None]
READS = ("read", "stat", "listdir", "scandir")
WRITES = ("write", "fsync", "replace", "rename", "mkdir", "unlink")
CALLS = (*READS, *WRITES)
_BY_NAME = ("stat", "listdir", "scandir", "replace", "rename", "mkdir", "unlink")


@contextmanager
def failing_calls(root: Path, decide: Decide) -> Iterator[None]:
    """Let `decide` see every call on a path below `root`."""
    below, real_open, real_fsync = f"{root.resolve()}{os.sep}", io.open, os.fsync

    def ask(call: str, path: Any) -> Callable[[Any], Any]:
        if isinstance(path, (str, os.PathLike)):
            name = os.path.abspath(os.fspath(path))
            if f"{name}{os.sep}".startswith(below):
                return decide(call, name) or _as_it_is
        return _as_it_is

    def opened(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        ask("write" if set(mode) & set("wax+") else "read", file)
        return real_open(file, mode, *arguments, **named)

    def synced(descriptor: int) -> None:
        ask("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        real_fsync(descriptor)

    def named(call: str) -> Callable[..., Any]:
        real = getattr(os, call)

        def asked(path: Any = ".", *arguments: Any, **named: Any) -> Any:
            change = ask(call, path)
            return change(real(path, *arguments, **named))

        return asked

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(builtins, "open", opened))
        stack.enter_context(mock.patch.object(io, "open", opened))
        stack.enter_context(mock.patch.object(os, "fsync", synced))
        for call in _BY_NAME:
            stack.enter_context(mock.patch.object(os, call, named(call)))
        yield


def _as_it_is(result: Any) -> Any:
    return result


class Once:
    """A `Decide` that raises errors of the system at the calls with given numbers, counted from 1."""

    def __init__(self, error: int, numbers: range, calls: tuple[str, ...] = READS) -> None:
        self.seen, self._error, self._numbers, self._calls = 0, error, numbers, calls

    def __call__(self, call: str, path: str) -> None:
        if call in self._calls:
            self.seen += 1
            if self.seen in self._numbers:
                raise OSError(self._error, os.strerror(self._error), path)
