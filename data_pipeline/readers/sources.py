"""The files of a source, their fingerprints, and their division into tasks.

Contract: nothing here parses a document. A source is on a local disk or at any fsspec address
(`s3://bucket/folder`). Its files (readers/folders.py) are sorted by relative path (code points), whatever the order
of the file system, so "the first documents of a source" are the same on every machine. A path that is missing, has
no file of the format, or cannot be read is a `UserError` that names the source. `fingerprints` reads every byte once
(about 1 GB/s a core) and remembers the hashes of local files by size and time of change in the run folder, or with
`data.extract.fingerprint: stat` reads only modification times or entity tags.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.data_schema import Source
from configs.schema import Recipe
from data_pipeline.readers import folders, storage
from data_pipeline.readers.folders import InputFile, Listing
from twofold.artifacts import digest
from twofold.errors import Problem, UserError
from twofold.files import HASHES_FILE, remembered_sha256

UNLIMITED_BYTES = 2**62
"""`max_bytes` of a source without a limit (the schema's default)."""

_COMPRESSIONS = ("", ".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz")


def _compressed(*endings: str) -> tuple[str, ...]:
    return tuple(ending + compression for ending in endings for compression in _COMPRESSIONS)


JSON_LINES = _compressed(".jsonl", ".ndjson", ".jsonlines", ".ldjson")
"""Endings of JSON Lines; a `.json` may also be a description of other files."""

PLAIN_TEXT = (
    *(".txt", ".md", ".rst", ".tex", ".py", ".pyi", ".js", ".mjs", ".jsx", ".ts", ".tsx", ".java", ".kt", ".scala"),
    *(".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".go", ".rs", ".rb", ".php", ".swift", ".sh", ".sql", ".r", ".jl"),
    *(".lua", ".pl", ".hs", ".ml", ".css", ".yaml", ".yml", ".toml"),
)

ENDINGS: dict[str, tuple[str, ...]] = {
    "html": _compressed(".html", ".htm", ".xhtml", ".shtml", ".xht"),
    "warc": _compressed(".warc", ".arc", ".wet"),
    "parquet": (".parquet", ".parq", ".pq"),
    "jsonl": (*JSON_LINES, *_compressed(".json")),
    "text": _compressed(*PLAIN_TEXT, ".json"),
}
"""Endings, in any case, of the files that count in a folder; a single named file may have any ending."""


@dataclass(frozen=True)
class Share:
    """The files that one task of a source reads, in order."""

    source: str
    number: int
    files: tuple[InputFile, ...]


def exists(source: Source) -> bool:
    """Whether the source's path exists, as seen from this machine."""
    return storage.exists(storage.locate(source.path))


def list_files(recipe: Recipe) -> dict[str, Listing]:
    """What lies at each source's path; raises one `UserError` with the problems of all sources."""
    found: dict[str, Listing] = {}
    problems: list[Problem] = []
    for name, source in recipe.sources.items():
        try:
            found[name] = _listing(name, source)
        except UserError as error:
            problems.extend(error.problems)
    if problems:
        raise UserError(problems)
    return found


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Source -> hash of its files' relative paths, sizes and contents (or modification times)."""
    return {
        name: digest(
            [
                [file.relative, file.bytes, mark]
                for file, mark in zip(listing.files, _marks(recipe, name, listing.files), strict=True)
            ]
        )
        for name, listing in list_files(recipe).items()
    }


def plan(recipe: Recipe, listed: Mapping[str, Listing]) -> tuple[Share, ...]:
    """Divide every source into tasks of whole files, about `data.extract.task_bytes` raw bytes each.

    A source with `max_bytes` is one task, because only a single task knows how much text was read before.
    """
    limit = recipe.data.extract.task_bytes
    shares: list[Share] = []
    for name, listing in listed.items():
        capped = recipe.sources[name].max_bytes < UNLIMITED_BYTES
        groups = [tuple(listing.files)] if capped else _grouped(listing.files, limit)
        shares.extend(Share(name, number, group) for number, group in enumerate(groups))
    return tuple(shares)


def _grouped(files: list[InputFile], limit: int) -> list[tuple[InputFile, ...]]:
    groups: list[list[InputFile]] = []
    size = 0
    for file in files:
        if not groups or size + file.bytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.bytes
    return [tuple(group) for group in groups]


def _listing(name: str, source: Source) -> Listing:
    location = storage.locate(source.path)
    endings = ENDINGS[source.format]
    listing = _local(name, location, endings) if isinstance(location, Path) else _remote(name, location, endings)
    if not listing.files:
        other = listing.passed_over.get(folders.ENDING)
        seen = f" (but {', '.join(other.examples)})" if other else ""
        hint = f"put files ending in {', '.join(endings[:3])} there, or correct `format`"
        raise _problem(name, source.path, f"has no {source.format} file{seen}", hint)
    return listing


def _local(name: str, root: Path, endings: tuple[str, ...]) -> Listing:
    if not root.exists():
        raise _problem(name, root, "does not exist", "correct the path, or remove the source")
    try:
        listing = folders.local(root, endings)
    except OSError as error:
        place = error.filename or root
        raise _problem(name, place, f"cannot be listed ({error.strerror})", "grant read permission") from error
    for file in listing.files:
        if not os.access(file.location, os.R_OK):
            raise _problem(
                name, file.location, "cannot be read (permission)", "grant read permission, or remove the file"
            )
    return listing


def _remote(name: str, address: str, endings: tuple[str, ...]) -> Listing:
    try:
        listing = folders.remote(address, endings)
    except OSError as error:
        raise _refusal(name, address, error, "correct the address or the access to it") from error
    if not listing.found:
        raise _problem(name, address, "does not exist or is empty", "correct the address, or remove the source")
    return listing


def _marks(recipe: Recipe, name: str, files: Sequence[InputFile]) -> list[str]:
    """What changes with each file; hashes of local files are remembered in the run folder."""
    by_content = recipe.data.extract.fingerprint == "content"
    local = [file.location for file in files if isinstance(file.location, Path)]
    if by_content and len(local) == len(files):
        try:
            return remembered_sha256(local, Path(recipe.run_dir) / HASHES_FILE)
        except OSError as error:
            location = error.filename or recipe.sources[name].path
            raise _refusal(name, location, error, "restore the file, or remove it") from error
    return [_mark(name, file, by_content) for file in files]


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
