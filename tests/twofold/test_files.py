"""Files are whole or absent; a full disk is an error with a hint."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.failing_calls import Once, failing_calls
from twofold import files
from twofold.errors import Problem, UserError, user_error
from twofold.files import as_user_error, atomic_path, disk_errors, sha256_of, write_json


def test_a_failed_write_leaves_the_old_file_and_no_remains(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"a": 1})

    def fail() -> None:
        with atomic_path(target) as path:
            path.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == '{\n  "a": 1\n}\n'
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "not accessible"),
        (errno.EPERM, "not accessible"),
        (errno.EROFS, "read-only"),
        (errno.ENOTDIR, "leads through a file, not a folder"),
        (errno.EEXIST, "where a folder must be"),
    ],
)
def test_disk_errors_name_the_file_and_the_hint(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(UserError, match=words) as raised, disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path) in str(raised.value)
    assert "Hint: " in str(raised.value)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "none").read_text()
    assert as_user_error(OSError(errno.EIO, "broken")) is None


@pytest.mark.parametrize("write", [lambda path: path.write_bytes(b"x" * 10), lambda path: np.zeros(9999).tofile(path)])
def test_a_really_full_disk(tmp_path: Path, write: Callable[[Path], object]) -> None:
    def fill() -> None:
        with atomic_path(tmp_path / "full.bin") as path:
            path.symlink_to("/dev/full")
            write(path)

    with pytest.raises(UserError, match="the disk is full"):
        fill()
    assert os.listdir(tmp_path) == []


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b"")
    assert sha256_of(tmp_path / "e") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_user_error_survives_pickling_and_is_one_line_a_problem() -> None:
    error = UserError([Problem("a.b", "x" * 200, "is long", "shorten it"), Problem("c", None, "is odd", "even it")])
    copy = pickle.loads(pickle.dumps(error))
    assert copy.problems == error.problems
    first, second = str(copy).split("\n")
    assert len(first) < 140
    assert second == "c: is odd. Hint: even it."
    assert "\\n" in str(user_error("f", "a\nb", "p", "m"))


PASSING = [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN]


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(files, "time", clock)
    return clock


@pytest.mark.parametrize("number", PASSING)
@pytest.mark.parametrize("read", [files.read_text, files.size_of, sha256_of])
def test_a_read_outlasts_a_passing_failure(
    tmp_path: Path, clock: Clock, number: int, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "a"
    path.write_text("text")
    wanted = read(path)
    with failing_calls(tmp_path, Once(number, range(1, 6))):
        assert read(path) == wanted
    assert 0 < clock.now < 60


def test_patience_ends_with_the_systems_own_error_which_is_one_line(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "a"
    with failing_calls(tmp_path, Once(errno.ESTALE, range(1, 10**6))), pytest.raises(OSError, match="Stale") as raised:
        files.read_text(path)
    assert 50 < clock.now <= 60
    assert as_user_error(raised.value) is None
    assert str(files.world_problem(raised.value)) == (
        f"{path}: cannot be reached: Stale file handle (tried for 60 s). "
        "Hint: check the file system and this machine's limits, then run the same command."
    )


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EISDIR])
def test_what_waiting_does_not_mend_is_not_waited_for(tmp_path: Path, clock: Clock, number: int) -> None:
    with failing_calls(tmp_path, Once(number, range(1, 3))), pytest.raises(OSError, match=os.strerror(number)):
        files.read_text(tmp_path / "a")
    assert clock.now == 0
    assert files.world_problem(OSError(number, os.strerror(number))) is None


def test_a_user_error_crosses_processes_as_json() -> None:
    error = UserError([Problem("a.b", 3, "is wrong", "fix it"), Problem("c", Path("x"), "is gone", "find it")])
    assert str(UserError.from_json(json.loads(json.dumps(error.as_json())))) == (
        "a.b = 3: is wrong. Hint: fix it.\nc = 'x': is gone. Hint: find it."
    )


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("{folder}", "is a folder where a file must be. Hint: name a file"),
        ("/proc/nowhere/out.html", "cannot be made there. Hint: name another path"),
        ("/dev/null/out.html", "is a file where a folder must be. Hint: name another path"),
    ],
)
def test_a_place_that_can_hold_no_file_is_named(tmp_path: Path, target: str, line: str) -> None:
    with pytest.raises(UserError, match=line), atomic_path(Path(target.format(folder=tmp_path))) as path:
        path.write_text("text")
    assert list(tmp_path.parent.glob(".*partial*")) == []
