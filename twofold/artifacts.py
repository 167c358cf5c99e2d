"""Artifacts: directories named by a hash of their inputs, and the only way stages exchange data.

    run_dir/artifacts/<stage>-<identity[:12]>/            a committed artifact with its manifest.json
    run_dir/artifacts/<stage>-<identity[:12]>.partial/    an artifact being built, or left by a killed run
    run_dir/<stage> -> artifacts/<stage>-<identity[:12]>  the artifact that the latest run uses

Contract: an artifact's identity is a hash of everything that decides its content: the stage and its
code version, its part of the recipe, and the identities of its inputs. It is built in a `.partial` folder,
its manifest (counts, sizes, hashes) is written last, and a rename commits it; a folder without a manifest is
never read. Nothing is overwritten, since another identity is another folder. Opening an artifact costs one
JSON file and a `stat` per listed file (6 microseconds each on a local disk); `verify` reads every byte. A commit
hashes on all cores, and what is more than 64 GiB in tasks.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import itertools
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold import VERSION
from twofold.errors import user_error
from twofold.files import PARTIAL_PATTERN, atomic_path, disk_errors, patiently, read_json, sha256_of, write_json
from twofold.root import ROOT
from twofold.tasks import TaskRunner

MANIFEST_FILE = "manifest.json"
FORMAT = 1
HASHED_BY_TASKS_BYTES = 64 * 2**30
"""So much is hashed by one task, in about a minute; less by the process that commits."""
_HASHED_AT_ONCE = 16
_HASHES = "hashes"
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
    return use(run_dir, artifact)


def use(run_dir: Path, artifact: Artifact) -> Artifact:
    """Make the stage's link point to the artifact, and return it."""
    _point(run_dir / artifact.manifest.stage, artifact.path)
    return artifact


