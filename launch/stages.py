"""The stages of a run, in the order of the data's way.

Contract: a stage is a name, the names of the artifacts it reads, and a function that builds it.
`specify` gives its identity from the recipe, its code version, its inputs' identities and, for
stages that read raw files, their fingerprints. Nothing here reads a document.

    classifiers    labelled text -> quality, toxicity and domain models, their cards (where the recipe has any)
    extract        raw files -> normalised documents, rejects list
    lines          documents -> documents without boilerplate and repeated lines, every edit (where the recipe has it)
    score          documents -> features, language, scores, hashes, signatures (no thresholds)
    dedup          hashes, signatures -> clusters of exact, same-address and near duplicates
    decontaminate  documents, benchmark items -> who quotes which item (where the recipe names benchmarks)
    filter         all of these and the thresholds -> decisions (no text is read)
    write          decisions -> kept documents, masked
    tokenizer      kept documents -> byte-level BPE
    shards         kept documents -> token shards
    train          token shards -> phases -> weights
    export         weights -> Llama-format checkpoint, samples
    report         manifests, metrics -> report.html
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.schema import Recipe
from twofold.artifacts import Artifact, StageSpec
from twofold.tasks import TaskRunner


@dataclass(frozen=True)
class Context:
    """What a build function gets: the recipe, the artifacts made so far, and who runs tasks."""

    recipe: Recipe
    runner: TaskRunner
    artifacts: Mapping[str, Artifact]


@dataclass(frozen=True)
class Stage:
    """One stage; `module` has CODE_VERSION and config(recipe)."""

    name: str
    makes: str
    module: str
    inputs: tuple[str, ...]
    build: Callable[[Context, Path, Path], Mapping[str, Any]]
    fingerprints: Callable[[Recipe], Mapping[str, str]] = field(default=lambda _: {})

    def specify(self, recipe: Recipe, artifacts: Mapping[str, Artifact]) -> StageSpec:
        """The stage's identity for this recipe, its inputs being made."""
        owner = importlib.import_module(self.module)
        inputs = {name: artifacts[name].identity for name in self.inputs if name in artifacts}
        raw = {f"raw:{name}": value for name, value in self.fingerprints(recipe).items()}
        return StageSpec(self.name, owner.CODE_VERSION, owner.config(recipe), {**inputs, **raw})


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages that this recipe has."""
    data = recipe.data
    optional = {
        "classifiers": bool(data.classifiers.configured),
        "lines": data.lines is not None,
        "decontaminate": data.decontamination is not None,
    }
    return tuple(stage for stage in _ALL if optional.get(stage.name, True))


def _build_classifiers(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from data_pipeline.stages import classifiers
    from launch.reports import model_card

    counts = classifiers.build(context.recipe, out, work)
    model_card.write(out)
    return counts


def _build_extract(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from data_pipeline.stages import extract

    return extract.build(context.recipe, out, work, context.runner)


def _build_lines(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from data_pipeline.stages import lines

    return lines.build(context.recipe, context.artifacts["extract"], out, work, context.runner)


def _build_score(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from data_pipeline.stages import score

    made = context.artifacts
    return score.build(context.recipe, documents(made), made.get("classifiers"), out, work, context.runner)


def _build_dedup(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from data_pipeline.stages import dedup

    made = context.artifacts
    return dedup.build(context.recipe, made["score"], out, work, context.runner)


def _build_decontaminate(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from data_pipeline.stages import decontaminate

    return decontaminate.build(context.recipe, documents(context.artifacts), out, work, context.runner)


def _build_filter(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from data_pipeline.stages import filter as filter_stage

    made, recipe, runner = context.artifacts, context.recipe, context.runner
    overlaps = made.get("decontaminate")
    return filter_stage.build(recipe, documents(made), made["score"], made["dedup"], overlaps, out, work, runner)


def _build_write(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from data_pipeline.stages import write as write_stage

    made = context.artifacts
    return write_stage.build(context.recipe, documents(made), made["filter"], out, work, context.runner)


def documents(made: Mapping[str, Artifact]) -> Artifact:
    """The artifact whose texts are measured and kept: with lines edited where the recipe edits them."""
    return made.get("lines") or made["extract"]


def _build_tokenizer(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from tokenizer.stages import train

    return train.build(context.recipe, context.artifacts["write"], out, work, context.runner)


def _build_shards(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from tokenizer.stages import tokenize

    made = context.artifacts
    return tokenize.build(context.recipe, made["write"], made["tokenizer"], out, work, context.runner)


def _build_train(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from launch import training
    from launch.reports import plan

    recipe, made = context.recipe, context.artifacts
    pages = [plan.write(recipe, out / "plan.html", plan.supply_of(made["shards"]))]
    report = Path(recipe.run_dir) / "data_report.html"  # made on demand: it reads all decisions
    return training.build(
        recipe, made["shards"], made["tokenizer"], out, [*pages, *([report] if report.exists() else [])]
    )


def _build_export(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from pretrain.stages import export

    return export.build(context.recipe, context.artifacts["train"], context.artifacts["tokenizer"], out, work)


def _build_report(context: Context, out: Path, work: Path) -> Mapping[str, Any]:
    from launch.reports import report

    return report.build(context.recipe, context.artifacts, out)


def _raw_sources(recipe: Recipe) -> Mapping[str, str]:
    from data_pipeline.readers import sources

    return sources.fingerprints(recipe)


def _labelled_text(recipe: Recipe) -> Mapping[str, str]:
    from data_pipeline.stages import classifiers

    return classifiers.fingerprints(recipe)


def _benchmarks(recipe: Recipe) -> Mapping[str, str]:
    from data_pipeline.stages import decontaminate

    return decontaminate.fingerprints(recipe)


def _start_weights(recipe: Recipe) -> Mapping[str, str]:
    if recipe.model.start_from is None:
        return {}
    from launch import preflight

    return {"start_from": preflight.fingerprint_checkpoint(recipe.model.start_from)}


_DOCUMENTS = ("extract", "lines")
_MEASURED = (*_DOCUMENTS, "score", "dedup", "decontaminate")
_ALL = (
    Stage(
        "classifiers",
        "models of quality, toxicity, domain",
        "data_pipeline.stages.classifiers",
        (),
        _build_classifiers,
        _labelled_text,
    ),
    Stage("extract", "documents", "data_pipeline.stages.extract", (), _build_extract, _raw_sources),
    Stage("lines", "documents with lines edited", "data_pipeline.stages.lines", ("extract",), _build_lines),
    Stage("score", "features", "data_pipeline.stages.score", (*_DOCUMENTS, "classifiers"), _build_score),
    Stage("dedup", "duplicate clusters", "data_pipeline.stages.dedup", ("score",), _build_dedup),
    Stage(
        "decontaminate",
        "benchmark overlaps",
        "data_pipeline.stages.decontaminate",
        _DOCUMENTS,
        _build_decontaminate,
        _benchmarks,
    ),
    Stage("filter", "decisions", "data_pipeline.stages.filter", _MEASURED, _build_filter),
    Stage("write", "kept documents", "data_pipeline.stages.write", (*_DOCUMENTS, "filter"), _build_write),
    Stage("tokenizer", "tokenizer", "tokenizer.stages.train", ("write",), _build_tokenizer),
    Stage("shards", "token shards", "tokenizer.stages.tokenize", ("write", "tokenizer"), _build_shards),
    Stage("train", "trained weights", "pretrain.layout", ("shards", "tokenizer"), _build_train, _start_weights),
    Stage("export", "Llama-format model", "pretrain.stages.export", ("train", "tokenizer"), _build_export),
    Stage(
        "report",
        "report.html",
        "launch.reports.report",
        (*_MEASURED, "filter", "write", "classifiers", "tokenizer", "shards", "train", "export"),
        _build_report,
    ),
)
