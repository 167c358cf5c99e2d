"""export, merge and inspect-batch on a run that was really trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from configs.recipe import load_recipe
from launch.actions.checkpoints import training_folder
from pretrain import layout
from pretrain.checkpoints.manifest import committed, step_of
from tests.launch.conftest import SMOKE, TINY_TRAINING, twofold

pytestmark = pytest.mark.e2e
FLOAT32 = "export.dtype=float32"


def _arguments(run_dir: Path) -> tuple[str, ...]:
    return (str(SMOKE), f"run_dir={run_dir}", *TINY_TRAINING)


def test_the_newest_checkpoint_exports_to_the_trained_weights(finished_run: Path, tmp_path: Path) -> None:
    code, out, err = twofold("export", *_arguments(finished_run), "--out", str(tmp_path / "model"), "--gguf")
    assert code == 0, err
    assert "Llama format" in out
    assert (tmp_path / "model" / "model.gguf").read_bytes().startswith(b"GGUF")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| ko-web | CC0-1.0 | general |" in card
    assert "| quiz |" in card, "the benchmark's share"
    code = card.split("```python\n")[1].split("```")[0]
    exec(compile(code, "README.md", "exec"), {})  # the command that the card prints works
    exported = load_file(tmp_path / "model" / "model.safetensors")
    trained = load_file(finished_run / "train" / layout.weights_file("domain"))
    assert all(torch.equal(exported[name], value) for name, value in trained.items())
    assert (tmp_path / "model" / "tokenizer.json").exists()


def test_the_average_of_the_last_two_is_their_mean(finished_run: Path, tmp_path: Path) -> None:
    code, _, err = twofold("merge", *_arguments(finished_run), "--last", "2", "--out", str(tmp_path / "mean"))
    assert code == 0, err
    steps = [step_of(path) for path in committed(finished_run / "train" / layout.CHECKPOINTS_DIR)][-2:]
    parts = []
    for step in steps:
        arguments = ("--step", str(step), "--out", str(tmp_path / str(step)))
        assert twofold("export", *_arguments(finished_run), *arguments)[0] == 0
        parts.append(load_file(tmp_path / str(step) / "model.safetensors"))
    mean = load_file(tmp_path / "mean" / "model.safetensors")
    assert any(not torch.equal(parts[0][name], parts[1][name]) for name in mean)
    for name, value in mean.items():
        torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)


def test_a_step_is_traced_to_its_documents(finished_run: Path) -> None:
    code, out, err = twofold("inspect-batch", *_arguments(finished_run), "--step", "7", "--json")
    assert code == 0, err
    found = json.loads(out)
    events = [json.loads(line) for line in (finished_run / "train" / "metrics.jsonl").read_text().splitlines()]
    taken = [event["tokens_by_source"] for event in events if event["event"] == "train"]
    in_step = {name: count - taken[5].get(name, 0) for name, count in taken[6].items()}
    by_source: dict[str, int] = {}
    for document in found["documents"]:
        by_source[document["source"]] = by_source.get(document["source"], 0) + document["end"] - document["first"]
    assert by_source == {name: count for name, count in in_step.items() if count}
    identifier = found["documents"][0]["id"]
    code, out, _ = twofold("explain", str(SMOKE), identifier, f"run_dir={finished_run}", *TINY_TRAINING)
    assert code == 0
    assert identifier in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inspect-batch", "--step", "999"), "--step = 999: is not among the plan's 10 steps"),
        (("export", "--step", "2", "--out", "x"), "--step = 2: has no checkpoint; the steps with one are"),
        (("merge", "--last", "9", "--out", "x"), "--last = 9: does not fit the"),
        (("resume-test", "--steps", "3"), "--steps = 3: leaves no room for interruptions"),
    ],
)
def test_what_is_not_there_is_an_error_with_a_hint(finished_run: Path, arguments: tuple[str, ...], words: str) -> None:
    command, *rest = arguments
    code, _, err = twofold(command, *_arguments(finished_run), *rest)
    assert code == 2
    assert words in err
    assert "Hint:" in err


def test_a_run_that_did_not_train_has_no_folder(packed_run: Path, tmp_path: Path) -> None:
    recipe = load_recipe(SMOKE, [f"run_dir={packed_run}"])
    with pytest.raises(Exception, match="holds no training of this recipe"):
        training_folder(recipe)
    code, _, err = twofold("inspect-batch", str(SMOKE), f"run_dir={tmp_path / 'none'}", "--step", "1")
    assert code == 2
    assert "has no token shards of this recipe" in err


def test_training_starts_at_a_later_phase_from_imported_weights(finished_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir, symlinks=True)
    arguments = (f"run_dir={run_dir}", *TINY_TRAINING, "launch.cpu_ranks=1", FLOAT32)
    imported = (f"model.start_from={finished_run / 'export' / 'model'}", "model.start_at_phase=domain")
    code, out, err = twofold("run", str(SMOKE), *arguments, *imported)
    assert code == 2  # other weights are another past
    assert "--fresh" in err
    code, out, err = twofold("run", str(SMOKE), *arguments, *imported, "--fresh")
    assert code == 0, out + err
    events = [json.loads(line) for line in (run_dir / "train" / "metrics.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "train"] == [6, 7, 8, 9, 10]
    before = json.loads((finished_run / "train" / "summary.json").read_text())["phases"][-1]["bits_per_byte"]
    summary = json.loads((run_dir / "train" / "summary.json").read_text())
    assert [phase["name"] for phase in summary["phases"]] == ["domain"]
    # The same weights, measured by one rank instead of two.
    assert summary["start_bits_per_byte"] == pytest.approx(before, rel=5e-3)
