"""Which folders are checkpoints, and what a checkpoint says of itself. No torch.

    step-00000100              a checkpoint: `step-`, digits, and a manifest.json
    step-00000100.partial      being written, or left by a kill
    step-00000100.damaged-1    set aside by a start that went on from an earlier one

Contract: this is the only place that knows these names. Anything else in the folder belongs to a person (a copy named
`step-4-backup`) and is never read, counted or removed. `read_manifest` opens every format in `FORMATS`; another one is
refused by its number, and a manifest that cannot be parsed is `Damaged`. A file system that fails (EIO, ESTALE) is
waited for, and then raises its own `OSError`: that says nothing about the checkpoint.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from twofold.errors import user_error
from twofold.files import patiently, read_json, sha256_of, size_of, write_json

MANIFEST_FILE = "manifest.json"
RECIPE_FILE = "recipe.yaml"
FORMAT = 3
FORMATS = (2, 3)
"""2: `identity` holds digests, and recipe.yaml the values; 3: `identity` holds the values."""
_PARTIAL = ".partial"
_NAME = re.compile(r"step-(\d+)")
NAME_FOR_GREP = "step-[0-9]+"
"""The same for `grep -E`."""
_PARTIAL_NAME = re.compile(r"step-\d+\.partial")
_ASIDE_NAME = re.compile(r"step-\d+\.damaged-\d+")

Entry = dict[str, Any]
"""A file of a checkpoint: `path` relative to its folder, `bytes`, `sha256`."""


class Damaged(Exception):
    """A manifest that cannot be parsed."""


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
    identity: Mapping[str, Any]
    """What decided the weights, by part; see past.py."""
    optimizer_steps: int = 0
    """Updates of the weights so far."""
    skipped_steps: tuple[int, ...] = ()
    """Indexes of steps that had no effect, and of those to skip after a rollback."""
    guard: Mapping[str, Any] = field(default_factory=dict)
    """The spike guard's memory; see skip_step.py."""
    lineage: tuple[Mapping[str, Any], ...] = ()
    """The checkpoints of other runs that this run branched from, oldest first; see launch/lineage.py."""


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or will be."""
    return root / f"step-{step:08d}"


def partial_of(path: Path) -> Path:
    """Where a checkpoint is written before it is committed."""
    return path.with_name(path.name + _PARTIAL)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    found = _NAME.match(path.name)
    assert found is not None, path
    return int(found[1])


def committed(root: Path) -> list[Path]:
    """Committed checkpoints of a run, oldest first."""
    return sorted((path for path in _named(root, _NAME) if size_of(path / MANIFEST_FILE) is not None), key=step_of)


def partials(root: Path) -> list[Path]:
    """Checkpoints that are being written, or that a kill left."""
    return _named(root, _PARTIAL_NAME)


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it is no longer one; return its new path."""
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.damaged-{number}")
        if not aside.exists():
            path.rename(aside)
            return aside
    raise AssertionError


def aside(root: Path) -> list[Path]:
    """Checkpoints that were set aside."""
    return _named(root, _ASIDE_NAME)


def remove(path: Path) -> None:
    """Remove a checkpoint so that a kill halfway leaves nothing that looks committed."""
    (path / MANIFEST_FILE).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def read_manifest(path: Path) -> tuple[State, list[Entry]]:
    """State and file list of a committed checkpoint."""
    try:
        raw = read_json(path / MANIFEST_FILE)
        number, made_with = raw.pop("format"), raw.pop("made_with", {})
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{MANIFEST_FILE}: {error}") from None
    if number not in FORMATS:
        writer = made_with.get("twofold", "unknown")
        problem = f"is the format of this checkpoint, and this version reads {' and '.join(map(str, FORMATS))}"
        hint = f"go on with the version of Twofold that wrote it ({writer}), or train anew with --fresh"
        raise user_error(f"{path}/{MANIFEST_FILE} format", number, problem, hint)
    try:
        files = raw.pop("files")
        # The oldest manifests of format 2 name the field otherwise.
        skipped = raw.pop("without_effect") if "without_effect" in raw else raw["skipped_steps"]
        raw |= {"skipped_steps": tuple(skipped), "lineage": tuple(raw.get("lineage", ()))}
        return State(**raw), files
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{MANIFEST_FILE}: {error}") from None


def made_with(path: Path) -> dict[str, str]:
    """Versions of what wrote a checkpoint."""
    found: dict[str, str] = read_json(path / MANIFEST_FILE).get("made_with", {})
    return found


def write(path: Path, state: State, files: list[Entry], made_with: Mapping[str, str]) -> None:
    """Write the manifest, which is the last file of a checkpoint."""
    head = {"format": FORMAT, "made_with": dict(made_with), **asdict(state)}
    write_json(path / MANIFEST_FILE, {**head, "files": files})


def verified(path: Path) -> State:
    """The state of a checkpoint, after comparing every byte with its manifest; `UserError` if it is damaged."""
    damage = damage_of(path)
    if damage is not None:
        raise user_error(str(path), None, f"is damaged ({damage})", "name another checkpoint")
    return read_manifest(path)[0]


def damage_of(path: Path) -> str | None:
    """What is wrong with a checkpoint, if anything; reads every byte."""
    try:
        _, files = read_manifest(path)
    except Damaged as error:
        return str(error)
    return next((text for entry in files if (text := damage_in(path, entry))), None)


def damage_in(path: Path, entry: Entry) -> str | None:
    """What is wrong with one file of a checkpoint, if anything."""
    file = path / entry["path"]
    size = size_of(file)
    if size is None:
        return f"{entry['path']} is missing"
    if size != entry["bytes"]:
        return f"{entry['path']} has {size} bytes instead of {entry['bytes']}"
    return None if sha256_of(file) == entry["sha256"] else f"{entry['path']} was altered"


def _named(root: Path, pattern: re.Pattern[str]) -> list[Path]:
    """The folders in `root` whose whole name matches; a folder that cannot be listed now is waited for."""

    def listed() -> list[Path]:
        names = filter(pattern.fullmatch, os.listdir(root)) if root.is_dir() else ()
        return sorted(path for name in names if (path := root / name).is_dir())

    return patiently(listed)
