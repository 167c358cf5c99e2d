"""Checkpoints that are whole or absent.

    checkpoints/step-00000100/            committed: manifest.json is there, and every file it lists
    checkpoints/step-00000100.partial/    being written, or left by a kill; never read

Contract: `save` lets the engine write into the partial folder, lists every file with size and SHA-256
in the manifest, syncs, and commits with one rename. `newest` reads every byte of the newest committed
checkpoint, falls back to the one before when anything is missing, cut or altered, and says so. A
checkpoint made from other data, another tokenizer or another model is refused, never bent to fit.
Hashing is spread over the ranks: each reads its share of the files once.

Retention: the newest `keep`, and the end of every phase for good.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.errors import Problem, UserError, user_error
from configs.files import disk_errors, sha256_of, sync, write_json
from pretrain.ranks import Ranks

_MANIFEST = "manifest.json"
_PARTIAL = ".partial"
_FORMAT = 1


@dataclass(frozen=True)
class State:
    """What a checkpoint says beside its tensors."""

    step: int
    """Steps behind it."""
    tokens: int
    seconds: float
    """Training time behind it, over all restarts."""
    ends_phase: str | None
    world_size: int
    identity: Mapping[str, str]
    """What decided the weights, by part: data, tokenizer, model, …"""


class Checkpoints:
    """The checkpoints of one run; every method is collective."""

    def __init__(self, root: Path, keep: int, identity: Mapping[str, str], ranks: Ranks) -> None:
        self.root, self.keep, self.identity, self.ranks = root, keep, dict(identity), ranks

    def newest(self, warn: Callable[[str], None]) -> tuple[State, Path] | None:
        """The newest intact checkpoint and its folder; None where there is none.

        Raises `UserError` when it belongs to other data, another model or another number of ranks.
        """
        for path in sorted(self.root.glob("step-*"), reverse=True):
            if path.name.endswith(_PARTIAL) or not (path / _MANIFEST).exists():
                continue
            damage = self._damage(path)
            if self.ranks.all_true(damage is None):
                state, _ = _read(path)
                self._check(path, state)
                return state, path
            warn(f"{path} is damaged ({damage or 'seen by another rank'}); using the checkpoint before it")
        return None

    def save(self, state: State, write: Callable[[Path], None]) -> Path:
        """Commit what `write(folder)` writes, then remove what retention no longer asks for."""
        final = self.root / f"step-{state.step:08d}"
        partial = final.with_name(final.name + _PARTIAL)
        try:
            with disk_errors(partial):
                self._write_and_commit(state, write, partial, final)
        except UserError:
            _remove(partial)  # a full disk gets its space back
            raise
        return final

    def _write_and_commit(self, state: State, write: Callable[[Path], None], partial: Path, final: Path) -> None:
        if self.ranks.is_first:
            for old in (partial, final):
                _remove(old)
            partial.mkdir(parents=True)
        self.ranks.barrier()
        write(partial)
        self.ranks.barrier()
        listed = self._hash_files(partial)
        if self.ranks.is_first:
            write_json(partial / _MANIFEST, {"format": _FORMAT, **asdict(state), "files": listed})
            os.replace(partial, final)
            sync(self.root)
            self._retain()
        self.ranks.barrier()

    def _damage(self, path: Path) -> str | None:
        """What is wrong with this rank's share of a checkpoint's files."""
        try:
            _, files = _read(path)
        except (ValueError, KeyError, TypeError, OSError) as error:
            return f"{_MANIFEST}: {error}"
        for number, entry in enumerate(files):
            file = path / entry["path"]
            if not file.exists():
                return f"{entry['path']} is missing"
            if file.stat().st_size != entry["bytes"]:
                return f"{entry['path']} has {file.stat().st_size} bytes instead of {entry['bytes']}"
            if number % self.ranks.size == self.ranks.rank and sha256_of(file) != entry["sha256"]:
                return f"{entry['path']} was altered"
        return None

    def _check(self, path: Path, state: State) -> None:
        problems = [
            Problem(
                str(path), None, f"differs from this run in its {part}",
                f"restore the {part} it was trained with, or train in another run_dir",
            )
            for part in self.identity
            if state.identity.get(part) != self.identity[part]
        ]  # fmt: skip
        if problems:
            raise UserError(problems)
        if state.world_size != self.ranks.size:
            raise user_error(
                str(path), None, f"was saved by {state.world_size} ranks, and {self.ranks.size} are running",
                f"resume with {state.world_size} ranks (launch.nodes, launch.gpus_per_node, launch.cpu_ranks)",
            )  # fmt: skip

    def _hash_files(self, folder: Path) -> list[dict[str, Any]]:
        """Sync every file and list it; each rank hashes its share and leaves it beside, rank 0 joins them."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        mine = [_entry(path, folder) for path in files[self.ranks.rank :: self.ranks.size]]
        self.ranks.barrier()  # every rank has listed before the first part appears
        part = folder / f".files-{self.ranks.rank}.json"
        write_json(part, mine)
        self.ranks.barrier()
        if not self.ranks.is_first:
            return []
        parts = [folder / f".files-{rank}.json" for rank in range(self.ranks.size)]
        listed = [entry for path in parts for entry in json.loads(path.read_text(encoding="utf-8"))]
        for path in parts:
            path.unlink()
        return sorted(listed, key=lambda entry: str(entry["path"]))

    def _retain(self) -> None:
        committed = [path for path in sorted(self.root.glob("step-*"), reverse=True) if (path / _MANIFEST).exists()]
        passing = [path for path in committed if not _ends_phase(path)]
        for path in (*passing[self.keep :], *self.root.glob(f"*{_PARTIAL}")):
            _remove(path)


def _read(path: Path) -> tuple[State, list[dict[str, Any]]]:
    raw = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    if raw.pop("format") != _FORMAT:
        raise ValueError("is of another format")
    files = raw.pop("files")
    return State(**raw), files


def _ends_phase(path: Path) -> bool:
    try:
        return _read(path)[0].ends_phase is not None
    except (ValueError, KeyError, TypeError, OSError):
        return False


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    sync(path)
    return {
        "path": path.relative_to(folder).as_posix(),
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
    }


def _remove(path: Path) -> None:
    """Remove a checkpoint so that a kill half-way leaves nothing that looks committed."""
    (path / _MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
