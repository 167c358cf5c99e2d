"""`twofold filter`: the decisions of a full run, without a text, and what it changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from configs.recipe import load_recipe
from data_pipeline import tables
from launch.actions import filter
from launch.runner import existing, run_recipe
from tests.conftest import ROOT
from tests.launch.conftest import SMOKE
from twofold.errors import UserError

QUIET = Console(quiet=True)
STRICTER = ("data.rules.ko.words.min=130", "data.rules.en.characters.min=1500")


@pytest.fixture
def run_dir(packed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    shutil.copytree(packed_run, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def test_no_text_is_needed_and_the_decisions_are_those_of_a_full_run(run_dir: Path, tmp_path: Path) -> None:
    recipe = load_recipe(SMOKE, [f"run_dir={run_dir}", *STRICTER])
    before = existing(load_recipe(SMOKE, [f"run_dir={run_dir}"]))["filter"]
    for stage in ("extract", "score"):
        _without_texts(run_dir / stage)
    difference = filter.filter_documents(recipe, QUIET)
    after = existing(recipe)["filter"]
    full = tmp_path / "full"
    run_recipe(load_recipe(SMOKE, [f"run_dir={full}", *STRICTER]), QUIET, until="filter")
    for source, number, path in tables.task_files(after.path / "decisions"):
        assert path.read_bytes() == tables.task_path(full / "filter" / "decisions", source, number).read_bytes()
    assert difference
    assert difference.newly_dropped.total() == difference.dropped_for.total() > 0
    assert after.counts["kept"] - before.counts["kept"] == (
        difference.newly_kept.total() - difference.newly_dropped.total()
    )
    assert set(difference.dropped_for) <= {"words<130", "characters<1500"}
    assert set(difference.examples) == set(difference.dropped_for) | set(difference.kept_in_spite_of)


def test_it_goes_back_and_shows_the_tables(run_dir: Path) -> None:
    stricter = load_recipe(SMOKE, [f"run_dir={run_dir}", *STRICTER])
    filter.filter_documents(stricter, QUIET, keep=True)
    assert "write" in existing(stricter)
    console = Console(record=True, width=120, quiet=True)
    difference = filter.filter_documents(load_recipe(SMOKE, [f"run_dir={run_dir}"]), console)
    assert difference
    assert difference.newly_kept.total() > 0
    assert not difference.newly_dropped


def test_what_needs_a_text_is_refused(run_dir: Path) -> None:
    recipe = load_recipe(SMOKE, [f"run_dir={run_dir}", "data.near_duplicates.num_buckets=10"])
    with pytest.raises(UserError, match=r"needs score, dedup, decontaminate of exactly this recipe.*Hint: run"):
        filter.filter_documents(recipe, QUIET)


def _without_texts(made: Path) -> None:
    """Empty texts in an artifact's documents: whoever read them would judge otherwise, or fail."""
    manifest = json.loads((made / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["path"].startswith("documents/"):
            table = pq.read_table(made / entry["path"], partitioning=None)
            place = table.column_names.index("text")
            gone = table.set_column(place, "text", pa.array([None] * table.num_rows, pa.large_string()))
            pq.write_table(gone, made / entry["path"])
            entry["bytes"] = (made / entry["path"]).stat().st_size
    (made / "manifest.json").write_text(json.dumps(manifest))
