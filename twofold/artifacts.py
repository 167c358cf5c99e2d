"""Artifacts: directories named by a hash of their inputs, and the only way stages exchange data.

    run_dir/artifacts/<stage>-<identity[:12]>/            a committed artifact with its manifest.json
    run_dir/artifacts/<stage>-<identity[:12]>.partial/    an artifact being built, or left by a killed run
    run_dir/<stage> -> artifacts/<stage>-<identity[:12]>  the artifact that the latest run uses

Contract: an artifact's identity is a hash of everything that decides its content: the stage and its
code version, its part of the recipe, and the identities of its inputs. It is built in a `.partial` folder,
its manifest (counts, sizes, hashes) is written last, and a rename commits it; a folder without a manifest is
never read. Nothing is overwritten, since another identity is another folder. Opening an artifact costs one
small JSON file and a `stat` per listed file; `verify` reads every byte.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from twofold import VERSION
from twofold.errors import user_error
from twofold.files import PARTIAL_PATTERN, disk_errors, read_json, sha256_of, size_of, write_json
from twofold.root import ROOT

MANIFEST_FILE = "manifest.json"
FORMAT = 1
_WORK_DIR = "work"
"""A stage's logs, completion marks and intermediate files; removed at commit."""
_LOGS = ("logs", "wandb", "wandb-run-id")
"""What lies in an artifact without being part of it. Manifests of earlier versions list it, and nobody misses it."""


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact; `path` is relative to it, with forward slashes."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """How an artifact was built, from which inputs, and what it holds."""

    stage: str
    identity: str
    code_version: int
    config: dict[str, Any]
    inputs: dict[str, str]
    counts: dict[str, Any]
    files: tuple[FileEntry, ...]
    made_by: dict[str, str]
    created: str
    format: int = FORMAT


@dataclass(frozen=True)
class Artifact:
    """A committed artifact on disk."""

    path: Path
    manifest: Manifest

    @property
    def identity(self) -> str:
        return self.manifest.identity

    @property
    def counts(self) -> dict[str, Any]:
        return self.manifest.counts


@dataclass(frozen=True)
class StageSpec:
    """Everything that decides a stage's output. `config` and `inputs` must be JSON values."""

    stage: str
    code_version: int
    """Raised by hand in the stage's module whenever the same inputs would give another output."""
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Input name -> identity (of an artifact) or fingerprint (of raw files)."""

    @property
    def identity(self) -> str:
        """Hex SHA-256 over the canonical JSON of the four fields."""
        return digest([self.stage, self.code_version, dict(self.config), dict(self.inputs)])


Build = Callable[[Path, Path], Mapping[str, Any]]
"""`build(out, work) -> counts`: writes the artifact's files into `out`; `work` is for logs and
intermediate files, survives a kill and is not part of the artifact."""


def digest(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON: keys sorted, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def artifact_dir(run_dir: Path, spec: StageSpec) -> Path:
    """Where the artifact of `spec` is, or will be once it is committed."""
    return run_dir / "artifacts" / f"{spec.stage}-{spec.identity[:12]}"


def partial_dir(run_dir: Path, spec: StageSpec) -> Path:
    """Where the artifact of `spec` is built."""
    final = artifact_dir(run_dir, spec)
    return final.with_name(final.name + ".partial")


def find(run_dir: Path, spec: StageSpec) -> Artifact | None:
    """The committed artifact of `spec`, or None. A damaged artifact is a `UserError`."""
    path = artifact_dir(run_dir, spec)
    return open_artifact(path) if path.exists() else None


def ensure(run_dir: Path, spec: StageSpec, build: Build) -> Artifact:
    """The artifact of `spec`: the committed one, or built now (a killed build resumes)."""
    artifact = find(run_dir, spec)
    if artifact is None:
        partial = partial_dir(run_dir, spec)
        work = partial / _WORK_DIR
        with disk_errors(partial):
            work.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        counts = build(partial, work)
        artifact = _commit(run_dir, spec, counts, time.monotonic() - started)
    _point(run_dir / spec.stage, artifact.path)
    return artifact


def open_artifact(path: Path) -> Artifact:
    """Read a committed artifact's manifest and check that every file exists with its listed size."""
    manifest_path = path / MANIFEST_FILE
    try:
        raw = read_json(manifest_path)
        files = tuple(FileEntry(**entry) for entry in raw.pop("files"))
        manifest = Manifest(files=files, **raw)
    except FileNotFoundError:
        raise user_error(str(path), None, "is not a finished artifact (no manifest.json)", "run its stage") from None
    except (ValueError, TypeError, KeyError) as error:
        raise user_error(
            str(manifest_path), None, f"is damaged ({error})", f"remove the folder {path} and run again"
        ) from None
    for entry in manifest.files:
        file = path / entry.path
        size = size_of(file)
        if size != entry.bytes and not _is_log(PurePath(entry.path)):
            found = "is missing" if size is None else f"has {size} bytes instead of {entry.bytes}"
            raise user_error(str(file), None, found, f"restore it, or remove the folder {path} and run again")
    return Artifact(path, manifest)


