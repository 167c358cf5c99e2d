"""`twofold branch`: a new run that starts from a checkpoint of another one, with moments, data position and lineage.

Contract: writes the new run folder only; files are shared by links, so many branches of one run cost little. The
recipe may differ in anything but the model, the vocabulary, the seed and where in the data the checkpoint stands.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from configs.phase_schema import Phase
from configs.schema import Recipe
from launch import lineage
from launch.actions.status import training_folder
from launch.preflight import only_run
from launch.stages import STAGES, stages_of
from pretrain import layout
from pretrain.checkpoints import past
from pretrain.checkpoints.manifest import committed, read_manifest, step_of, verified
from pretrain.data.plan import Plan, Schedule
from twofold.errors import Problem, UserError, user_error

_FIXED = ("model", "vocab_size", "seed")
"""Parts of the identity that a branch cannot change."""
_BEFORE_TRAINING = STAGES[: STAGES.index("launch.training")]


def branch(recipe: Recipe, run: Path, step: int | None, phase: str | None, console: Console) -> None:
    """Prepare the recipe's run folder to go on from a checkpoint of `run`: a step's, a phase's last, or the newest."""
    source, run_dir = training_folder(run), Path(recipe.run_dir)
    _check_is_new(run_dir, run, source)
    checkpoint = _chosen(source, step, phase)
    state = verified(checkpoint)
    saved = past.saved_identity(checkpoint, state)
    _check_goes_on(recipe, checkpoint, saved, state.step)
    with only_run(run_dir):
        names = [stage.name for stage in stages_of(recipe)][: len(_BEFORE_TRAINING)]
        shared = lineage.share_artifacts(source.parent.parent, run_dir, names)
        lineage.write_branch(source, checkpoint, Plan(recipe), run_dir)
    console.print(
        f"  {run_dir} begins at step {state.step:,} of {source}, and shares {shared} artifacts", soft_wrap=True
    )
    console.print(f"  `twofold run RECIPE run_dir={run_dir} …` goes on from there", soft_wrap=True)


def _check_is_new(run_dir: Path, run: Path, source: Path) -> None:
    if run_dir.resolve() in (run.resolve(), source.resolve().parent.parent):
        raise user_error("run_dir", str(run_dir), "is the run to branch from", "name a new folder: run_dir=runs/NAME")
    begun = [*(run_dir / "artifacts").glob("train-*"), *(run_dir / lineage.BRANCH_DIR).glob(lineage.LINEAGE_FILE)]
    if begun:
        raise user_error("run_dir", str(run_dir), "holds a training already", "name a new folder: run_dir=runs/NAME")


def _chosen(source: Path, step: int | None, phase: str | None) -> Path:
    """The checkpoint of a step or at a phase's end; the newest if neither is given."""
    found = committed(source / layout.CHECKPOINTS_DIR)
    if not found:
        raise user_error(str(source), None, "has no committed checkpoint yet", "wait for the first one")
    if step is None and phase is None:
        return found[-1]
    ends = {path: read_manifest(path)[0].ends_phase for path in found}
    wanted = [path for path in found if (step_of(path) == step if phase is None else ends[path] == phase)]
    if not wanted:
        steps = ", ".join(
            f"{step_of(path)} (end of {ends[path]})" if ends[path] else str(step_of(path)) for path in found
        )
        option, value = ("--step", step) if phase is None else ("--phase", phase)
        raise user_error(option, value, f"has no checkpoint; the steps with one are {steps}", "name one of them")
    return wanted[-1]


def _check_goes_on(recipe: Recipe, checkpoint: Path, saved: dict[str, object], done: int) -> None:
    """Refuse a recipe whose model or data position is not the checkpoint's."""
    present = layout.past(recipe)
    was, now = ({part: identity[part] for part in _FIXED} for identity in (saved, present))
    hint = "leave model, vocabulary and seed as they were"
    problems = [Problem(one.field, one.value, one.problem, hint) for one in past.problems(checkpoint, was, now, done)]
    phases = saved["phases"]
    assert isinstance(phases, list)
    before, after = Schedule([Phase.model_validate(phase) for phase in phases]), Plan(recipe)
    if done >= after.total_steps:
        problem = f"ends at step {after.total_steps}, and the checkpoint is of step {done}"
        problems.append(Problem("phases", None, problem, "add a phase, or tokens to the last one"))
    elif _position(before, done) != _position(after, done):
        problem = (
            f"puts step {done} at {_position(after, done)} sequences, and the run had it at {_position(before, done)}"
        )
        problems.append(
            Problem("phases", None, problem, "leave batches and lengths before the checkpoint as they were")
        )
    if problems:
        raise UserError(problems)


def _position(schedule: Schedule, done: int) -> dict[str, int]:
    """Sequences behind step `done`, by phase, of those that have begun."""
    behind = {phase.name: schedule.samples_behind(number, done) for number, phase in enumerate(schedule.phases)}
    return {name: sequences for name, sequences in behind.items() if sequences}
