"""What a recipe may change after a checkpoint, and what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import world

from pretrain import layout
from pretrain.checkpoints import past

END_OF_GENERAL, END = 8, 14
FURTHER = {
    "name": "long",
    "tokens": 1024,
    "sequence_length": 64,
    "global_batch_size": 512,
    "lr_scheduler": {"schedule": "constant", "lr": 1e-3, "jump": True},
    "mixture": {"law": 1.0},
    "mixture_block_size": 20,
}


def _told(done: int, **changes: Any) -> list[str]:
    former, present = (layout.past(recipe) for recipe in (world.recipe(), world.recipe(**changes)))
    return [problem.problem for problem in past.problems(Path("step"), former, present, done)]


@pytest.mark.parametrize(
    ("done", "changes"),
    [
        (END, {"phases__2": FURTHER}),
        (5, {"phases__0__tokens": 4096}),
        (END_OF_GENERAL, {"phases__0__tokens": 4096}),
        (END_OF_GENERAL, {"phases__1__mixture": {"law": 1.0}}),
        (END_OF_GENERAL, {"phases__1__lr_scheduler__lr": 1e-4, "phases__1__lr_scheduler__jump": True}),
        (10, {"phases__1__lr_scheduler__min_lr": 1e-4}),  # the decay has not begun
        (END, {"phases__0__max_epochs": 9}),
        (END, {"engine__micro_batch_size": 1, "stability__attempts": 9}),
        (END, {"watch__stall_s": 5, "checkpoints__every": 512}),
    ],
)
def test_what_concerns_the_future_goes_on(done: int, changes: dict[str, Any]) -> None:
    base = world.recipe().model_dump(mode="json")["phases"]
    if "phases__2" in changes:
        changes = {"phases": [*base, changes["phases__2"]]}
    assert _told(done, **changes) == []


@pytest.mark.parametrize(
    ("done", "changes", "words"),
    [
        (1, {"seed": 8}, "seed 7, and this recipe has 8"),
        (1, {"model__norm_eps": 1e-6}, "model.norm_eps 1e-05"),
        (1, {"optimizer__weight_decay": 0.2}, "optimizer.weight_decay 0.1"),
        (1, {"engine__precision": "fp32"}, "engine.precision 'bf16'"),
        (5, {"phases__0__z_loss": 0}, "phases.general.z_loss 0.0001"),
        (5, {"phases__0__tokens": 1024}, "another phases.general.tokens: step 5 had phase 0, and now has 1"),
        (5, {"phases__0__global_batch_size": 512}, "another phases.general.global_batch_size: step 1 had sequences 8"),
        (5, {"phases__0__lr_scheduler__warmup": 1024}, "another phases.general.lr_scheduler: step 1 had lr"),
        (9, {"phases__0__tokens": 4096}, "another phases.domain.tokens: step 9 had phase 1, and now has 0"),
        (9, {"phases__1__mixture": {"code": 0.4, "law": 0.4, "news": 0.2}}, "phases.domain.mixture"),
        (13, {"phases__1__lr_scheduler__min_lr": 1e-4}, "another phases.domain.lr_scheduler: step 12 had lr"),
        (END, {"phases__1__tokens": 6144}, "another phases.domain.lr_scheduler"),
        (END, {"phases__1__tokens": 1024}, "is of step 14, and this recipe's plan ends at step 10"),
    ],
)
def test_what_changes_the_past_is_named(done: int, changes: dict[str, Any], words: str) -> None:
    told = _told(done, **changes)
    assert len(told) == 1, told
    assert words in told[0]


def test_equal_phases_cost_no_look_at_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past.Schedule, "at", lambda *_: pytest.fail("a step was looked at"))
    assert _told(END_OF_GENERAL, phases__1__tokens=6144) == []
