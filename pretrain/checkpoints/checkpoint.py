"""Checkpoints that are complete or absent, written while training continues.

    checkpoints/step-00000100/            committed: manifest.json exists, and every file that it lists
        state/rank-*.safetensors          see training_state.py
        recipe.yaml                       the resolved recipe
        manifest.json                     State, versions, and every file with size and SHA-256; see manifest.py

Contract: `begin` copies the tensors to host memory and returns; a thread of each rank writes, syncs and hashes its
file. Once every rank's part is on the disk, `commit` writes the manifest and renames the folder, so a partial
checkpoint is never used.

`newest`: the first rank alone lists the folder and chooses; the others take its choice, so a stale listing on one host
cannot send ranks to different checkpoints. Every byte is compared with the manifest, each rank reading its share. A
damaged checkpoint is set aside, with a warning, once an earlier one is found to be intact. If there are checkpoints
and none can be used, or the newest one is of another training (past.py), the start ends with a `UserError`: training
never starts anew by itself. What one rank sees and the first one does not is no damage but a failing file system, and
ends the start with an error on which launchers restart.

Cost: training pauses for the copy; host memory holds one copy of the rank's state until it is written.
Retention: the newest `keep`, and the end of every phase forever.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pretrain.checkpoints import manifest, past, training_state
from pretrain.checkpoints.manifest import MANIFEST_FILE, RECIPE_FILE, Damaged, State, read_manifest
from pretrain.checkpoints.training_state import Parts
from pretrain.engine.distributed import OtherRankFailed, Ranks
from twofold.errors import UserError, user_error
from twofold.files import disk_errors, sha256_of, sync, write_json

_PATIENCE_S = 30.0
"""How long a rank waits until its file system shows what the first rank sees."""


class Checkpoints:
    """The checkpoints of one run; methods are collective except for `is_written`."""

    def __init__(
        self,
        root: Path,
        keep: int,
        identity: Mapping[str, Any],
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

        Raises `UserError` if it belongs to another training, and, without `upto`, if none of those that exist is
        intact.
        """
        damaged: list[tuple[Path, str]] = []
        for name in self.ranks.on_first(lambda: self._names(upto)):
            path = self.root / name
            damage = self._damage(path)
            if damage is not None:
                damaged.append((path, damage))
                continue
            state = self.ranks.on_first(partial(self._opened, path))
            for broken, why in damaged:
                moved = self.ranks.on_first(partial(manifest.set_aside, broken)).name
                warn(f"{broken} is damaged ({why}) and now named {moved}; using the previous checkpoint")
            return state, path
        if upto is None:
            self.ranks.on_first(lambda: self._refuse_to_start_anew(damaged))
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
        final = manifest.folder_of(self.root, state.step)
        folder = manifest.partial_of(final)
        failure = _failure_of(lambda: self._prepare(final, folder), folder) if self.ranks.is_first else None
        self._stop_if_any_failed(failure)
        self._writing = _Writing(state, folder, parts, self.ranks)
        self._writing.start()

    def commit(self) -> Path:
        """Complete the pending checkpoint, after waiting for this rank's part."""
        writing = self._writing
        assert writing is not None, "nothing is pending"
        writing.join()
        self._writing = None
        final = manifest.folder_of(self.root, writing.state.step)
        try:
            self._stop_if_any_failed(writing.failure)
            failure: BaseException | None = None
            if self.ranks.is_first:
                failure = _failure_of(lambda: self._rename(writing, final), final)
            self._stop_if_any_failed(failure)
        except (UserError, OtherRankFailed):
            if self.ranks.is_first:
                manifest.remove(writing.folder)  # a full disk gets its space back
            raise
        return final

    def drop_after(self, step: int) -> None:
        """Remove every checkpoint of a later step."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        self.ranks.barrier()
        if self.ranks.is_first:
            for path in (*manifest.committed(self.root), *manifest.partials(self.root)):
                if manifest.step_of(path) > step:
                    manifest.remove(path)
        self.ranks.barrier()

    def _names(self, upto: int | None) -> list[str]:
        """The names of the committed checkpoints up to a step, newest first."""
        found = reversed(manifest.committed(self.root))
        return [path.name for path in found if upto is None or manifest.step_of(path) <= upto]

    def _opened(self, path: Path) -> State:
        """The state of an intact checkpoint of this training."""
        state, _ = read_manifest(path)
        problems = past.problems(path, past.saved_identity(path, state), self.identity, state.step)
        if problems:
            raise UserError(problems)
        return state

    def _damage(self, path: Path) -> str | None:
        """What is wrong with a checkpoint, the same answer on every rank; each reads its share of the files."""
        found: str | tuple[str, list[manifest.Entry]] = self.ranks.on_first(lambda: _described(path))
        if isinstance(found, str):
            return found
        digest, files = found
        share = range(self.ranks.rank, len(files), self.ranks.size)
        mine = next(((n, text) for n in share if (text := manifest.damage_in(path, files[n]))), None)
        seen = self.ranks.is_first or _sees(path / MANIFEST_FILE, digest)
        reports = self.ranks.gather((mine, seen))
        for rank, (report, sees) in enumerate(reports):
            if report and self.ranks.on_first(partial(manifest.damage_in, path, files[report[0]])):
                return str(report[1])
            if report or not sees:
                what = report[1] if report else f"{MANIFEST_FILE} is another one"
                raise RuntimeError(f"rank {rank} does not see {path} as the first rank does: {what}")
        return None

    def _refuse_to_start_anew(self, damaged: list[tuple[Path, str]]) -> None:
        aside = manifest.aside(self.root)
        if not damaged and not aside:
            return
        path, why = damaged[0] if damaged else (aside[-1], "it was set aside as damaged")
        count = len(damaged) + len(aside)
        raise user_error(
            str(path),
            None,
            f"is damaged ({why}), and none of the {count} checkpoints can be used",
            "restore one of them from a copy, or train from step 0 with `twofold run RECIPE --fresh`",
        )

    def _prepare(self, final: Path, folder: Path) -> None:
        manifest.remove(folder)
        if (final / MANIFEST_FILE).exists():
            manifest.set_aside(final)
        else:
            manifest.remove(final)  # a removal that a kill cut short
        (folder / training_state.STATE_DIR).mkdir(parents=True)
        (folder / RECIPE_FILE).write_text(self._recipe, encoding="utf-8")

    def _stop_if_any_failed(self, failure: BaseException | None) -> None:
        if not self.ranks.all_true(failure is None):
            raise failure or OtherRankFailed(str(self.root))

    def _rename(self, writing: _Writing, final: Path) -> None:
        folder = writing.folder
        listed = []
        for rank in range(self.ranks.size):
            path = _part_entry(folder, rank)
            listed.append(json.loads(path.read_text(encoding="utf-8")))
            path.unlink()
        listed.append(_entry(folder / RECIPE_FILE, folder))
        manifest.write(folder, writing.state, listed, self._made_with)
        os.replace(folder, final)
        sync(self.root)
        self._retain()

    def _retain(self) -> None:
        """Remove old checkpoints; those whose manifest cannot be read are neither counted nor removed."""
        passing = []
        for path in manifest.committed(self.root):
            try:
                if read_manifest(path)[0].ends_phase is None:
                    passing.append(path)
            except (Damaged, UserError):
                continue
        for path in (*passing[: -self.keep], *manifest.partials(self.root)):
            manifest.remove(path)


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


def _described(path: Path) -> str | tuple[str, list[manifest.Entry]]:
    """The manifest's hash and the files it lists; a text if it is damaged."""
    try:
        _, files = read_manifest(path)
    except Damaged as error:
        return str(error)
    return sha256_of(path / MANIFEST_FILE), files


def _sees(file: Path, digest: str) -> bool:
    """Whether this host sees a file with these contents, which may take a shared file system a while."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        if file.exists() and sha256_of(file) == digest:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(1)


def _failure_of(action: Callable[[], None], path: Path) -> UserError | None:
    """The user's error that `action` ended with, if any."""
    try:
        with disk_errors(path):
            action()
    except UserError as error:
        return error
    return None


def _part_entry(folder: Path, rank: int) -> Path:
    return folder / f".part-{rank:05d}.json"


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    sync(path)
    return {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
