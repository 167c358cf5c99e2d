"""Every mistake: exit code 2, one line with the hint, no traceback, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.recipe import load_recipe
from launch.runner import existing
from tests.launch.conftest import SMOKE, twofold


def refused(*arguments: str) -> str:
    """The one line that a refused `twofold …` prints."""
    code, out, err = twofold(*arguments)
    assert code == 2, out + err
    assert "Traceback" not in out + err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert lines == err.splitlines(), err
    assert all("Hint: " in line for line in lines)
    return lines[0]


def _no_artifact(run_dir: Path) -> bool:
    return not any(path.suffix != ".partial" for path in run_dir.glob("artifacts/*"))


def test_missing_corpus(tmp_path: Path) -> None:
    line = refused("run", str(SMOKE), f"run_dir={tmp_path / 'run'}", f"sources.law.path={tmp_path / 'none'}")
    assert "law" in line
    assert str(tmp_path / "none") in line
    assert not (tmp_path / "run").exists(), "refused before anything was made"


def test_empty_corpus(tmp_path: Path) -> None:
    (tmp_path / "law").mkdir()
    assert "law" in refused("run", str(SMOKE), f"run_dir={tmp_path / 'run'}", f"sources.law.path={tmp_path / 'law'}")
    assert not (tmp_path / "run").exists()


def test_a_corpus_of_empty_documents(tmp_path: Path) -> None:
    (tmp_path / "law").mkdir()
    (tmp_path / "law" / "0000.jsonl").write_text('{"text": " "}\n')
    run_dir = tmp_path / "run"
    line = refused("run", str(SMOKE), f"run_dir={run_dir}", f"sources.law.path={tmp_path / 'law'}", "--until", "filter")
    assert "law" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; the reader's own test stands in")
def test_unreadable_file(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text("<p>text</p>")
    page.chmod(0)
    line = refused("run", str(SMOKE), f"run_dir={tmp_path / 'run'}", f"sources.ko-web.path={tmp_path}")
    assert "a.html" in line


def test_unknown_recipe_key() -> None:
    assert "did you mean vocab_size?" in refused("validate", str(SMOKE), "tokenizer.vocabsize=3")


def test_missing_recipe() -> None:
    assert "cannot be read" in refused("run", "configs/none.yaml")


def test_unknown_stage() -> None:
    assert "is not a stage" in refused("run", str(SMOKE), "--until", "bake")
    for former, name in (("decide", "filter"), ("keep", "write")):
        assert f"renamed. Hint: use {name}." in refused("run", str(SMOKE), "--until", former)
    assert "part of the stage score now. Hint: use score." in refused("run", str(SMOKE), "--until", "lines")


def test_vocabulary_larger_than_the_corpus_supports(packed_run: Path, tmp_path: Path) -> None:
    shutil.copytree(packed_run, tmp_path / "run", symlinks=True)
    line = refused("run", str(SMOKE), f"run_dir={tmp_path / 'run'}", "tokenizer.vocab_size=200000", "--until", "shards")
    assert "documents support" in line
    assert "tokenizer.vocab_size" in line.split("Hint: ")[1]


def test_token_budget_that_the_sources_cannot_fill(packed_run: Path, tmp_path: Path) -> None:
    shutil.copytree(packed_run, tmp_path / "run", symlinks=True)
    line = refused("run", str(SMOKE), f"run_dir={tmp_path / 'run'}", "phases.domain.tokens=1B", "launch.device=cpu")
    assert "max_epochs" in line
    assert not list((tmp_path / "run" / "artifacts").glob("train-*/metrics.jsonl")), "no rank was started"


def test_batch_not_divisible(tmp_path: Path) -> None:
    line = refused("run", str(SMOKE), f"run_dir={tmp_path / 'run'}", "launch.device=cpu", "launch.cpu_ranks=3")
    assert "not divisible by 3 ranks" in line
    assert not (tmp_path / "run").exists()


def test_nodes_without_hostfile(tmp_path: Path) -> None:
    line = refused(
        "run", str(SMOKE), f"run_dir={tmp_path / 'run'}", "launch.nodes=2", "launch.cpu_ranks=1", "launch.device=cpu"
    )
    assert "launch.hostfile" in line


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A real file system of as many bytes as the test asks for."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only; tests/twofold/test_files.py uses /dev/full")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("small_disk", ["32k", "200k", "400k", "700k", "1m"], indirect=True)
def test_disk_full(small_disk: Path) -> None:
    """Whatever stage the disk fills up in, finished artifacts stay and half-made ones do not count."""
    run_dir = small_disk / "run"
    arguments = ("run", str(SMOKE), f"run_dir={run_dir}", "data.classifiers.quality=null", "--until", "shards")
    line = refused(*arguments)
    assert "the disk is full" in line
    assert "free some space" in line
    assert existing(load_recipe(SMOKE, [*arguments[2:4]])).keys() < {
        "extract",
        "lines",
        "score",
        "dedup",
        "decontaminate",
        "filter",
        "write",
        "tokenizer",
        "shards",
    }


@pytest.mark.parametrize("small_disk", ["1m"], indirect=True)
def test_disk_full_while_the_classifier_is_saved(small_disk: Path) -> None:
    """fastText does not notice a short write by itself."""
    line = refused("run", str(SMOKE), f"run_dir={small_disk / 'run'}", "--until", "classifiers")
    assert "model.bin" in line
    assert "the disk is full" in line
    assert _no_artifact(small_disk / "run")
