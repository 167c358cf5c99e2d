"""Checkpoints that are complete or absent, written while training continues.

    checkpoints/step-00000100/            committed: manifest.json exists, and every file that it lists
        state/rank-*.safetensors          see training_state.py
        recipe.yaml                       the resolved recipe
        manifest.json                     State, versions, and every file with size and SHA-256
    checkpoints/step-00000100.partial/    being written, or left by a kill; never read

Contract: `begin` copies the tensors to host memory and returns; a thread of each rank writes, syncs and hashes its
file. Once every rank's part is on the disk, `commit` writes the manifest and renames the folder, so a partial
checkpoint is never used. `newest` reads every byte of the newest committed checkpoint, and falls back to the previous
one with a warning if anything is missing, cut or altered. It refuses a checkpoint of other data, another tokenizer or
another model; any number of ranks is fine.

Cost: training pauses for the copy; host memory holds one copy of the rank's state until it is written.
Retention: the newest `keep`, and the end of every phase forever.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pretrain.checkpoints import training_state
from pretrain.checkpoints.training_state import Parts
from pretrain.engine.distributed import OtherRankFailed, Ranks
from twofold.errors import Problem, UserError, user_error
from twofold.files import disk_errors, sha256_of, sync, write_json

RECIPE_FILE = "recipe.yaml"
_MANIFEST = "manifest.json"
_PARTIAL = ".partial"
_FORMAT = 2
_UNREADABLE = (ValueError, KeyError, TypeError, OSError)
"""What `read_manifest` raises for a broken manifest."""


@dataclass(frozen=True)
class State:
    """What a checkpoint holds in addition to its tensors."""

    step: int
    """Finished steps."""
    tokens: int
    seconds: float
    """Training time so far, over all restarts."""
    ends_phase: str | None
    reason: str
    """Why it was saved: tokens, minutes, phase end, signal."""
    world_size: int
    identity: Mapping[str, str]
    """What determined the weights, by part: data, tokenizer, model, …"""
    optimizer_steps: int = 0
    """Updates of the weights so far."""
    skipped_steps: tuple[int, ...] = ()
    """Indexes of steps that had no effect, and of those to skip after a rollback."""
    guard: Mapping[str, Any] = field(default_factory=dict)
    """The spike guard's memory; see skip_step.py."""


class Checkpoints:
    """The checkpoints of one run; methods are collective except for `is_written`."""

    def __init__(
        self,
        root: Path,
        keep: int,
        identity: Mapping[str, str],
        ranks: Ranks,
        recipe: str = "",
        made_with: Mapping[str, str] | None = None,
    ) -> None:
        """`recipe`: the resolved recipe's text; `made_with`: versions of what wrote the checkpoint."""
        self.root, self.keep, self.identity, self.ranks = root, keep, dict(identity), ranks
        self._recipe, self._made_with = recipe, dict(made_with or {})
        self._writing: _Writing | None = None

    def newest(self, warn: Callable[[str], None], upto: int | None = None) -> tuple[State, Path] | None:
        """The newest intact checkpoint of step `upto` or before, and its folder; None if there is none.

        Raises `UserError` if it belongs to other data or another model.
        """
        for path in reversed(committed(self.root)):
            if upto is not None and step_of(path) > upto:
                continue
            damage = damage_of(path, self.ranks.rank, self.ranks.size)
            if self.ranks.all_true(damage is None):
                state, _ = read_manifest(path)
                self._check(path, state)
                return state, path
            warn(f"{path} is damaged ({damage or 'seen by another rank'}); using the previous checkpoint")
        return None

    @property
    def pending(self) -> State | None:
        """The state that is being written."""
        return self._writing.state if self._writing else None

    @property
    def is_written(self) -> bool:
        """Whether this rank's part of the pending checkpoint is on the disk; True when none is pending."""
        return self._writing is None or not self._writing.is_alive()

    def begin(self, state: State, parts: Parts) -> None:
        """Start to write `parts`: host tensors that do not change anymore."""
        assert self._writing is None, "the previous checkpoint is still being written"
        partial = self._folder(state).with_name(self._folder(state).name + _PARTIAL)
        failure = _failure_of(lambda: self._prepare(partial), partial) if self.ranks.is_first else None
        self._stop_if_any_failed(failure)
        self._writing = _Writing(state, partial, parts, self.ranks)
        self._writing.start()

    def commit(self) -> Path:
        """Complete the pending checkpoint, after waiting for this rank's part."""
        writing = self._writing
        assert writing is not None, "nothing is pending"
        writing.join()
        self._writing = None
        final = self._folder(writing.state)
        try:
            self._stop_if_any_failed(writing.failure)
            failure: BaseException | None = None
            if self.ranks.is_first:
                failure = _failure_of(lambda: self._rename(writing, final), final)
            self._stop_if_any_failed(failure)
        except (UserError, OtherRankFailed):
            if self.ranks.is_first:
                remove(writing.folder)  # a full disk gets its space back
            raise
        return final

    def drop_after(self, step: int) -> None:
        """Remove every checkpoint of a later step."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        self.ranks.barrier()
        if self.ranks.is_first:
            for path in self.root.glob("step-*"):
                if step_of(path) > step:
                    remove(path)
        self.ranks.barrier()

    def _folder(self, state: State) -> Path:
        return self.root / f"step-{state.step:08d}"

    def _prepare(self, partial: Path) -> None:
        for old in (partial, partial.with_name(partial.name.removesuffix(_PARTIAL))):
            remove(old)
        (partial / training_state.STATE_DIR).mkdir(parents=True)
        (partial / RECIPE_FILE).write_text(self._recipe, encoding="utf-8")

    def _stop_if_any_failed(self, failure: BaseException | None) -> None:
        if not self.ranks.all_true(failure is None):
            raise failure or OtherRankFailed(str(self.root))

    def _rename(self, writing: _Writing, final: Path) -> None:
        partial = writing.folder
        listed = []
        for rank in range(self.ranks.size):
            path = _part_entry(partial, rank)
            listed.append(json.loads(path.read_text(encoding="utf-8")))
            path.unlink()
        listed.append(_entry(partial / RECIPE_FILE, partial))
        head = {"format": _FORMAT, "made_with": self._made_with, **asdict(writing.state)}
        write_json(partial / _MANIFEST, {**head, "files": listed})
        os.replace(partial, final)
        sync(self.root)
        self._retain()

    def _check(self, path: Path, state: State) -> None:
        problems = []
        for part in self.identity:
            if state.identity.get(part) != self.identity[part]:
                hint = f"restore the {part} it was trained with, or train in another run_dir"
                problems.append(Problem(str(path), None, f"differs from this run in its {part}", hint))
        if problems:
            raise UserError(problems)

    def _retain(self) -> None:
        passing = [path for path in reversed(committed(self.root)) if not _ends_phase(path)]
        for path in (*passing[self.keep :], *self.root.glob(f"*{_PARTIAL}")):
            remove(path)


class _Writing(threading.Thread):
    """Writes one rank's part of one checkpoint."""

    def __init__(self, state: State, folder: Path, parts: Parts, ranks: Ranks) -> None:
        super().__init__(name=f"checkpoint-{state.step}", daemon=True)
        self.state, self.folder = state, folder
        self._parts: Parts | None = parts
        self._ranks = ranks
        self.failure: BaseException | None = None

    def run(self) -> None:
        assert self._parts is not None
        try:
            with disk_errors(self.folder):
                path = training_state.write(self.folder, self._parts, self._ranks.rank, self._ranks.size)
                write_json(_part_entry(self.folder, self._ranks.rank), _entry(path, self.folder))
        except BaseException as error:  # `commit` raises it on the main thread
            self.failure = error
        finally:
            self._parts = None  # host memory is free again


