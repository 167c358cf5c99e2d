"""A finished run that gets a further phase, and a branch, against runs that had it from the start: bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from launch import lineage
from launch.actions.branch import branch
from pretrain import layout
from tests.pretrain import world
from tokenizer.shards import read_index

pytestmark = pytest.mark.e2e

THIRD = {
    "name": "long",
    "tokens": 1024,
    "sequence_length": 64,
    "global_batch_size": 256,
    "lr_scheduler": {"schedule": "constant", "lr": 1e-3, "warmup": 512},
    "mixture": {"law": 0.5, "news": 0.5},
    "mixture_block_size": 20,
}


class _Chain:
    """A run folder, trained as the train stage does it, by one rank."""

    def __init__(self, run_dir: Path, shards: Path, tokenizer: Path) -> None:
        self.run_dir, self.shards, self.tokenizer = run_dir, shards, tokenizer

    def recipe(self, phases: int, **changes: Any) -> Any:
        float32 = {"engine__precision": "fp32", "launch__cpu_ranks": 1, "run_dir": str(self.run_dir)}
        written = world.recipe(**float32, **changes).model_dump(mode="json")
        return world.recipe(**float32, **changes, phases=[*written["phases"], THIRD][:phases])

    def train(self, name: str, phases: int, **changes: Any) -> world.Run:
        """Train in artifacts/<name>, going on from what there is."""
        recipe = self.recipe(phases, **changes)
        run = world.Run(self.run_dir / "recipes" / name, recipe, self.shards, self.tokenizer)
        run.out = self.run_dir / "artifacts" / name
        run.out.mkdir(parents=True)
        lineage.adopt(recipe, read_index(self.shards), None, run.out)
        assert run.train(ranks=1) == 0, run.log
        return run


def _assert_same(run: world.Run, other: world.Run) -> None:
    assert run.curve() == other.curve()
    assert [event["step"] for event in run.events("train")] == list(range(1, 19))
    for kind, key in (("validation", "bits_per_byte"), ("train", "tokens_by_source")):
        assert [event[key] for event in run.events(kind)] == [event[key] for event in other.events(kind)]
    for phase in ("general", "domain", "long"):
        weights, others = (load_file(one.out / layout.weights_file(phase)) for one in (run, other))
        assert all(torch.equal(weights[name], value) for name, value in others.items())


def test_a_further_phase_and_a_branch_equal_a_run_that_had_it_from_the_start(
    tmp_path: Path, tokenizer_dir: Path, shards_dir: Path
) -> None:
    whole = _Chain(tmp_path / "whole", shards_dir, tokenizer_dir).train("train-whole", 3)
    chain = _Chain(tmp_path / "run", shards_dir, tokenizer_dir)
    two = chain.train("train-two", 2)
    before = {path: path.read_bytes() for path in two.out.rglob("*") if path.is_file()}
    three = chain.train("train-three", 3)
    _assert_same(three, whole)
    assert [event["step"] for event in three.events("start")] == [0, 14]
    assert {path: path.read_bytes() for path in two.out.rglob("*") if path.is_file()} == before
    again = chain.train("train-again", 3, stability__attempts=9)  # all is trained: only the summary is missing
    assert [event["step"] for event in again.events("start")] == [0, 14]
    summaries = [json.loads((run.out / layout.SUMMARY_FILE).read_text()) for run in (three, again)]
    assert summaries[0]["phases"] == summaries[1]["phases"]

    other = _Chain(tmp_path / "branch", shards_dir, tokenizer_dir)
    branch(other.recipe(3), chain.run_dir, None, "general", Console(quiet=True))
    branched = other.train("train-branched", 3)
    _assert_same(branched, whole)
    summary = json.loads((branched.out / layout.SUMMARY_FILE).read_text())
    assert [(entry["step"], entry["run"]) for entry in summary["lineage"]] == [(8, str(again.out))]
