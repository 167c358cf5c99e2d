"""Which files a source has, how they are known again, and how they are cut into tasks.

Contract: everything here answers from names, sizes and bytes; no document is parsed. Files of a
source are in the order of their relative paths (code points), whatever the file system says, so
"the first documents of a source" means the same on every machine. A path that is missing, holds no
file of its format, or cannot be read is a `UserError` that names the source. `fingerprints` reads
every byte once (about 1 GB/s), or only `stat`s with `data.extract.fingerprint: stat`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from configs.data_schema import Source
from configs.errors import Problem, UserError
from configs.files import sha256_of
from configs.manifest import digest
from configs.schema import Recipe

UNLIMITED_BYTES = 2**62
"""`max_bytes` of a source that has no limit (the schema's default)."""

ENDINGS: dict[str, tuple[str, ...]] = {
    "html": (".html", ".htm", ".xhtml"),
    "warc": (".warc", ".warc.gz"),
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst"),
    "text": (
        *(".txt", ".md", ".rst", ".tex", ".py", ".pyi", ".js", ".mjs", ".jsx", ".ts", ".tsx", ".java", ".kt", ".scala"),
        *(".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".go", ".rs", ".rb", ".php", ".swift", ".sh", ".sql", ".r", ".jl"),
        *(".lua", ".pl", ".hs", ".ml", ".css", ".yaml", ".yml", ".toml", ".json"),
    ),
}
"""Endings (lower case) by which a folder is searched; a single named file may have any ending."""


@dataclass(frozen=True)
class InputFile:
    """One raw file: where it is, its name within the source, its size in bytes."""

    path: Path
    relative: str
    bytes: int


@dataclass(frozen=True)
class Share:
    """What one task of a source reads: `files` in order."""

    source: str
    number: int
    files: tuple[InputFile, ...]


def list_files(recipe: Recipe) -> dict[str, tuple[InputFile, ...]]:
    """Each source's input files in order; raise one `UserError` with every source's problem."""
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
    """Source -> hash of its files' relative paths, sizes and content (or modification times)."""
    by_content = recipe.data.extract.fingerprint == "content"
    return {
        name: digest([[file.relative, file.bytes, _mark(name, file, by_content)] for file in files])
        for name, files in list_files(recipe).items()
    }


def plan(recipe: Recipe) -> tuple[Share, ...]:
    """Cut every source into tasks of about `data.extract.task_bytes` raw bytes, whole files.

    A source with `max_bytes` is one task: it alone can know when the text read so far is enough,
    it stops there, and so the slice is the same however the rest is cut.
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
    root = Path(source.path)
    if root.is_dir():
        paths = _walk(name, root, ENDINGS[source.format])
    elif root.exists():
        paths = [root]
    else:
        raise _problem(name, root, "does not exist", "correct the path, or remove the source")
    if not paths:
        wanted = ", ".join(ENDINGS[source.format][:3])
        raise _problem(
            name, root, f"holds no {source.format} file", f"put files ending in {wanted} there, or correct `format`"
        )
    for path in paths:
        if not os.access(path, os.R_OK):
            raise _problem(name, path, "cannot be read (permission)", "grant read permission, or remove the file")
    base = root if root.is_dir() else root.parent
    files = [InputFile(path, _name_within(path, base), path.stat().st_size) for path in paths]
    return tuple(sorted(files, key=lambda file: file.relative))


def _name_within(path: Path, base: Path) -> str:
    """`path` below `base` with forward slashes; bytes of a name that are not UTF-8 become U+FFFD."""
    name = path.relative_to(base).as_posix()
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _walk(name: str, root: Path, endings: tuple[str, ...]) -> list[Path]:
    """Files below `root` with one of `endings`; hidden files and folders are left out."""

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
        return sha256_of(file.path) if by_content else str(file.path.stat().st_mtime_ns)
    except OSError as error:
        raise _problem(
            name, file.path, f"cannot be read ({error.strerror})", "restore the file, or remove it"
        ) from error


def _problem(name: str, path: object, problem: str, mend: str) -> UserError:
    return UserError(Problem(f"sources.{name}.path", str(path), problem, mend))