def verify(artifact: Artifact) -> None:
    """Read every byte and compare hashes; raise `UserError` for the first altered file."""
    for entry in artifact.manifest.files:
        file = artifact.path / entry.path
        if not _is_log(PurePath(entry.path)) and sha256_of(file) != entry.sha256:
            raise user_error(
                str(file), None, "was altered (its SHA-256 differs)", f"remove the folder {artifact.path} and run again"
            )


@functools.cache
def git_revision() -> str:
    """The checkout's commit, `+` when it has changes; `unknown` outside a checkout."""
    try:
        output = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return output.strip()


def _commit(run_dir: Path, spec: StageSpec, counts: Mapping[str, Any], seconds: float) -> Artifact:
    partial, final = partial_dir(run_dir, spec), artifact_dir(run_dir, spec)
    shutil.rmtree(partial / _WORK_DIR, ignore_errors=True)
    for remains in partial.rglob(PARTIAL_PATTERN):  # left by atomic writes that were killed
        remains.unlink()
    paths = sorted(path for path in partial.rglob("*") if _is_content(path) and not _is_log(path.relative_to(partial)))
    known = _listed_below(partial)
    manifest = Manifest(
        stage=spec.stage,
        identity=spec.identity,
        code_version=spec.code_version,
        config=dict(spec.config),
        inputs=dict(spec.inputs),
        counts=dict(counts),
        files=tuple(
            FileEntry(path.relative_to(partial).as_posix(), size, known.get((path, size)) or sha256_of(path))
            for path, size in ((path, path.stat().st_size) for path in paths)
        ),
        made_by={
            "twofold": VERSION,
            "revision": git_revision(),
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "seconds": f"{seconds:.1f}",  # since the last start, if the build was interrupted
        },
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    write_json(partial / MANIFEST_FILE, asdict(manifest))
    os.replace(partial, final)
    return Artifact(final, manifest)


def _listed_below(folder: Path) -> dict[tuple[Path, int], str]:
    """(file, size) -> hash of the files that manifests in subfolders list.

    Ranks hash their parts of a checkpoint in parallel when they write them; to read terabytes again in one process
    would take hours.
    """
    found = {}
    for manifest in folder.glob(f"*/**/{MANIFEST_FILE}"):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # not one of ours
            for entry in json.loads(manifest.read_text(encoding="utf-8"))["files"]:
                found[manifest.parent / entry["path"], int(entry["bytes"])] = str(entry["sha256"])
    return found


def _is_content(path: Path) -> bool:
    """Whether a manifest lists it: no link, which others may remove, and no hidden file, such as a lease."""
    return path.is_file() and not path.is_symlink() and path.name != MANIFEST_FILE and not path.name.startswith(".")


def _is_log(path: PurePath) -> bool:
    """Whether a file of an artifact, named relative to it, is a log or belongs to W&B, and may vanish any time."""
    return path.suffix == ".log" or path.parts[0] in _LOGS


def _point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, atomically."""
    relative = os.path.relpath(target, link.parent)
    if link.is_symlink() and os.readlink(link) == relative:
        return
    aside = link.with_name(f".{link.name}.link-{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(relative)
    os.replace(aside, link)
