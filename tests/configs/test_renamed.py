"""Every old name of a field or a command is refused with one line that says the new one."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from configs.features import FEATURES
from configs.json_schema import keys_at
from configs.recipe import load_recipe, parse_recipe
from configs.renamed import RENAMED
from launch.cli import _RENAMED, main
from tests.conftest import ROOT
from twofold.errors import UserError

SMOKE = ROOT / "configs" / "smoke.yaml"


def _written(old: str) -> str:
    """An old field's path in the smoke recipe: a name or an index for each `*`."""
    node: Any = load_recipe(SMOKE).model_dump(mode="json")
    parts = []
    for part in old.split("."):
        name = part
        if part == "*":
            name = next(iter(node), "0") if isinstance(node, dict) else "0"
        parts.append(name)
        node = node[int(name)] if isinstance(node, list) else node.get(name, {})
    return ".".join(parts)


def _new_path(old: str) -> list[str]:
    """An old field's path by the table, each part by its new name."""
    parts = old.split(".")
    return [RENAMED.get(".".join(parts[: end + 1]), part) for end, part in enumerate(parts)]


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_field_is_one_line_with_its_new_name(old: str) -> None:
    written = _written(old)
    with pytest.raises(UserError) as error:
        load_recipe(SMOKE, [f"{written}=1"])
    (problem,) = error.value.problems
    assert str(problem) == f"{written}: renamed. Hint: {problem.hint}."
    assert problem.hint.split()[0] == "use"
    parts = problem.hint.removeprefix("use ").split(".")
    wanted = _new_path(old)[-len(parts) :]
    assert all(part == want or want == "*" for part, want in zip(parts, wanted, strict=True))


@pytest.mark.parametrize("old", RENAMED)
def test_a_new_name_is_a_field_and_no_old_name(old: str) -> None:
    *section, new = _new_path(old)
    assert new == RENAMED[old]
    assert new in (keys_at(section) or FEATURES)
    assert ".".join((*old.split(".")[:-1], new)) not in RENAMED
    assert ".".join((*section, new)) not in RENAMED


OLD_PHASE = """
name: old
tokens: 420K
sequence_length: 128
batch: 4096
batch_ramp: [{until: 8K, batch: 2048}, {until: 16K, batch: 2048}]
learning_rate: {schedule: wsd, peak: 4e-3, final: 0, decay_share: 0.5, decay_shape: 1-sqrt}
mixture: {ko-text: 1.0}
mixture_block: 64
mask_documents: true
"""


def test_all_old_fields_of_a_recipe_are_told_at_once() -> None:
    tree = load_recipe(SMOKE).model_dump(mode="json")
    tree["phases"].append(yaml.safe_load(OLD_PHASE))
    tree["engine"]["kernels"] = "plain"
    tree["optimizer"] = {"gradient_clip": 1.0}
    with pytest.raises(UserError) as error:
        parse_recipe(tree)
    told = {problem.field.removeprefix("phases.2."): problem.hint for problem in error.value.problems}
    assert told == {
        "batch": "use global_batch_size",
        "batch_ramp.0.batch": "use rampup_batch_size.0.global_batch_size",
        "batch_ramp.1.batch": "use rampup_batch_size.1.global_batch_size",
        "learning_rate.peak": "use lr_scheduler.lr",
        "learning_rate.final": "use lr_scheduler.min_lr",
        "learning_rate.decay_share": "use lr_scheduler.decay_ratio",
        "learning_rate.decay_shape": "use lr_scheduler.decay_type",
        "mixture_block": "use mixture_block_size",
        "mask_documents": "use intra_document_masking",
        "engine.kernels": "use backend",
        "optimizer.gradient_clip": "use max_grad_norm",
    }


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("phases.0.batch=4096", "phases.0.batch: renamed. Hint: use global_batch_size."),
        ("phases.general.learning_rate.peak=1", "phases.0.learning_rate.peak: renamed. Hint: use lr_scheduler.lr."),
        ("phases.general.lr_scheduler.peak=1", "phases.0.lr_scheduler.peak: renamed. Hint: use lr."),
        ("phases.general.learning_rate.warmup=1K", "phases.0.learning_rate: renamed. Hint: use lr_scheduler."),
        (
            "phases.general.rampup_batch_size=[{until: 8K, batch: 2048}]",
            "phases.0.rampup_batch_size.0.batch: renamed. Hint: use global_batch_size.",
        ),
    ],
)
def test_an_override_with_an_old_name_ends_with_code_2(
    override: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(SMOKE), override]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize(("old", "new"), _RENAMED.items())
def test_an_old_command_is_one_line_with_its_new_name(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([old, str(SMOKE)]) == 2
    assert capsys.readouterr().err == f"error: twofold {old}: renamed. Hint: use twofold {new}.\n"
    with pytest.raises(SystemExit) as stop:
        main([new, "--help"])
    assert stop.value.code == 0
