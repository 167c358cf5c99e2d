"""Locations of raw files: local paths, and any other address through fsspec (imported only here).

Contract: a `Location` is a `Path`, or an address with a protocol (`s3://bucket/x`, `gs://…`, `memory://…`);
`file://…` becomes a `Path`, so local files never need fsspec. Every error of a remote file system is raised as
an `OSError`; `Unreachable` also carries a hint, and a lost connection is a failure that may pass, not damage. Each
protocol's package finds credentials in its own way (environment, profile, fsspec's configuration). Memory: fsspec
reads ahead by one block (about 5 MB) per stream.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Location = Path | str

_BUFFER_BYTES = 1 << 20
_LOCAL_PREFIXES = ("file://", "local://")
_MARKS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "modified", "created")
"""File systems' names for a property that changes with a file, most reliable first."""
_HINT = "correct the address or the access to it"


class Unreachable(OSError):
    """A remote address cannot be used. With `errno`, the failure may pass (`twofold.files.is_passing`)."""

    def __init__(self, problem: str, hint: str, number: int | None = None) -> None:
        self.problem, self.hint = problem, hint
        super().__init__(*([problem] if number is None else [number, problem]))

    def __reduce__(self) -> tuple[type[Unreachable], tuple[str, str, int | None]]:
        return (type(self), (self.problem, self.hint, self.errno))


@dataclass(frozen=True)
class Entry:
    """One remote file: its full address, its path below the listed address, and its size."""

    location: str
    relative: str
    bytes: int


def locate(address: str) -> Location:
    """A `Path` if the address is local, else the address unchanged."""
    for prefix in _LOCAL_PREFIXES:
        if address.startswith(prefix):
            return Path(address.removeprefix(prefix))
    return address if "://" in address else Path(address)


def open_binary(location: Location) -> io.BufferedReader:
    """A buffered, seekable stream; the caller closes it."""
    if isinstance(location, Path):
        return location.open("rb")
    with _as_os_errors(location):
        system, path = _file_system(location)
        return io.BufferedReader(_Remote(system.open(path, "rb"), location), _BUFFER_BYTES)


def exists(location: Location) -> bool:
    """Whether the location exists; False if its file system cannot be reached."""
    if isinstance(location, Path):
        return location.exists()
    try:
        with _as_os_errors(location):
            system, path = _file_system(location)
            return bool(system.exists(path))
    except OSError:
        return False


def is_file(address: str) -> bool:
    """Whether a remote address is a file rather than a folder."""
    with _as_os_errors(address):
        system, path = _file_system(address)
        return bool(system.isfile(path))


def find(address: str) -> list[Entry]:
    """Every file at or below a remote address, in any order."""
    with _as_os_errors(address):
        system, root = _file_system(address)
        system.invalidate_cache()  # a listing may be from before this run
        found: Mapping[str, Mapping[str, Any]] = system.find(root, detail=True)
        return [
            Entry(system.unstrip_protocol(path), _below(path, root), int(info.get("size") or 0))
            for path, info in found.items()
            if info.get("type") != "directory"
        ]


def content_hash(location: Location) -> str:
    """Hex SHA-256 of the file's bytes."""
    with open_binary(location) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def modification_mark(location: Location) -> str:
    """An entity tag or time that changes with the file, found without reading it."""
    if isinstance(location, Path):
        return str(location.stat().st_mtime_ns)
    with _as_os_errors(location):
        system, path = _file_system(location)
        info = system.info(path)
    for name in _MARKS:
        if info.get(name):
            return str(info[name])
    raise Unreachable("has neither entity tag nor time", "set data.extract.fingerprint: content")


class _Remote(io.RawIOBase):
    """An fsspec file that raises only `OSError`."""

    def __init__(self, file: Any, address: str) -> None:
        self._file, self._address = file, address

    def readinto(self, buffer: Any) -> int:
        with _as_os_errors(self._address):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _as_os_errors(self._address):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _file_system(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    system, path = url_to_fs(address)
    return system, str(path)


def _below(path: str, root: str) -> str:
    """`path` relative to the listed folder, or its name if the address is the file itself."""
    base = root.rstrip("/")
    return path.rsplit("/", 1)[-1] if path == base else path.removeprefix(base).lstrip("/")


@contextmanager
def _as_os_errors(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is not None or not isinstance(error, (TimeoutError, ConnectionError)):
            raise
        raise Unreachable(f"{type(error).__name__}: {error}", _HINT, errno.ETIMEDOUT) from error
    except ImportError:
        package = _package_of(address)
        raise Unreachable(f"needs the package {package}, which is not installed", f"pip install {package}") from None
    except Exception as error:  # each protocol's package has its own exceptions
        raise Unreachable(f"{type(error).__name__}: {error}", _HINT, errno.EIO) from error


def _package_of(address: str) -> str:
    """The package to install for an address's protocol; fsspec's own file systems are extras of it."""
    from fsspec.registry import known_implementations

    protocol = address.split("://", 1)[0]
    package = known_implementations[protocol]["class"].split(".", 1)[0]
    extra = "http" if protocol == "https" else protocol
    return f"fsspec[{extra}]" if package == "fsspec" else package
