"""Which training a changed recipe goes on from, and what a branch begins with; checkpoints without an engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from configs.recipe import dump_recipe
from launch import lineage
from launch.actions.branch import branch
from pretrain import goodput, layout
from pretrain.checkpoints import past, training_state
from pretrain.checkpoints.checkpoint import Checkpoints
from pretrain.checkpoints.manifest import State, committed, read_manifest
from pretrain.data.plan import Plan
from pretrain.engine.distributed import Ranks
from pretrain.goodput import Ledger
from tests.pretrain import world
from tokenizer.shards import Index, read_index
from twofold.errors import UserError

QUIET = Console(quiet=True)
ALONE = Ranks(0, 1, torch.device("cpu"))
ATTEMPTS = {"stability__attempts": 9}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return read_index(world.write_shards(tmp_path_factory.mktemp("shards")))


def _recipe(run_dir: Path, **changes: Any) -> Any:
    return world.recipe(run_dir=str(run_dir), **changes)


def _train(folder: Path, recipe: Any, index: Index, *steps: int) -> Path:
    """A training folder as the trainer leaves it after these steps."""
    plan = Plan(recipe)
    for step in steps:
        checkpoints = Checkpoints(
            folder / layout.CHECKPOINTS_DIR, 9, past.identity(recipe, index), ALONE, dump_recipe(recipe)
        )
        phase = plan.phase_ended_by(step)
        tokens = plan.at(step - 1).tokens_after
        name = phase.name if phase else None
        checkpoints.begin(
            State(step, tokens, 1.0, name, "tokens", 1, checkpoints.identity, step),
            {kind: {"w": torch.full((4,), float(step))} for kind in training_state.KINDS},
        )
        checkpoints.commit()
        if phase:
            (folder / layout.WEIGHTS_DIR).mkdir(exist_ok=True)
            (folder / layout.weights_file(phase.name)).write_text(phase.name)
    lines = [{"event": "train", "step": step, "phase": "general"} for step in range(1, max(steps) + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "wandb-run-id").write_text("abc")
    Ledger(folder).write("done")
    (folder / "summary.json").write_text("{}")
    return folder


def _adopt(run_dir: Path, index: Index, name: str = "train-new.partial", **changes: Any) -> State | None:
    out = run_dir / "artifacts" / name
    out.mkdir(parents=True, exist_ok=True)
    return lineage.adopt(_recipe(run_dir, **changes), index, None, out)


def test_an_unfinished_training_moves_to_the_changed_recipe(tmp_path: Path, index: Index) -> None:
    old = _train(tmp_path / "artifacts" / "train-old.partial", _recipe(tmp_path), index, 4, 8)
    state = _adopt(tmp_path, index, **ATTEMPTS)
    assert state is not None
    assert state.step == 8
    out = tmp_path / "artifacts" / "train-new.partial"
    assert not old.exists()
    assert [path.name for path in committed(out / "checkpoints")] == ["step-00000004", "step-00000008"]
    assert (out / "metrics.jsonl").read_text().count("\n") == 8
    assert _adopt(tmp_path, index, **ATTEMPTS) is None  # it has its own now


def test_a_finished_training_stays_and_shares_its_files(tmp_path: Path, index: Index) -> None:
    old = _train(tmp_path / "artifacts" / "train-old", _recipe(tmp_path), index, 8, 14)
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    third = {"name": "long", "tokens": 1024, "mixture": {"law": 1.0}}
    phases = [*_recipe(tmp_path).model_dump(mode="json")["phases"]]
    phases.append({**phases[-1], **third})
    phases[-1]["lr_scheduler"]["jump"] = True
    state = _adopt(tmp_path, index, phases=phases)
    assert state is not None
    assert state.step == 14
    out = tmp_path / "artifacts" / "train-new.partial"
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    assert (out / layout.weights_file("domain")).read_text() == "domain"
    assert not (out / "summary.json").exists()
    assert (out / "wandb-run-id").read_text() == "abc"
    assert goodput.read(out) == goodput.read(old), "the account is of the run since its first start"
    newest = committed(out / "checkpoints")[-1]
    file = training_state.file_name(0, 1)
    assert (newest / file).samefile(old / "checkpoints" / newest.name / file)


def test_a_kill_while_moving_loses_nothing(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    _train(tmp_path / "artifacts" / "train-old.partial", _recipe(tmp_path), index, 4, 8)
    rename = Path.rename
    moves = 0

    def die_at_the_second(self: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        _adopt(tmp_path, index, **ATTEMPTS)
    monkeypatch.undo()
    state = _adopt(tmp_path, index, **ATTEMPTS)
    assert state is not None
    assert state.step == 8
    out = tmp_path / "artifacts" / "train-new.partial"
    assert {"metrics.jsonl", "wandb-run-id", "weights", "checkpoints"} <= {path.name for path in out.iterdir()}


def test_a_changed_past_is_refused_with_both_ways_out(tmp_path: Path, index: Index) -> None:
    old = _train(tmp_path / "artifacts" / "train-old", _recipe(tmp_path), index, 8)
    with pytest.raises(UserError, match=r"optimizer.weight_decay 0.1.*--fresh.*twofold branch"):
        _adopt(tmp_path, index, optimizer__weight_decay=0.3)
    moved = lineage.set_aside(tmp_path)
    assert [path.name for path in moved] == ["replaced-1-train-new.partial", "replaced-1-train-old"]
    assert (moved[1] / "checkpoints" / "step-00000008").exists()
    assert not old.exists()
    assert _adopt(tmp_path, index, optimizer__weight_decay=0.3) is None


def test_the_furthest_training_whose_past_agrees_goes_on(tmp_path: Path, index: Index) -> None:
    _train(tmp_path / "artifacts" / "train-a", _recipe(tmp_path), index, 8)
    _train(tmp_path / "artifacts" / "train-b", _recipe(tmp_path), index, 10)
    _train(tmp_path / "artifacts" / "train-c", _recipe(tmp_path, seed=8), index, 14)
    state = _adopt(tmp_path, index, **ATTEMPTS)
    assert state is not None
    assert state.step == 10


def test_a_branch_begins_with_the_checkpoint_under_its_own_identity(tmp_path: Path, index: Index) -> None:
    run, new = tmp_path / "run", tmp_path / "new"
    source = _train(run / "artifacts" / "train-old", _recipe(run), index, 4, 8, 10)
    shards = run / "artifacts" / "shards-abc"
    shards.mkdir()
    (shards / "manifest.json").write_text("{}")
    changes = {"phases__1__lr_scheduler__lr": 1e-4, "phases__1__lr_scheduler__jump": True}
    branch(_recipe(new, **changes), run, None, "general", QUIET)
    assert (new / "artifacts" / "shards-abc").resolve() == shards
    fingerprint = lineage.branch_fingerprint(new)
    assert set(fingerprint) == {"branch"}
    shutil.rmtree(source)  # a branch needs nothing of the run anymore
    state = _adopt(new, index, **changes)
    assert state is not None
    assert state.step == 8
    out = new / "artifacts" / "train-new.partial"
    (checkpoint,) = committed(out / "checkpoints")
    kept = read_manifest(checkpoint)[0]
    assert [entry["step"] for entry in kept.lineage] == [8]
    assert kept.identity == past.identity(_recipe(new, **changes), index)
    ours = Checkpoints(out / "checkpoints", 2, kept.identity, ALONE)
    found = ours.newest(pytest.fail)
    assert found is not None
    assert found[0].optimizer_steps == 8
    assert (out / layout.weights_file("general")).exists()


@pytest.mark.parametrize(
    ("options", "changes", "words"),
    [
        ((5, None), {}, r"--step = 5: has no checkpoint; the steps with one are 4, 8 \(end of general\), 14"),
        ((None, "long"), {}, r"--phase = 'long': has no checkpoint"),
        ((8, None), {"model__norm_eps": 1e-6}, "model.norm_eps 1e-05"),
        ((8, None), {"seed": 3}, "seed 7"),
        ((8, None), {"phases__0__global_batch_size": 512}, r"phases: puts step 8 at .*domain.*the run had it at"),
        ((14, None), {}, "ends at step 14, and the checkpoint is of step 14"),
    ],
)
def test_what_a_branch_cannot_be(
    tmp_path: Path, index: Index, options: tuple[Any, Any], changes: dict[str, Any], words: str
) -> None:
    run = tmp_path / "run"
    _train(run / "artifacts" / "train-old", _recipe(run), index, 4, 8, 14)
    recipe = _recipe(tmp_path / "new", **changes)
    with pytest.raises(UserError, match=words):
        branch(recipe, run, *options, QUIET)
    assert not (tmp_path / "new").exists()


def test_a_branch_needs_a_folder_of_its_own(tmp_path: Path, index: Index) -> None:
    run = tmp_path / "run"
    _train(run / "artifacts" / "train-old", _recipe(run), index, 8)
    with pytest.raises(UserError, match="is the run to branch from"):
        branch(_recipe(run), run, None, None, QUIET)
    branch(_recipe(tmp_path / "new"), run, None, None, QUIET)
    with pytest.raises(UserError, match="holds a training already"):
        branch(_recipe(tmp_path / "new"), run, None, None, QUIET)
