"""The stages of a run, in order: one line each, the module that declares it (twofold/stage.py).

Contract: a stage's module is imported when the stage is reached, so that asking for the first stages costs
nothing of the later ones. A stage may only read artifacts of stages above it. Nothing here reads a document.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from configs.schema import Recipe
from twofold.stage import Stage

STAGES = (
    "data_pipeline.stages.classifiers",  # labelled text -> quality, toxicity and domain models
    "data_pipeline.stages.extract",  # raw files -> normalized documents, rejects
    "data_pipeline.stages.score",  # documents -> documents without boilerplate lines, edits, features
    "data_pipeline.stages.dedup",  # hashes, signatures -> clusters of duplicates
    "data_pipeline.stages.decontaminate",  # documents, benchmark items -> overlaps
    "data_pipeline.stages.filter",  # all of these and the thresholds -> decisions; reads no text
    "data_pipeline.stages.write",  # documents, decisions -> kept documents, masked
    "tokenizer.stages.train",  # kept documents -> byte-level BPE
    "tokenizer.stages.tokenize",  # kept documents -> token shards
    "launch.training",  # token shards -> phases -> weights
    "pretrain.stages.export",  # weights -> Llama-format checkpoint, samples
    "launch.reports.report",  # manifests, metrics -> report.html
)


def stages_of(recipe: Recipe) -> Iterator[Stage]:
    """The stages that this recipe has, imported one by one."""
    names: set[str] = set()
    for module in STAGES:
        stage: Stage = importlib.import_module(module).STAGE
        unknown = [name for item in stage.inputs for name in item.stages if name not in names]
        assert not unknown, f"stage {stage.name} reads {', '.join(unknown)}, which is no stage before it"
        names.add(stage.name)
        if stage.in_recipe(recipe):
            yield stage


def stage_named(name: str, recipe: Recipe) -> Stage:
    """The stage of a name that the recipe has."""
    return next(stage for stage in stages_of(recipe) if stage.name == name)
