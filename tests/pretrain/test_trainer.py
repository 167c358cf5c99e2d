"""The trainer as users start it: the deepspeed launcher, real ranks, gloo. About ten seconds a start."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import world
from safetensors.torch import load_file

from configs.schema import Recipe
from pretrain import goodput, layout
from pretrain.data.batches import Batches
from pretrain.data.order import Order
from pretrain.data.plan import Plan
from pretrain.model.decoder import EMBEDDING, Decoder, initial_weights
from tokenizer.shards import read_index
from twofold.exit_codes import EXIT_CODE_STOPPED

pytestmark = pytest.mark.e2e

Make = Callable[..., world.Run]


@pytest.fixture(scope="module")
def make(shards_dir: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    def run(**changes: Any) -> world.Run:
        return world.Run(tmp_path_factory.mktemp("run"), world.recipe(**changes), shards_dir, tokenizer_dir)

    return run


@pytest.fixture(scope="module")
def uninterrupted(make: Make) -> world.Run:
    run = make()
    assert run.train() == 0, run.log
    return run


def _assert_same(run: world.Run, other: world.Run) -> None:
    """Curves, validation, token counts and weights, bit for bit."""
    assert run.curve() == other.curve()
    for kind, keys in (("validation", ("step", "bits_per_byte")), ("train", ("step", "tokens_by_source"))):
        lines, others = ([[e[k] for k in keys] for e in one.events(kind)] for one in (run, other))
        assert lines == others
    for phase in ("general", "domain"):
        weights, others = (load_file(one.out / layout.weights_file(phase)) for one in (run, other))
        assert all(torch.equal(weights[name], value) for name, value in others.items())


def test_a_run_learns_and_says_what_it_did(uninterrupted: world.Run) -> None:
    events = uninterrupted.events("train")
    assert [event["step"] for event in events] == list(range(1, 15))
    assert [event["phase"] for event in events] == ["general"] * 8 + ["domain"] * 6
    assert events[0]["loss"] == pytest.approx(math.log(world.VOCAB), abs=0.1)
    assert events[7]["loss"] < events[0]["loss"] - 0.5
    summary = json.loads((uninterrupted.out / layout.SUMMARY_FILE).read_text())
    assert (summary["steps"], summary["tokens"], summary["world_size"]) == (14, 5120, 2)
    general, domain = summary["phases"]
    assert sum(general["tokens_by_source"].values()) == 2048
    assert sum(domain["tokens_by_source"].values()) == 3072
    assert domain["last_loss"] == events[-1]["loss"]
    fall = {s: general["bits_per_byte"][s] - domain["bits_per_byte"][s] for s in world.SOURCES}
    assert min(fall["law"], fall["code"]) > max(fall["news"], fall["books"])
    committed = sorted(path.name for path in (uninterrupted.out / layout.CHECKPOINTS_DIR).iterdir())
    assert committed == [f"step-{step:08d}" for step in (8, 10, 12, 14)]
    assert "Traceback" not in uninterrupted.log


def test_a_signal_saves_and_a_damaged_checkpoint_falls_back(make: Make, uninterrupted: world.Run) -> None:
    run = make()
    process = run.start()
    while len(run.events("train")) < 5:
        assert process.poll() is None, run.log
        time.sleep(0.01)
    os.kill(run.events("start")[0]["pid"], signal.SIGTERM)  # one rank is enough: they agree
    assert process.wait(timeout=600) == EXIT_CODE_STOPPED, run.log
    stopped = run.events("stop")[-1]["step"]
    assert 5 <= stopped < 14
    newest = run.out / layout.CHECKPOINTS_DIR / f"step-{stopped:08d}"
    states = sorted((newest / "state").glob("rank-*.safetensors"))
    states[1].write_bytes(states[1].read_bytes()[:-1])
    assert run.train() == 0, run.log
    (warning,) = run.events("warning")
    assert f"step-{stopped:08d} is damaged" in warning["message"]
    assert run.events("start")[-1]["step"] < stopped
    _assert_same(run, uninterrupted)


def test_one_rank_sees_the_batches_of_two(make: Make, uninterrupted: world.Run) -> None:
    run = make(launch__cpu_ranks=1)
    assert run.train() == 0, run.log
    one, two = run.events("train"), uninterrupted.events("train")
    for key in ("batch_hash", "tokens_by_source", "lr"):
        assert [event[key] for event in one] == [event[key] for event in two]
    assert [event["loss"] for event in one] == pytest.approx([event["loss"] for event in two], rel=3e-3)
    start, start_two = run.events("validation")[0], uninterrupted.events("validation")[0]
    assert start["bits_per_byte"] == pytest.approx(start_two["bits_per_byte"], rel=1e-12)


def test_training_again_when_all_is_done_changes_nothing(uninterrupted: world.Run) -> None:
    def files() -> dict[Path, bytes]:
        """All but what says that there was another start."""
        found = (path for path in uninterrupted.out.rglob("*") if path.is_file() and path.name != "train.log")
        return {path: path.read_bytes() for path in found if path.parent.name != goodput.TIMES_DIR}

    before = files()
    assert uninterrupted.train() == 0, uninterrupted.log
    assert files() == before


def test_two_ranks_under_zero3_equal_a_plain_loop(make: Make, shards_dir: Path) -> None:
    """The slow obvious reference: one process, the whole batch at once, torch's AdamW and clipping."""
    run = make(
        engine__precision="fp32", engine__deterministic=True, optimizer__max_grad_norm=0.5, optimizer__weight_decay=0.3
    )
    assert run.train() == 0, run.log
    losses, norms, model = _plain_loop(run.recipe, shards_dir)
    events = run.events("train")
    assert [event["loss"] for event in events] == pytest.approx(losses, rel=1e-5)
    assert [event["grad_norm"] for event in events] == pytest.approx(norms, rel=1e-4)
    assert max(norms) > 0.5
    trained = load_file(run.out / layout.weights_file("domain"))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trained[name], value, atol=2e-5, rtol=1e-3)


