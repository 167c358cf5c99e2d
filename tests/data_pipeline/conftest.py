"""Small recipes and the chain of stages, run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from configs.recipe import parse_recipe
from configs.schema import Recipe
from data_pipeline.stages import classifiers, dedup, extract, score
from data_pipeline.stages import filter as filter_stage
from data_pipeline.stages import write as write_stage
from twofold.artifacts import Artifact, StageSpec, ensure

NO_RULES: dict[str, Any] = {"ko": {}, "en": {}, "code": {}}


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    """`make_recipe(sources, **data)`: a valid recipe around some sources."""

    def make(sources: Mapping[str, Any], **data: Any) -> Recipe:
        named = {name: {"license": "CC0-1.0", "format": "jsonl", **source} for name, source in sources.items()}
        phase = {
            "name": "general",
            "tokens": 4096,
            "sequence_length": 32,
            "global_batch_size": 1024,
            "lr_scheduler": {"lr": 1e-3},
            "mixture": {next(iter(named)): 1.0},
        }
        return parse_recipe(
            {
                "name": "test",
                "seed": 7,
                "run_dir": "unused",
                "sources": named,
                "data": {"rules": NO_RULES, "validation_share": 0.2, **data},
                "tokenizer": {"vocab_size": 1024},
                "model": {"d_model": 16, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "d_ff": 32},
                "phases": [phase],
                "engine": {"micro_batch_size": 1},
                "checkpoints": {"every": 4096},
                "validation": {"every": 4096},
                "launch": {"device": "cpu"},
            }
        )

    return make


@pytest.fixture
def run_chain(runner: Any) -> Callable[[Recipe, Path], dict[str, Artifact]]:
    """All stages of the data pipeline into one folder."""

    def run(recipe: Recipe, run_dir: Path) -> dict[str, Artifact]:
        made: dict[str, Artifact] = {}

        def stage(name: str, module: Any, build: Callable[[Path, Path], Mapping[str, Any]]) -> None:
            made[name] = ensure(run_dir, StageSpec(name, module.CODE_VERSION, module.config(recipe), {}), build)

        if recipe.data.classifiers.configured:
            stage("classifiers", classifiers, lambda out, work: classifiers.build(recipe, out, work))
        stage("extract", extract, lambda out, work: extract.build(recipe, out, work, runner))
        first, models = made["extract"], made.get("classifiers")
        stage("score", score, lambda out, work: score.build(recipe, first, models, out, work, runner))
        scored = made["score"]
        stage("dedup", dedup, lambda out, work: dedup.build(recipe, scored, out, work, runner))
        clusters = made["dedup"]
        stage(
            "filter",
            filter_stage,
            lambda out, work: filter_stage.build(recipe, first, scored, clusters, None, out, work, runner),
        )
        decided = made["filter"]
        stage(
            "write", write_stage, lambda out, work: write_stage.build(recipe, first, scored, decided, out, work, runner)
        )
        return made

    return run


@pytest.fixture
def write_jsonl() -> Callable[..., Path]:
    """`write_jsonl(path, records)`; a string stands for {"text": …}."""

    def write(path: Path, records: list[Any]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(r if isinstance(r, dict) else {"text": r}, ensure_ascii=False) for r in records]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def read_all() -> Callable[..., list[dict[str, Any]]]:
    """`read_all(folder)`: rows of every task file below it, in order."""

    def read(folder: Path) -> list[dict[str, Any]]:
        return [row for path in sorted(folder.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]

    return read


@pytest.fixture
def decisions_of(read_all: Any) -> Callable[[Mapping[str, Artifact]], dict[str, dict[str, Any]]]:
    """Id -> its decision, given the artifacts of a chain."""
    return lambda made: {row["id"]: row for row in read_all(made["filter"].path / "decisions")}