def read_manifest(path: Path) -> tuple[State, list[dict[str, Any]]]:
    """State and file list of a committed checkpoint."""
    raw = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    if raw.pop("format") != _FORMAT:
        raise ValueError("is of another format")
    files = raw.pop("files")
    raw.pop("made_with")
    skipped = raw.pop("without_effect") if "without_effect" in raw else raw["skipped_steps"]  # the former in older ones
    return State(**{**raw, "skipped_steps": tuple(skipped)}), files


def committed(root: Path) -> list[Path]:
    """Committed checkpoints of a run, oldest first."""
    return [path for path in sorted(root.glob("step-*")) if path.suffix != _PARTIAL and (path / _MANIFEST).exists()]


def verified(path: Path) -> State:
    """The state of a checkpoint, after comparing every byte with its manifest; `UserError` if it is damaged."""
    if (damage := damage_of(path)) is not None:
        raise user_error(str(path), None, f"is damaged ({damage})", "name another checkpoint")
    return read_manifest(path)[0]


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.name.removesuffix(_PARTIAL).removeprefix("step-"))


def remove(path: Path) -> None:
    """Remove a checkpoint so that a kill halfway leaves nothing that looks committed."""
    (path / _MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def damage_of(path: Path, rank: int = 0, size: int = 1) -> str | None:
    """What is wrong with a checkpoint, if anything; of `size` ranks, each hashes its share of the files."""
    try:
        return _damaged_file(path, read_manifest(path)[1], rank, size)
    except _UNREADABLE as error:
        return f"{_MANIFEST}: {error}"


def _damaged_file(path: Path, files: list[dict[str, Any]], rank: int, size: int) -> str | None:
    for number, entry in enumerate(files):
        file = path / entry["path"]
        if not file.exists():
            return f"{entry['path']} is missing"
        if file.stat().st_size != entry["bytes"]:
            return f"{entry['path']} has {file.stat().st_size} bytes instead of {entry['bytes']}"
        if number % size == rank and sha256_of(file) != entry["sha256"]:
            return f"{entry['path']} was altered"
    return None


def _failure_of(action: Callable[[], None], path: Path) -> UserError | None:
    """The user's error that `action` ended with, if any."""
    try:
        with disk_errors(path):
            action()
    except UserError as error:
        return error
    return None


def _ends_phase(path: Path) -> bool:
    try:
        return read_manifest(path)[0].ends_phase is not None
    except _UNREADABLE:
        return False


def _part_entry(folder: Path, rank: int) -> Path:
    return folder / f".part-{rank:05d}.json"


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    sync(path)
    return {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