def _plain_loop(recipe: Recipe, shards_dir: Path) -> tuple[list[float], list[float], Decoder]:
    index, plan, cfg = read_index(shards_dir), Plan(recipe), recipe.optimizer
    batches = Batches(index, Order(recipe.seed, recipe.phases, index.tokens("train")))
    model = Decoder(recipe.model, world.VOCAB)
    model.load_state_dict(dict(initial_weights(recipe.model, world.VOCAB, recipe.seed)))
    named = dict(model.named_parameters())
    plain = [name for name, p in named.items() if p.dim() == 1 or name == EMBEDDING]
    groups = [
        {"params": [p for name, p in named.items() if name not in plain], "weight_decay": cfg.weight_decay},
        {"params": [named[name] for name in plain], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=cfg.betas, eps=cfg.eps)
    losses, norms = [], []
    for number in range(plan.total_steps):
        step = plan.at(number)
        tokens = batches.read(step)
        logits = model(tokens[:, :-1]).float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        (loss + step.z_loss * logits.logsumexp(-1).square().mean()).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.max_grad_norm)))
        for group in optimizer.param_groups:
            group["lr"] = step.lr
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, norms, model


def test_gradients_that_stay_infinite_end_with_a_hint(make: Make) -> None:
    run = make(
        launch__cpu_ranks=1,
        phases__0__lr_scheduler={"schedule": "constant", "lr": 1e38},
        phases__0__tokens=8192,
        phases__1__lr_scheduler__jump=True,
        monitor__wandb="off",
    )
    assert run.train() == 2, run.log
    (problem,) = json.loads((run.out / layout.ERROR_FILE).read_text())["problems"]
    assert "10 gradients in a row that were not finite" in problem["problem"]
    assert "phases.general.lr_scheduler.lr" in problem["hint"]
    skipped = [event["skipped"] for event in run.events("train")]
    assert skipped.count(True) >= 9
    assert "Traceback" not in run.log


def test_what_the_user_can_mend_ends_every_rank_with_its_reason(make: Make) -> None:
    run = make(phases__1__max_epochs=0.01)
    assert run.train() == 2, run.log
    problems = json.loads((run.out / layout.ERROR_FILE).read_text())["problems"]
    assert {problem["field"] for problem in problems} == {f"phases.domain.mixture.{s}" for s in ("law", "code", "news")}
    assert "Traceback" not in run.log
