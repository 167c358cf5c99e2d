"""The chain: a second run does nothing, a change remakes what it concerns, a kill leaves nothing half-made."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from configs.recipe import load_recipe
from launch.preflight import only_run
from launch.runner import existing, run_recipe, unused
from launch.stages import stage_named
from tests.conftest import ROOT
from tests.launch.conftest import SMOKE, artifact_hashes, start, twofold
from twofold.artifacts import partial_dir
from twofold.errors import UserError

QUIET = Console(quiet=True)
AFTER_MEASURING = ("filter", "write", "tokenizer", "shards")
FROM_SCORE = ("score", "dedup", "decontaminate", *AFTER_MEASURING)
UP_TO_SHARDS = ("classifiers", "extract", *FROM_SCORE)


@pytest.fixture
def run_dir(packed_run: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "run"
    shutil.copytree(packed_run, copy, symlinks=True)
    return copy


def _built(run_dir: Path, *overrides: str) -> tuple[str, ...]:
    recipe = load_recipe(SMOKE, [f"run_dir={run_dir}", *overrides])
    return run_recipe(recipe, QUIET, until="shards").built


def _times(run_dir: Path) -> dict[Path, int]:
    """When each file was changed, but for the lease, which names its holder while a command runs."""
    files = (path for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_second_run_does_nothing(run_dir: Path) -> None:
    before = _times(run_dir)
    assert _built(run_dir) == ()
    assert _times(run_dir) == before


@pytest.mark.parametrize(
    ("override", "remade"),
    [
        ("data.rules.en.words.min=60", AFTER_MEASURING),
        ("data.personal_information=drop", AFTER_MEASURING),
        ("data.near_duplicates.num_buckets=12", FROM_SCORE),
        ("data.classifiers.quality.epochs=20", ("classifiers", *FROM_SCORE)),
        ("data.lines.repeated_in_documents=20", FROM_SCORE),
        ("data.decontamination.characters=40", ("decontaminate", *AFTER_MEASURING)),
        ("data.decontamination.policy=report", AFTER_MEASURING),
        ("tokenizer.vocab_size=2040", ("tokenizer", "shards")),
        ("phases.domain.max_epochs=90", ()),
        ("monitor.project=other", ()),
        ("data.executor.workers=1", ()),
    ],
)
def test_a_changed_setting_remakes_exactly_the_stages_it_concerns(
    run_dir: Path, override: str, remade: tuple[str, ...]
) -> None:
    assert _built(run_dir, override) == remade
    assert _built(run_dir) == (), "going back finds the former artifacts"


def test_a_changed_input_file_remakes_all_that_read_it(run_dir: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "ko-web"
    shutil.copytree(ROOT / "examples" / "corpus" / "general" / "ko-web", corpus)
    override = f"sources.ko-web.path={corpus}"
    assert _built(run_dir, override) == (), "what the files hold counts, not where they lie"
    page = next(corpus.glob("*.html"))
    page.write_bytes(page.read_bytes().replace(b"<p>", b"<p> ", 1))
    assert _built(run_dir, override) == UP_TO_SHARDS[1:]
    assert _built(run_dir, override) == ()


def test_workers_do_not_change_a_byte(packed_run: Path, tmp_path: Path) -> None:
    assert _built(tmp_path / "one", "data.executor.workers=1") == UP_TO_SHARDS
    assert artifact_hashes(tmp_path / "one") == artifact_hashes(packed_run)


def test_kills_at_random_moments_change_nothing_in_the_end(packed_run: Path, tmp_path: Path) -> None:
    arguments = ("run", str(SMOKE), f"run_dir={tmp_path / 'run'}", "--until", "shards")
    moments = random.Random(1)
    kills = 0
    for _ in range(8):
        process = start(*arguments)
        try:
            process.communicate(timeout=moments.uniform(0.5, 1.5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        existing(load_recipe(SMOKE, [f"run_dir={tmp_path / 'run'}"]))  # raises if anything half-made counts as whole
    assert kills >= 2
    code, _, err = twofold(*arguments)
    assert code == 0, err
    assert artifact_hashes(tmp_path / "run") == artifact_hashes(packed_run)


def test_a_damaged_artifact_stops_the_run_with_a_hint(run_dir: Path) -> None:
    (run_dir / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer.json: is missing. Hint: restore it, or remove the folder"):
        _built(run_dir)


def test_two_runs_in_one_folder_are_refused(run_dir: Path) -> None:
    with only_run(run_dir), pytest.raises(UserError, match=r"run_dir = .*in use by process"):
        _built(run_dir)


def test_verify_finds_an_altered_byte(run_dir: Path) -> None:
    assert twofold("verify", str(SMOKE), f"run_dir={run_dir}")[0] == 0
    path = run_dir / "shards" / "train" / "law" / "00000.ds"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    code, _, err = twofold("verify", str(SMOKE), f"run_dir={run_dir}")
    assert code == 2
    assert "00000.ds: was altered" in err


def test_clean_removes_what_the_recipe_does_not_use(run_dir: Path) -> None:
    _built(run_dir, "tokenizer.vocab_size=2040")
    code, out, _ = twofold("clean", str(SMOKE), f"run_dir={run_dir}")
    assert (code, out.splitlines()[-1]) == (0, "2 unused; `--yes` removes them")
    code, out, _ = twofold("clean", str(SMOKE), f"run_dir={run_dir}", "--yes")
    assert (code, out.splitlines()[-1]) == (0, "2 unused")
    assert _built(run_dir) == ()


def test_clean_leaves_an_unfinished_training_alone(run_dir: Path) -> None:
    recipe = load_recipe(SMOKE, [f"run_dir={run_dir}"])
    made = existing(recipe)
    train = stage_named("train", recipe)
    checkpoints = partial_dir(run_dir, train.specify(recipe, made)) / "checkpoints"
    checkpoints.mkdir(parents=True)
    assert unused(recipe) == []
    assert len(unused(load_recipe(SMOKE, [f"run_dir={run_dir}", "model.n_layers=2"]))) == 1, "another recipe's"
