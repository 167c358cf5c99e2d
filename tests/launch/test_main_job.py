"""The main job with real parts: CLI, deepspeed launcher, two gloo ranks, export, report."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from configs.recipe import load_recipe
from launch.reports import report
from tests.launch.conftest import SMOKE, TINY_TRAINING, artifact_hashes, start, twofold
from twofold.artifacts import open_artifact

pytestmark = pytest.mark.e2e


def test_a_second_run_does_nothing(finished_run: Path) -> None:
    code, out, _ = twofold("run", str(SMOKE), f"run_dir={finished_run}", *TINY_TRAINING)
    assert (code, "0 stages built, 12 cached" in out) == (0, True)


def test_the_exported_model_opens_in_transformers_and_writes(finished_run: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(finished_run / "export" / "model")
    tokenizer = AutoTokenizer.from_pretrained(finished_run / "export" / "model")
    assert type(model).__name__ == "LlamaForCausalLM"
    prompt = tokenizer("The harbour", return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=5, do_sample=False).shape[1] > prompt["input_ids"].shape[1]


def test_metrics_hold_what_people_watch(finished_run: Path) -> None:
    events = [json.loads(line) for line in (finished_run / "train" / "metrics.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "train"]
    assert [event["step"] for event in steps] == list(range(1, len(steps) + 1))
    watched = {
        "loss",
        "lr",
        "grad_norm",
        "tokens",
        "tps",
        "mfu",
        "mfu_causal",
        "data_loading_pct",
        "memory_bytes",
        "phase",
        "tokens_by_source",
    }
    assert watched <= set(steps[0])
    assert steps[-1]["tokens"] == sum(steps[-1]["tokens_by_source"].values())
    assert {event["phase"] for event in steps} == {"general", "domain"}
    assert any(event["event"] == "validation" and event["bits_per_byte"] for event in events)
    assert not (finished_run / "train" / "wandb").exists(), "W&B is off unless the recipe asks for it"


def test_the_report_is_self_contained(finished_run: Path) -> None:
    page = (finished_run / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count('<svg role="img" aria-label=') >= 3
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!#)', re.sub(r'xlink:href="#[^"]*"', "", page))


def test_a_stranger_in_the_text_stays_text(finished_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir, symlinks=True)
    planted = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    (run_dir / "export" / "samples.json").write_text(json.dumps([{"prompt": planted, "continuation": planted}]))
    recipe = load_recipe(SMOKE, [f"run_dir={run_dir}", *TINY_TRAINING])
    size = (run_dir / "export" / "samples.json").stat().st_size
    manifest = json.loads((run_dir / "export" / "manifest.json").read_text())
    for entry in manifest["files"]:
        entry["bytes"] = size if entry["path"] == "samples.json" else entry["bytes"]
    (run_dir / "export" / "manifest.json").write_text(json.dumps(manifest))
    artifacts = {link.name: open_artifact(link.resolve()) for link in run_dir.iterdir() if link.is_symlink()}
    report.write_page(recipe, artifacts, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert planted not in page
    assert "&lt;script&gt;alert(1)" in page


def test_stopped_and_started_again_equals_never_stopped(packed_run: Path, finished_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(packed_run, run_dir, symlinks=True)
    arguments = ("run", str(SMOKE), f"run_dir={run_dir}", *TINY_TRAINING, "--until", "train")
    process = start(*arguments)
    metrics = _wait_for_step(run_dir, 3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "run the same command to resume" in err
    assert not (run_dir / "train").exists(), "an unfinished training is no artifact"
    code, out, err = twofold(*arguments)
    assert code == 0, out + err
    assert not metrics.exists(), "the partial folder became the artifact"
    assert _curve(run_dir) == _curve(finished_run)
    weights = [name for name in artifact_hashes(finished_run) if name.startswith("train/weights/")]
    assert weights
    assert {name: artifact_hashes(run_dir)[name] for name in weights} == {
        name: artifact_hashes(finished_run)[name] for name in weights
    }


def _wait_for_step(run_dir: Path, step: int) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for metrics in run_dir.glob("artifacts/train-*.partial/metrics.jsonl"):
            if f'"step": {step},' in metrics.read_text():
                return metrics
        time.sleep(0.1)
    raise AssertionError("training did not begin")


def _curve(run_dir: Path) -> list[tuple[int, float, float, str]]:
    events = [json.loads(line) for line in (run_dir / "train" / "metrics.jsonl").read_text().splitlines()]
    return [(e["step"], e["loss"], e["grad_norm"], e["batch_hash"]) for e in events if e["event"] == "train"]
