"""The comparison of two runs finds what is planted, and lets nothing but new names pass."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import same_results

LOSS = 2.0794415416798357
WORDS = [0.1, 0.0, float("nan")]
SHARD = "shards/train/ko/00000.ds"
DECISIONS = "decide/ledger/ko/00000.parquet"
METRICS = "train/metrics.jsonl"
WEIGHTS = "train/weights/general.safetensors"


def write_run(run: Path, *, new_names: bool = False, merged: bool = False, speed: float = 1.0) -> Path:
    """A run folder with one small file of each kind; `speed` changes what may differ from run to run."""

    def name(old: str, new: str) -> str:
        return new if new_names else old

    def file(stage: str, path: str) -> Path:
        artifact = run / "artifacts" / f"{stage}-{speed:.0f}2345"
        link = run / stage
        if not link.is_symlink():
            artifact.mkdir(parents=True)
            link.symlink_to(artifact.relative_to(run))
        (artifact / path).parent.mkdir(parents=True, exist_ok=True)
        return artifact / path

    texts = {"id": ["a", "b", "c"], "text": ["하나", "둘", "셋"]}
    pq.write_table(pa.table(texts), file("score" if merged else "lines", "documents/ko/00000.parquet"))
    pq.write_table(pa.table(texts), file("extract", "documents/ko/00000.parquet"))
    pq.write_table(pa.table({"words": WORDS}), file("score", "attributes/ko/00000.parquet"))
    reasons = ["words<30", name("duplicate_line_share>0.3", "dup_line_frac>0.3")]
    decisions = {
        name("licence", "license"): ["CC0-1.0"] * 3,
        name("letter_word_share", "alpha_word_ratio"): WORDS,
        "reasons": [[], reasons, reasons[1:]],
        "reason": [None, *reasons],
    }
    pq.write_table(
        pa.table(decisions), file(name("decide", "filter"), f"{name('ledger', 'decisions')}/ko/00000.parquet")
    )
    file("shards", "train/ko/00000.ds").write_bytes(struct.pack("<4I", 7, 8, 9, 2))
    file("tokenizer", "tokenizer.json").write_text(json.dumps({"vocab": {"licence": 1}}))
    lines: list[dict[str, Any]] = [
        {"event": "start", "step": 0, "pid": 10 * speed, "host": f"host{speed}"},
        {
            "event": "train",
            "step": 1,
            "loss": LOSS,
            name("learning_rate", "lr"): 1e-3,
            "time": speed,
            name("gradient_norm", "grad_norm"): 0.5,
            name("tokens_per_s", "tps"): 100 * speed,
        },
        {"event": name("passed_over", "skipped_after_rollback"), "step": 2},
        {"event": "checkpoint", "step": 1, "path": "checkpoints/step-00000001", "pause_seconds": speed},
        {"event": "validation", "step": 1, "bits_per_byte": {"ko": 1.5}, "elapsed_seconds": speed},
    ]
    if speed > 1:
        lines[3:] = [lines[4], lines[3], {"event": "straggler", "step": 1, "rank": 1}]
    file("train", "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    file("train", name("ledger.json", "token_counts.json")).write_text(
        json.dumps({name("without_effect", "skipped"): {"ko": 4}})
    )
    file("train", "summary.json").write_text(json.dumps({"steps": 1, "wall_time_s": speed}))
    file("train", "manifest.json").write_text(json.dumps({"created": speed}))
    file("train", "wandb/run/files/config.json").write_text(str(speed))
    write_tensors(file("train", "weights/general.safetensors"), [1.0, 2.0], {"made_by": str(speed)})
    return run


def write_tensors(path: Path, values: list[float], metadata: dict[str, str]) -> None:
    entry = {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, 4 * len(values)]}
    header = json.dumps({"__metadata__": metadata, "norm.weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack(f"<{len(values)}f", *values))


def compare(old: Path, new: Path, *options: str) -> int:
    return same_results.main(["--runs", str(old), str(new), *options])


def edit_table(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda path: pq.write_table(change(pq.read_table(path)), path)


def with_words(column: pa.Array) -> Callable[[Path], None]:
    return edit_table(lambda table: table.set_column(1, "letter_word_share", column))


def edit_text(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return change


def extra_file(path: Path) -> None:
    (path.parent / "00001.ds").write_bytes(b"")


PLANTED: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "a token": (SHARD, lambda path: path.write_bytes(struct.pack("<4I", 7, 8, 6, 2)), "byte 8: 09"),
    "a token more": (SHARD, lambda path: path.write_bytes(path.read_bytes() + bytes(4)), "byte 16: the end"),
    "the last bit of a float": (
        DECISIONS,
        with_words(pa.array([0.10000000000000002, *WORDS[1:]])),
        "alpha_word_ratio.0: 0.1 is now 0.10000000000000002",
    ),
    "a zero's sign": (DECISIONS, with_words(pa.array([0.1, -0.0, WORDS[2]])), "alpha_word_ratio.1: 0.0 is now -0.0"),
    "a column's type": (DECISIONS, with_words(pa.array(WORDS, pa.float32())), "columns.1: 'alpha_word_ratio: double'"),
    "the order of rows": (DECISIONS, edit_table(lambda table: table.take([1, 0, 2])), "alpha_word_ratio.0"),
    "a row less": (DECISIONS, edit_table(lambda table: table.slice(0, 2)), "license.2 is only in the old run"),
    "a column less": (DECISIONS, edit_table(lambda table: table.drop_columns(["reason"])), "columns.3 is only in"),
    "a reason": (
        "decide/ledger/ko/00000.parquet",
        edit_table(lambda table: table.set_column(3, "reason", pa.array([None, "words<30", "words<30"]))),
        "reason.2: 'dup_line_frac>0.3' is now 'words<30'",
    ),
    "a loss": (METRICS, edit_text(str(LOSS), "2.079441541679836"), f"train.0.loss: {LOSS} is now 2.079441541679836"),
    "a gradient norm": (METRICS, edit_text('"gradient_norm": 0.5', '"gradient_norm": null'), "train.0.grad_norm"),
    "bits per byte": (METRICS, edit_text("1.5", "1.25"), "validation.0.bits_per_byte.ko: 1.5 is now 1.25"),
    "a number's type": ("train/ledger.json", edit_text("4", "4.0"), "skipped.ko: 4 is now 4.0"),
    "a word of the vocabulary": ("tokenizer/tokenizer.json", edit_text("licence", "license"), "byte "),
    "a weight": (WEIGHTS, lambda path: write_tensors(path, [1.0, 2.5], {}), "norm.weight.2"),
    "a shape": (WEIGHTS, lambda path: write_tensors(path, [1.0, 2.0, 3.0], {}), "norm.weight.1.0: 2 is now 3"),
    "a missing file": (SHARD, Path.unlink, "is missing in the new run"),
    "a file more": (SHARD, extra_file, "00001.ds: is only in the new run"),
    "a damaged file": (DECISIONS, lambda path: path.write_bytes(b"PAR1"), "cannot be read"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_is_found(planted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, plant, told = PLANTED[planted]
    old, new = write_run(tmp_path / "old"), write_run(tmp_path / "new", speed=2.0)
    assert compare(old, new) == 0
    plant(new / path)
    assert compare(old, new) == 1
    stage = same_results.STAGES.get(path.split("/")[0], path.split("/")[0])
    differences = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"  {stage}/")]
    assert len(differences) == 1
    assert told in differences[0]


def test_a_difference_is_found_under_new_names_and_in_a_merged_stage(tmp_path: Path) -> None:
    old, new = write_run(tmp_path / "old"), write_run(tmp_path / "new", new_names=True, merged=True)
    edit_text(str(LOSS), "2.0")(new / METRICS)
    edit_table(lambda table: table.take([1, 0, 2]))(new / "score/documents/ko/00000.parquet")
    found = same_results.compare_runs(old, new)
    assert [stage for stage, result in found.items() if result.different] == ["lines", "train"]


def test_runs_of_one_revision_are_equal_whatever_their_speed(tmp_path: Path) -> None:
    found = same_results.compare_runs(write_run(tmp_path / "old"), write_run(tmp_path / "new", speed=2.0))
    assert not any(result.different for result in found.values())
    assert {stage: result.new_names_only for stage, result in found.items() if result.new_names_only} == {"train": 3}


def test_new_names_and_a_merged_stage_pass_and_are_counted(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    old, new = write_run(tmp_path / "old"), write_run(tmp_path / "new", new_names=True, merged=True)
    assert compare(old, new, "--json", str(target)) == 0
    result = json.loads(target.read_text(encoding="utf-8"))
    assert result["equal"]
    stages = result["results"][str(new)]
    assert stages["filter"] == {"compared": 1, "same_bytes": 0, "new_names_only": 1, "different": []}
    assert stages["lines"] == {"compared": 1, "same_bytes": 1, "new_names_only": 0, "different": []}


def test_what_is_no_run_folder_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    for old, new in ((run, tmp_path / "empty"), (tmp_path / "none", run)):
        assert compare(old, new) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three commits of a trainer that copies a run folder: tagged old, renamed and other."""
    root = tmp_path / "repository"
    (root / "launch").mkdir(parents=True)
    shutil.copytree(write_run(tmp_path / "run"), root / "made", symlinks=True)
    (root / "launch" / "__init__.py").touch()
    (root / "launch" / "cli.py").write_text(
        "import pathlib, shutil, sys\n"
        "here = pathlib.Path(__file__).parent.parent\n"
        "assert sys.argv[1] == 'run'\n"
        "if sys.argv[2] != 'good.yaml': sys.exit('no such recipe')\n"
        "shutil.copytree(here / 'made', sys.argv[3].removeprefix('run_dir='), symlinks=True)\n"
    )
    git(root, "init", "--quiet")
    commit(root, "old")
    shutil.rmtree(root / "made")
    write_run(root / "made", new_names=True)
    commit(root, "renamed")
    edit_text(str(LOSS), "2.0")(root / "made" / METRICS)
    commit(root, "other")
    monkeypatch.setattr(same_results, "ROOT", root)
    return root


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def commit(root: Path, tag: str) -> None:
    git(root, "add", "--all", "--force")
    git(root, "commit", "--quiet", "--message", tag)
    git(root, "tag", tag)


def test_two_revisions_are_run_and_compared(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert same_results.main(["old", "renamed", "--recipe", "good.yaml"]) == 0
    assert same_results.main(["renamed", "other", "--recipe", "good.yaml"]) == 1
    assert "train/metrics.jsonl: train.0.loss" in capsys.readouterr().out
    assert git(repository, "worktree", "list").count("\n") == 1


def test_what_cannot_be_run_is_one_line_and_exit_code_2(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert same_results.main(["old", "nowhere", "--recipe", "good.yaml"]) == 2
    assert "cannot check out nowhere" in capfd.readouterr().err
    assert same_results.main(["old", "other", "--recipe", "bad.yaml"]) == 2
    assert "bad.yaml failed at the old revision" in capfd.readouterr().err
    assert git(repository, "worktree", "list").count("\n") == 1


def test_it_runs_as_a_module_and_imports_nothing_of_the_house() -> None:
    code = (
        "import sys, benchmarks.same_results as s; houses = {'configs', 'data_pipeline', 'tokenizer', 'pretrain', "
        "'launch', 'twofold'}; print(sorted(houses & set(sys.modules)))"
    )
    root = Path(same_results.__file__).parent.parent
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
