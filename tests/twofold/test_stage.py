"""A stage is declared in one file and one line, and gets what it declares and nothing else."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

from launch import stages
from twofold.artifacts import Artifact, StageSpec, ensure
from twofold.stage import From, Stage

SEEN: dict[str, Any] = {}


def declare(build: Any, **changes: Any) -> Stage:
    given = {"name": "new", "makes": "x", "code_version": 1, "config": lambda recipe: {}, "build": build, **changes}
    return Stage(**given)


def artifact(tmp_path: Path, name: str) -> Artifact:
    return ensure(tmp_path, StageSpec(name, 1, {}, {}), lambda out, work: {})


def build(recipe: str, extract: Artifact, out: Path) -> dict[str, Any]:
    SEEN.update(locals())
    return {"documents": 1}


def test_a_stage_gets_what_it_declares_and_nothing_else(tmp_path: Path) -> None:
    made = {name: artifact(tmp_path, name) for name in ("extract", "score")}
    stage = declare(build, config=lambda recipe: {"name": recipe}, fingerprints=lambda recipe: {"web": "abc"})
    assert stage.run("r", made, None, tmp_path / "out", tmp_path / "work") == {"documents": 1}  # type: ignore[arg-type]
    assert {"recipe": "r", "extract": made["extract"], "out": tmp_path / "out"} == SEEN
    inputs = {"extract": made["extract"].identity, "raw:web": "abc"}
    assert stage.specify("r", made) == StageSpec("new", 1, {"name": "r"}, inputs)


def test_a_choice_takes_the_first_that_the_recipe_has(tmp_path: Path) -> None:
    def build(documents: Annotated[Artifact, From("lines", "extract")]) -> dict[str, Any]:
        return {}

    made = {name: artifact(tmp_path, name) for name in ("extract", "lines")}
    stage = declare(build)
    assert stage.select(made) == {"documents": made["lines"]}
    assert stage.select({"extract": made["extract"]}) == {"documents": made["extract"]}
    assert stage.specify(None, made).inputs == {"lines": made["lines"].identity}
    with pytest.raises(AssertionError, match="stage new: no artifact of lines or extract was built"):
        stage.select({})


def test_an_optional_artifact_may_be_absent(tmp_path: Path) -> None:
    def build(models: Annotated[Artifact | None, From("classifiers")], lines: Artifact | None) -> dict[str, Any]:
        return {}

    made = {"classifiers": artifact(tmp_path, "classifiers")}
    assert declare(build).select(made) == {"models": made["classifiers"], "lines": None}


@pytest.mark.parametrize("hint", [Path, str, Artifact | str, None])
def test_a_parameter_that_is_no_artifact_is_refused(hint: Any) -> None:
    def build(extracts: Any) -> dict[str, Any]:
        return {}

    build.__annotations__ = {} if hint is None else {"extracts": hint}
    with pytest.raises(AssertionError, match="stage new: build's parameter 'extracts' must be one of recipe, out"):
        declare(build)


STAGE_FILE = """
from twofold.artifacts import Artifact
from twofold.stage import Stage

def build(recipe, out, {parameter}: Artifact):
    return {{}}

STAGE = Stage(name="words", makes="word counts", code_version=1, config=lambda recipe: {{}}, build=build)
"""


def add_stage(folder: Path, parameter: str, patch: pytest.MonkeyPatch) -> None:
    (folder / "word_stage.py").write_text(STAGE_FILE.format(parameter=parameter))
    patch.syspath_prepend(folder)
    patch.delitem(sys.modules, "word_stage", raising=False)
    patch.setattr(stages, "STAGES", ("data_pipeline.stages.extract", "word_stage"))


def test_a_new_stage_is_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_stage(tmp_path, "extract", monkeypatch)
    names = [stage.name for stage in stages.stages_of(SimpleNamespace())]  # type: ignore[arg-type]
    assert names == ["extract", "words"]


def test_a_stage_reads_only_stages_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_stage(tmp_path, "dedup", monkeypatch)
    with pytest.raises(AssertionError, match="stage words reads dedup, which is no stage before it"):
        list(stages.stages_of(SimpleNamespace()))  # type: ignore[arg-type]
