"""A training that goes on from another one: of the same run folder after a change of its recipe, or as a branch.

    artifacts/train-<identity>[.partial]/     trainings of this run folder
    artifacts/replaced-1-train-<identity>/    set aside by `twofold run RECIPE --fresh`
    branch/                                   what a branch begins with: a checkpoint, metrics and weights up to it
        lineage.json                          where it comes from

Contract: `adopt` fills a new training folder before its ranks start. Of the run folder's trainings whose trained steps
this recipe does not change (pretrain/checkpoints/past.py), the one that has come furthest goes on: an unfinished one is
moved, a finished one stays and shares its files by hard links. If there are trainings and this recipe changes the past
of all of them, that is a `UserError`: nothing trained is left behind unasked. Checkpoints are linked or moved last, so
an adoption that was killed is done again.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.schema import Recipe
from pretrain import goodput, layout
from pretrain.checkpoints import manifest, past
from pretrain.checkpoints.manifest import State, committed, read_manifest
from pretrain.data.plan import Plan, check_supply
from tokenizer.shards import Index
from twofold.errors import Problem, UserError, user_error
from twofold.files import disk_errors, sha256_of, write_json

BRANCH_DIR = "branch"
LINEAGE_FILE = "lineage.json"
_METRICS_FILE = "metrics.jsonl"
_WANDB_FILE = "wandb-run-id"
_PARTIAL = ".partial"
_OF_EVERY_START = ("recipe.yaml", "plan.html", "work")
"""Files of a training folder that each start writes anew."""


@dataclass(frozen=True)
class _Training:
    """A training folder and its newest checkpoint."""

    folder: Path
    checkpoint: Path
    state: State

    @property
    def is_finished(self) -> bool:
        return self.folder.suffix != _PARTIAL


def branch_fingerprint(run_dir: Path) -> dict[str, str]:
    """What tells a branch from a run that started at step 0."""
    file = run_dir / BRANCH_DIR / LINEAGE_FILE
    return {"branch": sha256_of(file)} if file.exists() else {}


def set_aside(run_dir: Path) -> list[Path]:
    """Rename all trainings of a run folder, so that the next one begins anew; return the new paths."""
    moved = []
    for folder in sorted((run_dir / "artifacts").glob("train-*")):
        names = (folder.with_name(f"replaced-{number}-{folder.name}") for number in itertools.count(1))
        moved.append(folder.rename(next(name for name in names if not name.exists())))
    return moved


def adopt(recipe: Recipe, index: Index, start_from: str | None, out: Path) -> State | None:
    """Go on in `out` from a training that exists; its state, or None if there is none or `out` has its own."""
    own = out / layout.CHECKPOINTS_DIR
    if committed(own) or manifest.aside(own):
        return None
    run_dir = Path(recipe.run_dir)
    check_supply(recipe.phases, index.tokens("train"))
    identity = past.identity(recipe, index, start_from)
    refused: list[Problem] = []
    for training in sorted(_trainings(run_dir, out), key=lambda one: one.state.step, reverse=True):
        saved = past.saved_identity(training.checkpoint, training.state)
        problems = past.problems(training.checkpoint, saved, identity, training.state.step)
        if not problems:
            with disk_errors(out):
                _continue(training, Plan(recipe), out)
            return training.state
        refused = refused or problems
    if refused:
        raise UserError(refused)
    if (run_dir / BRANCH_DIR / LINEAGE_FILE).exists():
        with disk_errors(out):
            return _begin_branch(run_dir / BRANCH_DIR, identity, Plan(recipe), out)
    return None


def copy_start(source: Path, checkpoint: Path, plan: Plan, out: Path) -> None:
    """Share with `out` what a training had at a checkpoint, but for the checkpoint itself."""
    out.mkdir(parents=True, exist_ok=True)
    step = manifest.step_of(checkpoint)
    ended = [phase.name for number, phase in enumerate(plan.phases) if plan.first_step(number + 1) <= step]
    shared = [source / layout.weights_file(name) for name in ended]
    for file in (path for path in shared if path.exists()):
        link(file, out / file.relative_to(source))
    for name in (_METRICS_FILE, layout.TOKEN_COUNTS_FILE):
        if (source / name).exists():
            shutil.copyfile(source / name, out / name)
    if (source / layout.INCIDENTS_DIR).exists():
        shutil.copytree(source / layout.INCIDENTS_DIR, out / layout.INCIDENTS_DIR, dirs_exist_ok=True)


def share_checkpoint(checkpoint: Path, root: Path, **changes: Any) -> None:
    """Commit a checkpoint in another folder with the same files; `changes` are fields of its state."""
    final = root / checkpoint.name
    partial = manifest.partial_of(final)
    manifest.remove(partial)
    state, files = read_manifest(checkpoint)
    changes = {"identity": past.saved_identity(checkpoint, state), **changes}
    for entry in files:
        link(checkpoint / entry["path"], partial / entry["path"])
    manifest.write(partial, replace(state, **changes), files, manifest.made_with(checkpoint))
    os.replace(partial, final)


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none; a target that exists is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _trainings(run_dir: Path, out: Path) -> Iterator[_Training]:
    for folder in sorted((run_dir / "artifacts").glob("train-*")):
        found = committed(folder / layout.CHECKPOINTS_DIR)
        if not found or folder.resolve() == out.resolve():
            continue
        try:
            yield _Training(folder, found[-1], read_manifest(found[-1])[0])
        except manifest.Damaged as error:
            hint = "restore it, or rename it so that the checkpoint before it is used"
            raise user_error(str(found[-1]), None, f"is damaged ({error})", hint) from None


def _continue(training: _Training, plan: Plan, out: Path) -> None:
    if not training.is_finished:
        _move(training.folder, out)
        return
    copy_start(training.folder, training.checkpoint, plan, out)
    if (training.folder / _WANDB_FILE).exists():
        shutil.copyfile(training.folder / _WANDB_FILE, out / _WANDB_FILE)
    if (training.folder / goodput.TIMES_DIR).exists():
        shutil.copytree(training.folder / goodput.TIMES_DIR, out / goodput.TIMES_DIR, dirs_exist_ok=True)
    # The newest is shared first, so that an adoption that was killed is never taken for one of an older checkpoint.
    for checkpoint in reversed(committed(training.folder / layout.CHECKPOINTS_DIR)):
        share_checkpoint(checkpoint, out / layout.CHECKPOINTS_DIR)


def _move(folder: Path, out: Path) -> None:
    """Move what an unfinished training has left, its checkpoints last."""
    moving = [path for path in folder.iterdir() if path.name not in _OF_EVERY_START]
    for child in sorted(moving, key=lambda path: path.name == layout.CHECKPOINTS_DIR):
        target = out / child.name
        if target.exists():  # left by a start that was killed before its first checkpoint
            target.rename(out / f"{child.name}.before-adoption")
        child.rename(target)
    shutil.rmtree(folder, ignore_errors=True)


def _begin_branch(seed: Path, identity: dict[str, Any], plan: Plan, out: Path) -> State:
    (checkpoint,) = committed(seed / layout.CHECKPOINTS_DIR)
    state = read_manifest(checkpoint)[0]
    if state.identity["tokenizer"] != identity["tokenizer"]:
        raise user_error(
            str(checkpoint),
            None,
            "was trained with another tokenizer than this branch has",
            "leave `tokenizer` and the data that it learns from as they were, and change the mixtures only",
        )
    copy_start(seed, checkpoint, plan, out)
    lineage = (*state.lineage, json.loads((seed / LINEAGE_FILE).read_text(encoding="utf-8")))
    share_checkpoint(checkpoint, out / layout.CHECKPOINTS_DIR, identity=identity, lineage=lineage)
    return state


def write_branch(source: Path, checkpoint: Path, plan: Plan, run_dir: Path) -> None:
    """Make the folder that a branch begins with; its lineage is written last."""
    seed = run_dir / BRANCH_DIR
    with disk_errors(seed):
        copy_start(source, checkpoint, plan, seed)
        share_checkpoint(checkpoint, seed / layout.CHECKPOINTS_DIR)
        entry = {
            "run": str(source.resolve()),
            "checkpoint": checkpoint.name,
            "step": manifest.step_of(checkpoint),
            "manifest_sha256": sha256_of(checkpoint / manifest.MANIFEST_FILE),
        }
        write_json(seed / LINEAGE_FILE, entry)


def share_artifacts(source: Path, run_dir: Path, stages: Sequence[str]) -> int:
    """Link the finished artifacts of some stages into another run folder; return how many there are."""
    folder = run_dir / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    found = [path for path in (source / "artifacts").glob("*") if path.name.rpartition("-")[0] in stages]
    for path in (path for path in found if (path / manifest.MANIFEST_FILE).exists()):
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    return len(found)
