"""The order in which the trainer calls its hooks, and that the guard's verdict decides between update and skip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import world

from pretrain.data.order import Order
from pretrain.data.plan import Plan, Step, token_counts
from pretrain.engine.distributed import Ranks
from pretrain.hooks.checkpointing import Checkpointer
from pretrain.hooks.hook import Hook, Progress, Run, StepResult, StepSums
from pretrain.hooks.skip_step import SpikeGuard
from pretrain.hooks.stop_signals import StopSignals
from pretrain.hooks.validating import Validate
from pretrain.trainer import Trainer
from tokenizer.shards import read_index
from twofold.exit_codes import EXIT_CODE_STOPPED


class Engine:
    """Counts updates; the gradient norms are those that it is given."""

    def __init__(self, norms: dict[int, float]) -> None:
        self.ranks = Ranks(0, 1, torch.device("cpu"))
        self.calls: list[str] = []
        self.norms = norms

    def accumulate(self, *_: object) -> tuple[float, float]:
        return 3.0, 0.5

    def grad_norm(self) -> float:
        return self.norms.get(len(self.calls), 1.0)

    def step(self, lr: float) -> None:
        self.calls.append("step")

    def skip_step(self) -> None:
        self.calls.append("skip")


class Recorder(Hook):
    """Remembers the calls."""

    calls: list[Any]

    def on_start(self) -> None:
        self.calls = ["start"]

    def after_step(self, result: StepResult) -> None:
        self.calls.append((result.step.index, result.judgement.verdict, result.sums.loss))

    def after_advance(self, step: Step, stopping: bool) -> None:
        self.calls.append((self.run.progress.done, stopping))


@pytest.fixture
def trainer() -> Trainer:
    recipe = world.recipe()
    plan = Plan(recipe)
    data = SimpleNamespace(batches=SimpleNamespace(read=lambda *_: torch.zeros(2, 33, dtype=torch.int64)))
    quiet = SimpleNamespace(event=lambda *_, **__: None, at=lambda *_: None, measured=lambda **_: None)
    engine = Engine({1: float("nan")})
    run = Run(
        recipe, Path("out"), cast(Any, data), plan, cast(Any, engine), cast(Any, quiet), cast(Any, quiet), Progress(0)
    )
    checkpointer = SimpleNamespace(checkpoints=SimpleNamespace(is_written=True), is_due=False)
    stop = SimpleNamespace(asked=False)
    hooks = [Recorder(run)]
    return Trainer(run, SpikeGuard(recipe.stability), cast(Checkpointer, checkpointer), hooks, cast(StopSignals, stop))


def test_hooks_see_every_step_and_left_out_steps_only_advance(trainer: Trainer) -> None:
    trainer.run.progress.skipped_steps.add(2)
    assert trainer.train(stop_after_step=4) == EXIT_CODE_STOPPED
    recorder = cast(Recorder, trainer.hooks[0])
    steps = [(0, "accepted", 3.0), (1, False), (1, "not finite", 3.0), (2, False), (3, False), (3, "accepted", 3.0)]
    assert recorder.calls == ["start", *steps, (4, True)]
    assert cast(Engine, trainer.run.engine).calls == ["step", "skip", "step"]
    assert trainer.run.progress.skipped_steps == {1, 2}


def test_the_plans_end_is_no_stop(trainer: Trainer) -> None:
    assert trainer.train(stop_after_step=trainer.run.plan.total_steps) == 0
    assert cast(Recorder, trainer.hooks[0]).calls[-1] == (14, True)


def test_sums_are_added_by_name() -> None:
    class Two(Ranks):
        def sum(self, values: Any) -> list[float]:
            return [2 * value for value in values]

    sums = StepSums(
        loss=1.5, z_loss=0.5, batch_hash=7, stop_requests=True, parts_written=True, checkpoint_requests=False
    )
    total = sums.over(Two(0, 2, torch.device("cpu")))
    assert total == StepSums(
        loss=3.0, z_loss=1.0, batch_hash=14, stop_requests=2, parts_written=2, checkpoint_requests=0
    )


def test_validation_masks_documents_as_the_phase_does(trainer: Trainer) -> None:
    recipe = world.recipe(phases__1__intra_document_masking=True)
    masked: list[bool] = []
    engine = SimpleNamespace(token_losses=lambda batch, masking: masked.append(masking))
    validation = SimpleNamespace(bits_per_byte=lambda losses, _: losses(torch.zeros(1, 3)))
    run = replace(
        trainer.run,
        recipe=recipe,
        plan=Plan(recipe),
        engine=cast(Any, engine),
        data=cast(Any, SimpleNamespace(validation=validation)),
    )
    for done in (0, 8, 9, 14):
        run.progress.done = done
        Validate(run, None)._validate()
    assert masked == [False, False, True, True]


def test_token_counts_look_at_a_skipped_step_once(shards_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, index = world.recipe(), read_index(shards_dir)
    plan, order = Plan(recipe), Order(recipe.seed, recipe.phases, index.tokens("train"))
    asked: list[int] = []
    at = plan.at
    monkeypatch.setattr(plan, "at", lambda step: (asked.append(step), at(step))[1])
    for done in (11, 12, 12):
        counts = token_counts(order, plan, done, {1, 3, 10})
        assert sum(counts.skipped["general"].values()) == 512
        assert sum(counts.skipped["domain"].values()) == 512
    assert sorted(step for step in asked if step in (1, 3, 10)) == [1, 3, 10]
