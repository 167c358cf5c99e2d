"""The files of a source, their fingerprints, and their division into tasks.

Contract: nothing here parses a document. A source is on a local disk or at any fsspec address
(`s3://bucket/folder`). Its files are sorted by relative path (code points), whatever the order of the file
system, so "the first documents of a source" are the same on every machine. A path that is missing, has no file
of the format, or cannot be read is a `UserError` that names the source. `fingerprints` reads every byte once
(about 1 GB/s on a local disk), or with `data.extract.fingerprint: stat` only modification times or entity tags.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from configs.data_schema import Source
from configs.schema import Recipe
from data_pipeline.readers import storage
from twofold.artifacts import digest
from twofold.errors import Problem, UserError

UNLIMITED_BYTES = 2**62
"""`max_bytes` of a source without a limit (the schema's default)."""

ENDINGS: dict[str, tuple[str, ...]] = {
    "html": (".html", ".htm", ".xhtml"),
    "warc": (".warc", ".warc.gz", ".arc", ".arc.gz"),
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst"),
    "text": (
        *(".txt", ".md", ".rst", ".tex", ".py", ".pyi", ".js", ".mjs", ".jsx", ".ts", ".tsx", ".java", ".kt", ".scala"),
        *(".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".go", ".rs", ".rb", ".php", ".swift", ".sh", ".sql", ".r", ".jl"),
        *(".lua", ".pl", ".hs", ".ml", ".css", ".yaml", ".yml", ".toml", ".json"),
    ),
}
"""Lower-case endings of the files that count in a folder; a single named file may have any ending."""


@dataclass(frozen=True)
class InputFile:
    """One raw file: its location, its name within the source, and its size."""

    location: storage.Location
    relative: str
    bytes: int


@dataclass(frozen=True)
class Share:
    """The files that one task of a source reads, in order."""

    source: str
    number: int
    files: tuple[InputFile, ...]


def exists(source: Source) -> bool:
    """Whether the source's path exists, as seen from this machine."""
    return storage.exists(storage.locate(source.path))


def list_files(recipe: Recipe) -> dict[str, tuple[InputFile, ...]]:
    """The input files of each source in order; raises one `UserError` with the problems of all sources."""
    files: dict[str, tuple[InputFile, ...]] = {}
    problems: list[Problem] = []
    for name, source in recipe.sources.items():
        try:
            files[name] = _files_of(name, source)
        except UserError as error:
            problems.extend(error.problems)
    if problems:
        raise UserError(problems)
    return files


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Source -> hash of its files' relative paths, sizes and contents (or modification times)."""
    by_content = recipe.data.extract.fingerprint == "content"
    return {
        name: digest([[file.relative, file.bytes, _mark(name, file, by_content)] for file in files])
        for name, files in list_files(recipe).items()
    }


def plan(recipe: Recipe) -> tuple[Share, ...]:
    """Divide every source into tasks of whole files, about `data.extract.task_bytes` raw bytes each.

    A source with `max_bytes` is one task, because only a single task knows how much text was read before.
    """
    limit = recipe.data.extract.task_bytes
    shares: list[Share] = []
    for name, files in list_files(recipe).items():
        capped = recipe.sources[name].max_bytes < UNLIMITED_BYTES
        groups = [files] if capped else _grouped(files, limit)
        shares.extend(Share(name, number, group) for number, group in enumerate(groups))
    return tuple(shares)


def _grouped(files: tuple[InputFile, ...], limit: int) -> list[tuple[InputFile, ...]]:
    groups: list[list[InputFile]] = []
    size = 0
    for file in files:
        if not groups or size + file.bytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.bytes
    return [tuple(group) for group in groups]


def _files_of(name: str, source: Source) -> tuple[InputFile, ...]:
    location = storage.locate(source.path)
    endings = ENDINGS[source.format]
    if isinstance(location, Path):
        files = _local_files(name, location, endings)
    else:
        files = _remote_files(name, location, endings)
    if not files:
        raise _problem(
            name,
            source.path,
            f"has no {source.format} file",
            f"put files ending in {', '.join(endings[:3])} there, or correct `format`",
        )
    return tuple(sorted(files, key=lambda file: file.relative))


def _local_files(name: str, root: Path, endings: tuple[str, ...]) -> list[InputFile]:
    if not root.exists():
        raise _problem(name, root, "does not exist", "correct the path, or remove the source")
    paths = _walk(name, root, endings) if root.is_dir() else [root]
    for path in paths:
        if not os.access(path, os.R_OK):
            raise _problem(name, path, "cannot be read (permission)", "grant read permission, or remove the file")
    base = root if root.is_dir() else root.parent
    return [InputFile(path, _sound(path.relative_to(base).as_posix()), path.stat().st_size) for path in paths]


def _remote_files(name: str, address: str, endings: tuple[str, ...]) -> list[InputFile]:
    try:
        entries = storage.find(address)
    except OSError as error:
        raise _refusal(name, address, error, "correct the address or the access to it") from error
    if not entries:
        raise _problem(name, address, "does not exist or is empty", "correct the address, or remove the source")
    single = len(entries) == 1 and storage.is_file(address)
    return [
        InputFile(entry.location, _sound(entry.relative), entry.bytes)
        for entry in entries
        if single or (_is_wanted(entry.relative, endings) and not _is_hidden(entry.relative))
    ]


def _is_wanted(relative: str, endings: tuple[str, ...]) -> bool:
    return relative.lower().endswith(endings)


def _is_hidden(relative: str) -> bool:
    return any(part.startswith(".") for part in relative.split("/"))


def _sound(name: str) -> str:
    """The name with U+FFFD in place of bytes that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _walk(name: str, root: Path, endings: tuple[str, ...]) -> list[Path]:
    """The files below `root` with one of `endings`, without hidden files and folders."""

    def refuse(error: OSError) -> None:
        raise _problem(name, error.filename, f"cannot be listed ({error.strerror})", "grant read permission") from error

    found: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        folders[:] = [entry for entry in folders if not entry.startswith(".")]
        found.extend(
            Path(folder, entry) for entry in names if not entry.startswith(".") and entry.lower().endswith(endings)
        )
    return [path for path in found if path.is_file()]


def _mark(name: str, file: InputFile, by_content: bool) -> str:
    try:
        return storage.content_hash(file.location) if by_content else storage.modification_mark(file.location)
    except OSError as error:
        raise _refusal(name, file.location, error, "restore the file, or remove it") from error


def _refusal(name: str, location: storage.Location, error: OSError, hint: str) -> UserError:
    if isinstance(error, storage.Unreachable):
        return _problem(name, location, error.problem, error.hint)
    return _problem(name, location, f"cannot be read ({error.strerror or error})", hint)


def _problem(name: str, path: object, problem: str, hint: str) -> UserError:
    return UserError(Problem(f"sources.{name}.path", str(path), problem, hint))
