"""`twofold validate` judges every shipped recipe without GPU, data or torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from configs.recipe import load_recipe
from launch.actions import validate
from launch.cli import main
from launch.preflight import check_package_roots, check_training_fits, choose_device, visible_gpus
from launch.runner import run_recipe
from launch.stages import stages_of
from tests.conftest import ROOT
from tests.launch.conftest import SMOKE, twofold
from twofold.errors import UserError

SHIPPED = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.name != "base.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_recipe_passes(path: Path) -> None:
    code, out, err = twofold("validate", str(path))
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "valid" or "inputs are missing; the recipe has no mistake" in out.splitlines()[-1]


def test_the_7p8b_recipe_shows_what_it_would_train() -> None:
    _, out, _ = twofold("validate", str(ROOT / "configs" / "exaone3_7p8b.yaml"))
    for fact in (
        "7,818,448,896 parameters", "512 ranks (cuda)", "6.00T", "2.00T", "4,194,304", "50.8 GFLOP", "47.6 GFLOP",
        "stage = 3", 'grad_accum_dtype = "fp32"', "0 of 12 sources are on this machine",
    ):  # fmt: skip
        assert fact in out, fact


def test_inputs_that_are_not_here_are_listed_and_stop_a_run_before_it_begins(tmp_path: Path) -> None:
    override = "data.decontamination.benchmarks.exam=nowhere.jsonl"
    code, out, _ = twofold("validate", str(SMOKE), override, "sources.law.path=nowhere")
    assert code == 0
    assert "7 of 8 sources are on this machine\n    not here  law (nowhere)\n" in out
    assert out.endswith("cannot run here: 2 inputs are missing; the recipe has no mistake\n")
    assert "1 of 2 benchmarks are on this machine\n    not here  exam (nowhere.jsonl)\n" in out
    code, _, err = twofold("run", str(SMOKE), override, f"run_dir={tmp_path / 'run'}")
    assert code == 2
    assert "data.decontamination.benchmarks.exam = 'nowhere.jsonl': does not exist. Hint: name the file" in err
    assert not (tmp_path / "run").exists()


def test_json_holds_the_same_facts() -> None:
    code, out, _ = twofold("validate", str(SMOKE), "--json", "-q")
    found = json.loads(out)
    assert code == 0
    assert [phase["name"] for phase in found["training"]["phases"]] == ["general", "domain"]
    assert found["training"]["deepspeed"]["zero_optimization"]["stage"] == 3
    assert all(one["present"] for one in found["inputs"]["sources"])


def test_a_recipe_that_trains_nothing_is_valid_and_cannot_be_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"a": {"path": str(tmp_path), "format": "text", "license": "CC0-1.0"}}
    recipe = {"extends": str(ROOT / "configs" / "base.yaml"), "name": "n", "seed": 1, "run_dir": "r"}
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({**recipe, "sources": sources}))
    assert main(["validate", str(file)]) == 0
    assert "prepares data" in capsys.readouterr().out
    assert [stage.name for stage in stages_of(load_recipe(file))][-2:] == ["filter", "write"]
    tokenized = [stage.name for stage in stages_of(load_recipe(file, ["tokenizer.vocab_size=4k"]))]
    assert tokenized[-2:] == ["tokenizer", "shards"]
    for command, *options in (["plan"], ["export", "--out", "x"], ["launch", "--slurm"], ["preflight"]):
        assert main([command, str(file), *options]) == 2
        line = "phases: is missing: this recipe only prepares data. Hint: add `model` and `phases`."
        assert line in capsys.readouterr().err


def test_checking_needs_no_torch() -> None:
    program = (
        "import sys; from launch.cli import main; code = main(['validate', sys.argv[1]]); "
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'deepspeed', 'datatrove', 'wandb', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", program, str(SMOKE)], cwd=ROOT, check=False).returncode == 0


def test_our_packages_are_ours_and_a_namesake_is_told(tmp_path: Path) -> None:
    check_package_roots()
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "__init__.py").touch()
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.path.append({str(ROOT)!r})\n" + (
        "from twofold.errors import UserError; from launch.preflight import check_package_roots\n"
        "try: check_package_roots()\n"
        "except UserError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "package tokenizer" in told
    assert "uninstall the package that shadows it" in told


@pytest.mark.parametrize(("masked", "gpus"), [("", 0), ("-1", 0), ("0", 1), ("0,3", 2)])
def test_masked_gpus_do_not_count(monkeypatch: pytest.MonkeyPatch, masked: str, gpus: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", masked)
    assert visible_gpus() == gpus
    recipe = load_recipe(SMOKE, ["launch.gpus_per_node=1"])
    assert choose_device(recipe) == (("cuda", 1) if gpus else ("cpu", 2))


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(UserError, match=r"is more than the 1 GPUs of this machine. Hint: .*launch.gpus_per_node=1"):
        choose_device(load_recipe(SMOKE, ["launch.device=cuda", "launch.gpus_per_node=2"]))


def test_weights_that_do_not_fit_are_told_before_any_stage(tmp_path: Path) -> None:
    """By `twofold validate`, and by `twofold run` before it reads a document."""
    weights = tmp_path / "weights"
    weights.mkdir()
    recipe = load_recipe(SMOKE, ["launch.device=cpu", f"model.start_from={weights}", f"run_dir={tmp_path / 'run'}"])
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    for check in (validate.facts, check_training_fits, lambda recipe: run_recipe(recipe, Console(quiet=True))):
        (weights / "config.json").unlink(missing_ok=True)
        with pytest.raises(UserError, match=r"model.start_from = .* is not a Llama-format checkpoint"):
            check(recipe)
        (weights / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=r"config.json hidden_size = 64: does not fit this model, which needs 128"):
            check(recipe)
    assert not (tmp_path / "run").exists()
