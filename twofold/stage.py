"""A stage of the pipeline, declared once, in its own module.

    STAGE = Stage(name="dedup", makes="duplicate clusters", code_version=CODE_VERSION, config=config, build=build)

Contract: the parameters of `build` say what a stage gets, and it gets nothing else. `recipe`, `out` (the folder
to fill), `work` (logs and intermediate files, removed when the artifact is committed) and `runner` (executes
tasks) may be named or left out. Every other parameter is an artifact to read:

    shards: Artifact                                          the artifact of stage `shards`
    scored: Annotated[Artifact, From("score")]                that of `score`, under another name
    models: Annotated[Artifact, From("mine", "other")]        that of the first of these that the recipe has
    decontaminate: Artifact | None                            None if the recipe does not have the stage

`launch/stages.py` lists the modules in the order in which they run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from twofold.artifacts import Artifact, StageSpec
from twofold.tasks import TaskRunner

_OFFERED = ("recipe", "out", "work", "runner")


class From:
    """Marks a parameter of `build`: it is the artifact of the first of these stages that the recipe has."""

    def __init__(self, *stages: str) -> None:
        self.stages = stages


@dataclass(frozen=True)
class Input:
    """One artifact that a stage reads."""

    parameter: str
    stages: tuple[str, ...]
    """The artifact is that of the first of these that the recipe has."""
    optional: bool


@dataclass(frozen=True)
class Stage:
    """Declares a stage; see the module's docstring."""

    name: str
    makes: str
    """What the artifact holds, for the terminal."""
    code_version: int
    """Raise it whenever the same inputs would give another output."""
    config: Callable[[Any], Mapping[str, Any]]
    """Recipe -> the part of it that decides the output, as JSON values."""
    build: Callable[..., Mapping[str, Any]]
    """Writes the artifact's files and returns the counts for its manifest."""
    fingerprints: Callable[[Any], Mapping[str, str]] = lambda recipe: {}
    """Recipe -> a hash of each thing read from outside of the run folder."""
    remarks: Callable[[Mapping[str, Any]], Sequence[str]] = lambda counts: ()
    """The counts -> lines for the terminal: what a user should know about what was built."""
    in_recipe: Callable[[Any], bool] = lambda recipe: True
    """Whether a recipe has this stage."""
    inputs: tuple[Input, ...] = field(init=False)

    def __post_init__(self) -> None:
        hints = get_type_hints(self.build, include_extras=True)
        names = [name for name in inspect.signature(self.build).parameters if name not in _OFFERED]
        object.__setattr__(self, "inputs", tuple(self._declared(name, hints.get(name)) for name in names))

    def select(self, artifacts: Mapping[str, Artifact]) -> dict[str, Artifact | None]:
        """Parameter of `build` -> its artifact, taken from those of earlier stages by name."""
        return {item.parameter: self._chosen(item, artifacts) for item in self.inputs}

    def specify(self, recipe: Any, artifacts: Mapping[str, Artifact]) -> StageSpec:
        """The stage's identity for this recipe, given the artifacts of earlier stages by name."""
        read = [artifact for artifact in self.select(artifacts).values() if artifact]
        inputs = {artifact.manifest.stage: artifact.identity for artifact in read}
        raw = {f"raw:{name}": value for name, value in self.fingerprints(recipe).items()}
        return StageSpec(self.name, self.code_version, self.config(recipe), {**inputs, **raw})

    def run(
        self, recipe: Any, artifacts: Mapping[str, Artifact], runner: TaskRunner, out: Path, work: Path
    ) -> Mapping[str, Any]:
        """Call `build` with what it declares; returns the counts for the manifest."""
        offered = {"recipe": recipe, "out": out, "work": work, "runner": runner}
        wanted = inspect.signature(self.build).parameters
        given = {name: value for name, value in offered.items() if name in wanted}
        return self.build(**given, **self.select(artifacts))

    def _declared(self, parameter: str, hint: Any) -> Input:
        stages: tuple[str, ...] = (parameter,)
        if get_origin(hint) is Annotated:
            hint, *marks = get_args(hint)
            stages = next((mark.stages for mark in marks if isinstance(mark, From)), stages)
        optional = hint == Artifact | None
        assert optional or hint is Artifact, (
            f"stage {self.name}: build's parameter {parameter!r} must be one of {', '.join(_OFFERED)}, "
            f"or be annotated as an Artifact (twofold/stage.py)"
        )
        return Input(parameter, stages, optional)

    def _chosen(self, item: Input, artifacts: Mapping[str, Artifact]) -> Artifact | None:
        found = next((artifacts[name] for name in item.stages if name in artifacts), None)
        assert found or item.optional, f"stage {self.name}: no artifact of {' or '.join(item.stages)} was built"
        return found
