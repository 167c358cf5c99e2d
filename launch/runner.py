"""Runs the stages of a recipe in order and reuses cached artifacts.

Contract: after `run_recipe` every stage's link in the run folder points to the artifact of exactly this recipe;
artifacts whose identity is unchanged are reused. One run at a time per run folder.
"""

from __future__ import annotations

import functools
import importlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from configs.schema import Recipe
from configs.units import format_bytes
from launch import kernels
from launch.executors import task_runner
from launch.lineage import set_aside
from launch.preflight import check_package_roots, check_training_fits, only_run
from launch.reports import INDEX, write_index
from launch.stages import stages_of
from twofold.artifacts import Artifact, ensure, find, hash_by_tasks, partial_dir, use, verify
from twofold.errors import user_error
from twofold.stage import Stage
from twofold.tasks import TaskRunner

_RENAMED = {"decide": "filter", "keep": "write"}
"""Old name of a stage -> its new name."""
_PAGES = {"classifiers": "launch.reports.model_card"}
"""Stage -> the module whose `write(out)` draws pages of what the stage built, which are committed with it."""


@dataclass(frozen=True)
class Finished:
    """The artifacts of a run by stage, and the build time in seconds of those that were not cached."""

    artifacts: Mapping[str, Artifact]
    seconds: Mapping[str, float]

    @property
    def built(self) -> tuple[str, ...]:
        return tuple(self.seconds)


def run_recipe(recipe: Recipe, console: Console, until: str | None = None, fresh: bool = False) -> Finished:
    """Build every stage up to and including `until` (default: all); `fresh`: set trainings aside and train anew."""
    stages = _up_to(recipe, until)
    check_package_roots()
    if any(stage.name == "train" for stage in stages):
        check_training_fits(recipe)
    for stage in stages:
        stage.fingerprints(recipe)  # a missing input is reported before the first stage begins
    run_dir = Path(recipe.run_dir)
    with only_run(run_dir):
        for path in set_aside(run_dir) if fresh else ():
            console.print(f"  set aside  {path}", soft_wrap=True)
        return _make(recipe, stages, run_dir, console)


def show_results(recipe: Recipe, finished: Finished, console: Console) -> None:
    """Print how much was built and where the results are."""
    places = {
        "report": ("report", "report/report.html"),
        "export": ("model", "export/model"),
        "train": ("metrics", "train/metrics.jsonl"),
        "tokenizer": ("tokenizer", "tokenizer/tokenizer.json"),
        "filter": ("decisions", "filter/decisions"),
    }
    write_index(Path(recipe.run_dir))
    built = len(finished.built)
    console.print(f"\n[bold]{built} stages built, {len(finished.artifacts) - built} cached[/bold]")
    for stage, (name, place) in places.items():
        if stage in finished.artifacts:
            console.print(f"  {name:<10} {os.path.join(recipe.run_dir, place)}")
    if (index := Path(recipe.run_dir) / INDEX).exists():
        console.print(f"  all pages  {index}")


def existing(recipe: Recipe) -> dict[str, Artifact]:
    """The committed artifacts of exactly this recipe, up to the first missing stage."""
    found: dict[str, Artifact] = {}
    for stage in stages_of(recipe):
        artifact = find(Path(recipe.run_dir), stage.specify(recipe, found))
        if artifact is None:
            break
        found[stage.name] = artifact
    return found


def unused(recipe: Recipe) -> list[Path]:
    """Folders of artifacts that this recipe neither uses nor is building."""
    run_dir = Path(recipe.run_dir)
    made = existing(recipe)
    used = {artifact.path for artifact in made.values()}
    missing = [stage for stage in stages_of(recipe) if stage.name not in made]
    if missing:
        used.add(partial_dir(run_dir, missing[0].specify(recipe, made)))
    return sorted(path for path in (run_dir / "artifacts").glob("*") if path not in used)


def verify_run(recipe: Recipe, console: Console) -> dict[str, Artifact]:
    """Compare every byte of the recipe's artifacts with their manifests."""
    artifacts = existing(recipe)
    for name, artifact in artifacts.items():
        verify(artifact)
        console.print(f"  {name:<12} {len(artifact.manifest.files):>5} files OK")
    return artifacts


def _make(recipe: Recipe, stages: Sequence[Stage], run_dir: Path, console: Console) -> Finished:
    artifacts: dict[str, Artifact] = {}
    seconds: dict[str, float] = {}
    with task_runner(recipe.data.executor, console) as runner:
        for stage in stages:
            spec = stage.specify(recipe, artifacts)
            artifact = find(run_dir, spec)
            started = time.monotonic()
            if artifact is None:
                console.print(f"[bold]{stage.name}[/bold]  [dim]{stage.makes}[/dim]")
                if _compiles(stage, recipe):
                    console.print("  compiling the kernels of all text stages: about half a minute, once")
            build = functools.partial(_build, stage, recipe, artifacts, runner)
            artifacts[stage.name] = use(run_dir, artifact) if artifact else ensure(run_dir, spec, build)
            if artifact is None:
                seconds[stage.name] = time.monotonic() - started
            size = format_bytes(sum(entry.bytes for entry in artifacts[stage.name].manifest.files))
            state = "cached" if artifact else f"{seconds[stage.name]:.1f} s, {size}"
            console.print(f"[bold]{stage.name}[/bold]  [green]done[/green]  [dim]{state}[/dim]")
            for remark in stage.remarks(artifacts[stage.name].counts):
                console.print(f"  {remark}")
    return Finished(artifacts, seconds)


def _compiles(stage: Stage, recipe: Recipe) -> bool:
    """Whether kernels are compiled before this stage, the first one that needs them."""
    return stage.name == "score" and recipe.data.executor.kind == "local" and not kernels.are_compiled()


def _build(
    stage: Stage, recipe: Recipe, artifacts: Mapping[str, Artifact], runner: TaskRunner, out: Path, work: Path
) -> Mapping[str, Any]:
    if _compiles(stage, recipe):
        runner.run("compile kernels", kernels.compile_kernels, len(kernels.GROUPS), work / "kernels")
    counts = stage.run(recipe, artifacts, runner, out, work)
    if stage.name in _PAGES:
        importlib.import_module(_PAGES[stage.name]).write(out)
    hash_by_tasks(out, work, runner)
    return counts


def _up_to(recipe: Recipe, until: str | None) -> list[Stage]:
    stages: list[Stage] = []
    for stage in stages_of(recipe):
        stages.append(stage)
        if stage.name == until:
            return stages
    if until == "lines":
        raise user_error("--until", until, "is part of the stage score now", "use score")
    if until in _RENAMED:
        raise user_error("--until", until, "renamed", f"use {_RENAMED[until]}")
    if until in ("tokenizer", "shards") and recipe.tokenizer is None:
        raise user_error("tokenizer", None, "is not in this recipe", "add it, as in configs/smoke.yaml")
    if until is not None:
        names = ", ".join(stage.name for stage in stages)
        raise user_error("--until", until, "is not a stage of this recipe", f"use one of {names}")
    return stages
