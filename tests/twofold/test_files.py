"""Files are whole or absent; a full disk is an error with a hint."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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
