"""The shipped sample: every planted document gets the decision that expected.json lists, all else is kept.

The pipeline runs once, as `configs/smoke.yaml` has it, up to `filter`; each document is compared by id.
"""

from __future__ import annotations

import functools
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from configs.recipe import load_recipe
from configs.units import format_bytes
from data_pipeline.features import pii
from launch.stages import stages_of
from tests.conftest import ROOT, InProcessRunner
from twofold.artifacts import Artifact, ensure

SAMPLE = ROOT / "examples" / "corpus"
EXPECTED: dict[str, Any] = json.loads((SAMPLE / "expected.json").read_text(encoding="utf-8"))
PLANTED: dict[str, dict[str, Any]] = EXPECTED["documents"]
LAST_STAGE = "write"

Rows = dict[str, dict[str, Any]]
"""Document id -> its row of a table."""


def planted(*decisions: str) -> list[str]:
    return [name for name, wish in PLANTED.items() if wish["decision"] in decisions]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    recipe = load_recipe(ROOT / "configs" / "smoke.yaml")
    run_dir = tmp_path_factory.mktemp("sample")
    artifacts: dict[str, Artifact] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for stage in stages_of(recipe):
            spec = stage.specify(recipe, artifacts)
            build = functools.partial(stage.run, recipe, artifacts, InProcessRunner())
            artifacts[stage.name] = ensure(run_dir, spec, build)
            if stage.name == LAST_STAGE:
                return artifacts
    raise AssertionError(f"no stage {LAST_STAGE}")


@pytest.fixture(scope="module")
def extracted(made: dict[str, Artifact]) -> Rows:
    return rows_of(made["extract"].path / "documents")


@pytest.fixture(scope="module")
def decisions(made: dict[str, Artifact]) -> Rows:
    return rows_of(made["filter"].path / "decisions")


@pytest.fixture(scope="module")
def kept(made: dict[str, Artifact]) -> dict[str, str]:
    """Document id -> the text that the tokenizer reads."""
    splits = (rows_of(made["write"].path / "documents" / split) for split in ("train", "validation"))
    return {name: row["text"] for rows in splits for name, row in rows.items()}


@pytest.fixture(scope="module")
def rejects(made: dict[str, Artifact]) -> dict[str, str]:
    """A rejected record's place -> the reason."""
    lines = (made["extract"].path / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return {place_of(entry): entry["reason"] for entry in found}


def place_of(reject: dict[str, Any]) -> str:
    """As expected.json names it: the file, and the record's index in files that hold several."""
    place = f"{reject['source']}/{reject['file']}"
    return place if place.endswith(".html") else f"{place}#{reject['index']}"


def rows_of(folder: Path) -> Rows:
    rows = [row for path in sorted(folder.glob("*/*.parquet")) for row in pq.read_table(path).to_pylist()]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows), "ids are unique"
    return found


@pytest.mark.parametrize("name", planted("kept", "dropped"))
def test_a_planted_document_gets_its_decision(name: str, decisions: Rows, kept: dict[str, str]) -> None:
    wish, row = PLANTED[name], decisions[name]
    found = {key: row[key] for key in ("decision", "reason", "duplicate_of", "language")}
    assert found == {key: wish.get(key) for key in found}, row["reasons"]
    assert set(wish.get("reasons_include", ())) <= set(row["reasons"])
    assert row["url"] == wish.get("url", row["url"])
    assert (name in kept) == (wish["decision"] == "kept")


@pytest.mark.parametrize("name", planted("kept"))
def test_a_kept_document_has_the_text_that_people_wrote(name: str, extracted: Rows, kept: dict[str, str]) -> None:
    wish, text = PLANTED[name], kept[name]
    assert text.startswith(wish.get("starts_with", ""))
    assert text.endswith(wish.get("ends_with", ""))
    assert [part for part in wish.get("holds", ()) if part not in text] == []
    assert [part for part in wish.get("gone", ()) if part in text] == []
    assert extracted[name]["encoding"] == wish.get("encoding", "utf-8")


def test_planted_numbers_are_counted_and_no_others_are(decisions: Rows) -> None:
    for name, row in decisions.items():
        found = {kind: row[f"pii_{kind}"] for kind in pii.TYPES if row[f"pii_{kind}"]}
        masked = PLANTED.get(name, {}).get("masked", {})
        assert (found, row["personal_information"]) == (masked, "masked" if masked else "none"), name


def test_what_cannot_be_read_is_listed_with_its_reason(rejects: dict[str, str]) -> None:
    assert rejects == {name: PLANTED[name]["reason"] for name in planted("rejected")}


def test_everything_else_is_kept(decisions: Rows) -> None:
    assert EXPECTED["default"] == "kept"
    others = {name: row for name, row in decisions.items() if name not in PLANTED}
    assert {name: row["reasons"] for name, row in others.items() if row["decision"] != "kept"} == {}
    assert {name for name, row in others.items() if row["cluster_size"] is not None} == set(), "none has a duplicate"


def test_nothing_is_lost_in_silence(decisions: Rows, rejects: dict[str, str]) -> None:
    """Raw records, counted the simple way, are all among the decisions or in the list of rejects."""

    def files(folder: str) -> int:
        return len(list((SAMPLE / folder).iterdir()))

    def count(file: str, pattern: bytes, unpack: Callable[[bytes], bytes] = bytes) -> int:
        return len(re.findall(pattern, unpack((SAMPLE / file).read_bytes())))

    raw = {
        "ko-web": files("general/ko-web"),
        "en-web": count("general/en-web.warc.gz", rb"WARC-Type: response\r\n", gzip.decompress),
        "ko-text": count("general/ko-text/0000.jsonl", rb"\n"),
        "en-text": count("general/en-text/0000.jsonl.gz", rb"\n", gzip.decompress),
        "law": count("domain/law/0000.jsonl", rb"\n"),
        "math": count("domain/math/0000.jsonl", rb"\n"),
        "code": files("domain/code"),
        "medicine": count("domain/medicine/0000.jsonl", rb"\n"),
    }
    assert (
        Counter(row["source"] for row in decisions.values()) + Counter(place.split("/")[0] for place in rejects) == raw
    )


def test_boilerplate_of_the_pages_is_gone(kept: dict[str, str]) -> None:
    pages = b"".join(path.read_bytes() for path in sorted((SAMPLE / "general" / "ko-web").iterdir()))
    pages += gzip.decompress((SAMPLE / "general" / "en-web.warc.gz").read_bytes())
    for phrase in EXPECTED["boilerplate"]:
        assert phrase.encode() in pages, "the phrase is on some page"
        assert [name for name, text in kept.items() if phrase in text] == []


def test_the_sample_is_small_and_worth_reading(made: dict[str, Artifact], kept: dict[str, str]) -> None:
    size = sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file())
    assert size < 400_000, format_bytes(size)
    assert sum(len(text.encode()) for text in kept.values()) > 170_000
    for name, row in made["filter"].counts["sources"].items():
        assert row["train"] >= 4, name
        assert row["validation"] >= 1, name
