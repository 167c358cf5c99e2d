"""What lies at a source's path: the files that are read, and everything else with the reason why it is not.

Contract: every name below a folder is either a file to read or counted in `passed_over`; hidden folders count as
one name and are not entered. Folders are walked once, whatever links lead to them (`loop -> .`), real folders
before links. Nothing here opens a file. Memory: one entry per file that is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_pipeline.readers import storage

HIDDEN, ENDING, DANGLING, WALKED, SPECIAL = (
    "hidden",
    "another ending",
    "link that leads nowhere",
    "link to a folder that was read",
    "no regular file",
)
"""Why a name is passed over."""
_EXAMPLES = 5


@dataclass(frozen=True)
class InputFile:
    """One raw file: its location, its name within the source, and its size."""

    location: storage.Location
    relative: str
    bytes: int


@dataclass
class Tally:
    """Names that were passed over for one reason."""

    files: int = 0
    bytes: int = 0
    examples: list[str] = field(default_factory=list)
    """The first few; of files with other endings one per ending."""


@dataclass
class Listing:
    """The files of a source, sorted by name, and a tally of the rest by reason."""

    files: list[InputFile] = field(default_factory=list)
    passed_over: dict[str, Tally] = field(default_factory=dict)

    @property
    def found(self) -> int:
        return len(self.files) + sum(tally.files for tally in self.passed_over.values())

    def pass_over(self, relative: str, reason: str, size: int = 0) -> None:
        tally = self.passed_over.setdefault(reason, Tally())
        tally.files += 1
        tally.bytes += size
        known = {os.path.splitext(name)[1] for name in tally.examples} if reason == ENDING else set()
        if len(tally.examples) < _EXAMPLES and os.path.splitext(relative)[1] not in known:
            tally.examples.append(relative)


def local(root: Path, endings: tuple[str, ...]) -> Listing:
    """A single file, which may have any ending, or the files below a folder; raises `OSError` of a folder."""
    listing = Listing()
    if not root.is_dir():
        listing.files.append(InputFile(root, sound(root.name), root.stat().st_size))
        return listing
    for path in _walk(root, listing):
        relative = sound(path.relative_to(root).as_posix())
        try:
            status = path.stat()
        except OSError:
            listing.pass_over(relative, DANGLING)
            continue
        if not stat.S_ISREG(status.st_mode):
            listing.pass_over(relative, SPECIAL)
        else:
            _sort_in(listing, InputFile(path, relative, status.st_size), endings)
    listing.files.sort(key=lambda file: file.relative)
    return listing


def remote(address: str, endings: tuple[str, ...]) -> Listing:
    """The same of an fsspec address."""
    entries = storage.find(address)
    listing = Listing()
    single = len(entries) == 1 and storage.is_file(address)
    for entry in sorted(entries, key=lambda entry: entry.relative):
        file = InputFile(entry.location, sound(entry.relative), entry.bytes)
        if single:
            listing.files.append(file)
        elif any(part.startswith(".") for part in entry.relative.split("/")):
            listing.pass_over(file.relative, HIDDEN, file.bytes)
        else:
            _sort_in(listing, file, endings)
    listing.files.sort(key=lambda file: file.relative)
    return listing


def sound(name: str) -> str:
    """The name with U+FFFD in place of bytes that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _sort_in(listing: Listing, file: InputFile, endings: tuple[str, ...]) -> None:
    if file.relative.lower().endswith(endings):
        listing.files.append(file)
    else:
        listing.pass_over(file.relative, ENDING, file.bytes)


def _walk(root: Path, listing: Listing) -> Iterator[Path]:
    """Everything below `root` that is no folder and not hidden, in one order on every machine."""

    def refuse(error: OSError) -> None:
        raise error

    walked = {_identity(root)}
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        here = Path(folder)
        entered = []
        for name in sorted(folders, key=lambda name: ((here / name).is_symlink(), name)):
            relative = sound((here / name).relative_to(root).as_posix())
            if name.startswith("."):
                listing.pass_over(relative, HIDDEN)
            elif (identity := _identity(here / name)) in walked:
                listing.pass_over(relative, WALKED)
            else:
                walked.add(identity)
                entered.append(name)
        folders[:] = entered
        for name in sorted(names):
            if name.startswith("."):
                listing.pass_over(sound((here / name).relative_to(root).as_posix()), HIDDEN, _size(here / name))
            else:
                yield here / name


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a hidden link that leads nowhere
        return 0
