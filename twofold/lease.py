"""A lease: the right to write into a folder, held by one process at a time.

Contract: `hold` locks a file for as long as its block runs; the system releases the lock when the process dies,
however it dies. The file names the holder (host, process, since when), and whoever is refused is told so. Locks
reach other hosts where the file system passes them on (NFS, GPFS, Lustre with `flock`). Where it has none, only a
holder on the same host is seen, and `warn` says so.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

from twofold.errors import UserError, user_error
from twofold.files import disk_errors, make_folder

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
Outcome = Literal["locked", "taken", "no locks"]


@contextlib.contextmanager
def hold(path: Path, field: str, folder: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold the lease on `folder`, whose file is `path`; a `UserError` of `field` if another process holds it."""
    make_folder(path.parent)
    with disk_errors(folder):
        file = path.open("a+", encoding="utf-8")
    with file:
        outcome = _lock(file, fcntl.LOCK_EX)
        if outcome == "no locks":
            warn(f"the file system of {folder} has no locks: start no second run there from another host")
        if outcome == "taken" or (outcome == "no locks" and _runs_here(_holder(file))):
            raise _refused(_holder(file), field, folder)
        _write_holder(file)
        try:
            yield
        finally:
            file.truncate(0)


def is_held(path: Path) -> bool:
    """Whether a process holds the lease of this file; False where that cannot be told."""
    try:
        file = path.open(encoding="utf-8")
    except FileNotFoundError:
        return False
    with file:
        return _lock(file, fcntl.LOCK_SH) == "taken"


def _lock(file: TextIO, kind: int) -> Outcome:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return "taken"
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return "no locks"
        raise
    return "locked"


def _write_holder(file: TextIO) -> None:
    since = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    file.truncate(0)
    file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}))
    file.flush()


def _holder(file: TextIO) -> dict[str, Any]:
    """Who wrote the file; empty if nobody did, or if its line is cut."""
    file.seek(0)
    with contextlib.suppress(ValueError):
        found = json.loads(file.read())
        if isinstance(found, dict):
            return found
    return {}


def _runs_here(holder: dict[str, Any]) -> bool:
    """Whether the holder is another process of this host that is alive."""
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int) or pid == os.getpid():
        return False
    return Path(f"/proc/{pid}").exists()


def _refused(holder: dict[str, Any], field: str, folder: Path) -> UserError:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown host')}"
    since = f" since {holder['since']}" if "since" in holder else ""
    return user_error(field, str(folder), f"is in use by {who}{since}", "wait for it, end it, or set another run_dir")