def hash_by_tasks(out: Path, work: Path, runner: TaskRunner) -> None:
    """Hash what a stage wrote in tasks if it is too much for one process; the commit finds the hashes in `work`."""
    known, sizes = _listed_below(out), {name: _state(f"{out}/{name}")[0] for name in _contents(out)}
    unknown = [(name, size) for name, size in sizes.items() if (name, size) not in known]
    if sum(size for _, size in unknown) < HASHED_BY_TASKS_BYTES:
        return
    starts = [0, *itertools.accumulate(size for _, size in unknown)]
    groups = itertools.groupby(zip(unknown, starts, strict=False), key=lambda file: file[1] // HASHED_BY_TASKS_BYTES)
    task = _Hash(out, tuple(tuple(name for (name, _), _ in group) for _, group in groups), work / _HASHES)
    runner.run("hash files", task, len(task.groups), work / "hash-files")


@dataclass(frozen=True)
class _Hash:
    """Task `rank` hashes the `rank`-th group of files."""

    out: Path
    groups: tuple[tuple[str, ...], ...]
    folder: Path

    def __call__(self, rank: int, world_size: int) -> None:
        found = [[name, *_state(f"{self.out}/{name}"), sha256_of(self.out / name)] for name in self.groups[rank]]
        write_json(self.folder / f"{rank:05d}.json", found)


def _state(file: str) -> tuple[int, int]:
    """Size and time of change."""
    stat = os.stat(file)
    return stat.st_size, stat.st_mtime_ns


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
    wrong = patiently(_first_wrong, path, files)
    if wrong:
        file, found = wrong
        raise user_error(file, None, found, f"restore it, or remove the folder {path} and run again")
    return Artifact(path, manifest)


def _first_wrong(path: Path, files: Sequence[FileEntry]) -> tuple[str, str] | None:
    """The first file that is missing or has another size, and what is wrong with it."""
    for entry in files:
        file = f"{path}/{entry.path}"
        try:
            size = os.stat(file).st_size
        except FileNotFoundError:
            size = None
        if size != entry.bytes and not _is_log(entry.path):
            return file, "is missing" if size is None else f"has {size} bytes instead of {entry.bytes}"
    return None


def verify(artifact: Artifact) -> None:
    """Read every byte and compare hashes; raise `UserError` for the first altered file."""
    entries = [entry for entry in artifact.manifest.files if not _is_log(entry.path)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(sha256_of, [artifact.path / entry.path for entry in entries])
        for entry, sha256 in zip(entries, found, strict=True):
            if sha256 != entry.sha256:
                file, hint = str(artifact.path / entry.path), f"remove the folder {artifact.path} and run again"
                raise user_error(file, None, "was altered (its SHA-256 differs)", hint)


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
    hashed = _hashed_by_tasks(partial / _WORK_DIR)
    shutil.rmtree(partial / _WORK_DIR, ignore_errors=True)
    for remains in partial.rglob(PARTIAL_PATTERN):  # left by atomic writes that were killed
        remains.unlink()
    known = _listed_below(partial)

    names = _contents(partial)

    def entries(first: int) -> list[FileEntry]:
        found = []
        for name in names[first : first + _HASHED_AT_ONCE]:
            size, changed = _state(f"{partial}/{name}")
            sha256 = known.get((name, size)) or hashed.get((name, size, changed)) or sha256_of(partial / name)
            found.append(FileEntry(name, size, sha256))
        return found

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        files = tuple(itertools.chain.from_iterable(threads.map(entries, range(0, len(names), _HASHED_AT_ONCE))))
    manifest = Manifest(
        stage=spec.stage,
        identity=spec.identity,
        code_version=spec.code_version,
        config=dict(spec.config),
        inputs=dict(spec.inputs),
        counts=dict(counts),
        files=files,
        made_by={
            "twofold": VERSION,
            "revision": git_revision(),
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "seconds": f"{seconds:.1f}",  # since the last start, if the build was interrupted
        },
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    with atomic_path(partial / MANIFEST_FILE) as path:
        path.write_text(_as_json(manifest), encoding="utf-8")
    os.replace(partial, final)
    return Artifact(final, manifest)


def _as_json(manifest: Manifest) -> str:
    """Readable JSON with one line for each file, of which there may be a million."""
    rest = {name: value for name, value in vars(manifest).items() if name != "files"}
    head = json.dumps(rest, ensure_ascii=False, indent=2).removesuffix("\n}")
    lines = ",\n".join(f"    {json.dumps(vars(entry), ensure_ascii=False)}" for entry in manifest.files)
    return f'{head},\n  "files": [\n{lines}\n  ]\n}}\n'


def _listed_below(folder: Path) -> dict[tuple[str, int], str]:
    """(file, size) -> hash of the files that manifests in subfolders list.

    Ranks hash their parts of a checkpoint in parallel when they write them; to read terabytes again in one process
    would take hours.
    """
    found = {}
    for manifest in folder.glob(f"*/**/{MANIFEST_FILE}"):
        below = manifest.parent.relative_to(folder).as_posix()
        with contextlib.suppress(ValueError, KeyError, TypeError):  # not one of ours
            for entry in json.loads(manifest.read_text(encoding="utf-8"))["files"]:
                found[f"{below}/{entry['path']}", int(entry["bytes"])] = str(entry["sha256"])
    return found


def _hashed_by_tasks(work: Path) -> dict[tuple[str, int, int], str]:
    """(file, size, time of change) -> hash."""
    found = (entry for path in (work / _HASHES).glob("*.json") for entry in read_json(path))
    return {(name, size, changed): sha256 for name, size, changed, sha256 in found}


def _contents(out: Path) -> list[str]:
    """The files that belong to an artifact, relative to it, in order.

    No links, which others may remove; no hidden files, such as a lease; no manifests below, and no logs.
    """
    found = []
    for folder, _, names in os.walk(out):
        below = "" if folder == str(out) else f"{Path(folder).relative_to(out).as_posix()}/"
        if below.partition("/")[0] == _WORK_DIR:
            continue
        wanted = (name for name in names if name != MANIFEST_FILE and not name.startswith("."))
        found += [
            below + name for name in wanted if not _is_log(below + name) and not os.path.islink(f"{folder}/{name}")
        ]
    return sorted(found)


def _is_log(name: str) -> bool:
    """Whether a file of an artifact, named relative to it, is a log or belongs to W&B, and may vanish any time."""
    return name.endswith(".log") or name.partition("/")[0] in _LOGS


def _point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, atomically."""
    relative = os.path.relpath(target, link.parent)
    if link.is_symlink() and os.readlink(link) == relative:
        return
    aside = link.with_name(f".{link.name}.link-{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(relative)
    os.replace(aside, link)
