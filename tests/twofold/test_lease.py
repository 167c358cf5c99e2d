"""One process at a time writes into a folder, whatever the file system can do and however the holder ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from twofold import lease
from twofold.errors import UserError

HOLDER = """
import sys, pathlib
from twofold import lease
folder = pathlib.Path(sys.argv[1])
with lease.hold(folder / ".lock", "run_dir", folder, print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def _take(folder: Path, told: list[str]) -> None:
    with lease.hold(folder / ".lock", "run_dir", folder, told.append):
        pass


def test_the_second_is_refused_by_name(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        _take(tmp_path, [])
    told = str(caught.value)
    assert f"is in use by process {holder.pid} on {socket.gethostname()} since 2" in told
    assert "Hint: wait for it" in told


def test_the_lease_ends_with_its_holder_however_it_dies(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    assert lease.is_held(tmp_path / ".lock")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not lease.is_held(tmp_path / ".lock")
    _take(tmp_path, [])


def test_nobody_holds_a_lease_that_was_never_taken_or_was_given_back(tmp_path: Path) -> None:
    assert not lease.is_held(tmp_path / ".lock")
    _take(tmp_path, [])
    assert not lease.is_held(tmp_path / ".lock")
    assert (tmp_path / ".lock").read_text() == ""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_warning_is_given_and_a_living_holder_of_this_host_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    told: list[str] = []
    _take(tmp_path, told)
    assert "has no locks" in told[0]
    assert not lease.is_held(tmp_path / ".lock")
    (tmp_path / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": os.getppid(), "since": "now"}))
    with pytest.raises(UserError, match=f"process {os.getppid()}"):
        _take(tmp_path, [])
    (tmp_path / ".lock").write_text('{"host": "cut o')
    _take(tmp_path, [])


def test_another_error_of_the_file_system_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output"):
        _take(tmp_path, [])
