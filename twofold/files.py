"""Atomic file writes, and reads that outlast a file system which fails for a while.

Contract: `atomic_path` and `write_json` write beside the target, sync, then rename, so a reader never sees half a
file. A full disk or a forbidden folder becomes a `UserError`, and the partial file is removed.

A passing failure (a stale handle, a server that does not answer, too many open files) says nothing about the file:
`patiently` tries the read again for a bounded time and then raises the `OSError` itself, which a program reports by
`world_problem` with an exit code on which it is started again. Only a missing or wrong file is the user's.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from twofold.errors import Problem, UserError, user_error

HASHES_FILE = ".hashes.json"
"""In a run folder: the hashes of files from outside."""
PARTIAL_PATTERN = ".*.partial-*"
"""Names of files that `atomic_path` was writing when the process was killed."""
_HINTS = {
    errno.ENOSPC: ("the disk is full", "free some space or set run_dir to a larger disk, then run again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or set run_dir elsewhere, then run again"),
    errno.EACCES: ("is not accessible to this user", "grant the permission or name another path"),
    errno.EPERM: ("is not accessible to this user", "grant the permission or name another path"),
    errno.ENOTDIR: ("leads through a file, not a folder", "name another path, or move the file away"),
    errno.EEXIST: ("is a file where a folder must be", "name another path, or move the file away"),
    errno.EISDIR: ("is a folder where a file must be", "name a file, such as one in that folder"),
    errno.EROFS: ("lies on a read-only file system", "name a writable path"),
}
_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "EINTR", "EIO", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EREMOTEIO", "ESTALE"),
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET"),
        *("ENETUNREACH", "ENOLINK", "ENOTCONN", "ESHUTDOWN", "ETIMEDOUT"),
    )
)
"""Errors of a network, a server or a machine that may be gone a moment later."""
_PATIENCE_S = 60.0
_FIRST_WAIT_S = 0.1
_SETTLED_S, _REMEMBERED_EVERY_S = 2.0, 60.0
_LONGEST_WAIT_S = 5.0
_Given = ParamSpec("_Given")
_T = TypeVar("_T")


def patiently(read: Callable[_Given, _T], *arguments: _Given.args, **named: _Given.kwargs) -> _T:
    """What `read` returns; while it meets passing failures, it is called again, for at most a minute."""
    wait, end = _FIRST_WAIT_S, time.monotonic() + _PATIENCE_S
    while True:
        try:
            return read(*arguments, **named)
        except OSError as error:
            if not is_passing(error) or time.monotonic() + wait > end:
                raise
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_S)


def is_passing(error: OSError) -> bool:
    """Whether the error says nothing about the file, and may be gone a moment later."""
    return error.errno in _PASSING


def world_problem(error: OSError) -> Problem | None:
    """A passing failure that outlasted our patience, as one line; None for any other error."""
    if not is_passing(error):
        return None
    where = str(error.filename or "file system")
    problem = f"cannot be reached: {error.strerror} (tried for {_PATIENCE_S:.0f} s)"
    return Problem(where, None, problem, "check the file system and this machine's limits, then run the same command")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, read patiently."""
    return patiently(path.read_text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value in a JSON file, read patiently; `ValueError` if it is not JSON."""
    return json.loads(read_text(path))


def size_of(path: Path | str) -> int | None:
    """Bytes of a file, asked patiently; None if it is not there."""
    try:
        return patiently(os.stat, path).st_size
    except FileNotFoundError:
        return None


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` when the block succeeds."""
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        with disk_errors(target):
            make_folder(target.parent)
            yield partial
            sync(partial)
            os.replace(partial, target)
            sync(target.parent)
    finally:
        with suppress(OSError):  # there is no such folder: the error says so
            partial.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; a `UserError` where none can be made, such as in /proc."""
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            raise user_error(str(folder), None, "cannot be made there", "name another path") from None


def write_json(target: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    with atomic_path(target) as path:
        path.write_text(text + "\n", encoding="utf-8")


def write_private(target: Path, text: str) -> None:
    """Write a file that only its owner may read, atomically."""
    with atomic_path(target) as path:
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read patiently, at about 1 GB/s."""

    def digest() -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    return patiently(digest)


def remembered_sha256(paths: Sequence[Path], memory: Path) -> list[str]:
    """`sha256_of` each file on all cores, computed once for each size and time of change; `memory` is a JSON file.

    The hash of a file that changed just now is not remembered: it may change again within the clock's resolution.
    """
    known: dict[str, str] = {}
    with suppress(OSError, ValueError):
        known = json.loads(memory.read_text(encoding="utf-8"))
    keys = [_state(path) for path in paths]
    unknown = [(key, path) for key, path in zip(keys, paths, strict=True) if key not in known]
    found: dict[str, str] = {}
    written = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for (key, path), sha256 in zip(unknown, threads.map(sha256_of, [path for _, path in unknown]), strict=True):
            found[key] = sha256
            if time.time() - path.stat().st_mtime > _SETTLED_S:
                known[key] = sha256
            if path is unknown[-1][1] or time.monotonic() - written > _REMEMBERED_EVERY_S:
                written = time.monotonic()
                _remember(known, memory)
    return [known.get(key) or found[key] for key in keys]


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"


def _remember(known: dict[str, str], memory: Path) -> None:
    if known and memory.parent.is_dir():
        with suppress(UserError):  # a folder that may only be read
            write_json(memory, known)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors that a user can fix into a `UserError` naming `path`."""
    try:
        yield
    except OSError as error:
        refused = as_user_error(error, path)
        if refused is None:
            raise
        raise refused from error


def as_user_error(error: OSError, path: Path | None = None) -> UserError | None:
    """The `UserError` for a full disk, a quota or a permission; None for any other error."""
    # numpy reports a short write without the system's error number.
    short_write = error.errno is None and "requested and" in str(error)
    number = errno.ENOSPC if short_write else error.errno
    if number not in _HINTS:
        return None
    problem, hint = _HINTS[number]
    return user_error(str(path or error.filename or "disk"), None, problem, hint)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
