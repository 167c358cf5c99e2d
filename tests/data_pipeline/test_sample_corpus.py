"""The shipped sample: every planted defect gets the decision that expected.json lists, all else is kept."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import Any

import pyarrow.parquet as pq
import pytest

from configs.manifest import Artifact, ensure
from configs.recipe import load_recipe
from configs.units import format_bytes
from launch.stages import Context, stages_of
from tests.conftest import ROOT, InProcessRunner

SAMPLE = ROOT / "examples" / "corpus"
EXPECTED: dict[str, dict[str, Any]] = json.loads((SAMPLE / "expected.json").read_text(encoding="utf-8"))["documents"]
LAST_STAGE = "decide"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    recipe = load_recipe(ROOT / "configs" / "smoke.yaml")
    run_dir = tmp_path_factory.mktemp("sample")
    artifacts: dict[str, Artifact] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for stage in stages_of(recipe):
            spec = stage.specify(recipe, artifacts)
            context = Context(recipe, InProcessRunner(), artifacts)
            artifacts[stage.name] = ensure(run_dir, spec, lambda o, w, s=stage, c=context: s.build(c, o, w))
            if stage.name == LAST_STAGE:
                return artifacts
    raise AssertionError(f"no stage {LAST_STAGE}")


@pytest.fixture(scope="module")
def ledger(made: dict[str, Artifact]) -> dict[str, dict[str, Any]]:
    rows = [
        row
        for path in sorted((made["decide"].path / "ledger").glob("*/*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    assert len({row["id"] for row in rows}) == len(rows), "ids are unique"
    return {row["id"]: row for row in rows}


@pytest.fixture(scope="module")
def kept(made: dict[str, Artifact]) -> dict[str, str]:
    files = sorted((made["decide"].path / "documents").glob("*/*/*.parquet"))
    return {row["id"]: row["text"] for path in files for row in pq.read_table(path).to_pylist()}


@pytest.fixture(scope="module")
def rejects(made: dict[str, Artifact]) -> list[dict[str, Any]]:
    lines = (made["extract"].path / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


DECIDED = sorted(name for name, wish in EXPECTED.items() if wish["decision"] != "rejected")


@pytest.mark.parametrize("name", DECIDED)
def test_a_planted_document_gets_its_decision(
    name: str, ledger: dict[str, dict[str, Any]], kept: dict[str, str]
) -> None:
    wish = EXPECTED[name]
    if name not in ledger:
        assert "rejected" in wish["decision"]
        return
    row = ledger[name]
    assert row["decision"] in wish["decision"].split("|"), row["reasons"]
    assert (name in kept) == (row["decision"] == "kept")
    if wish.get("reason", "*") != "*":
        assert row["reason"] == wish["reason"]
    if "reasons_include" in wish:
        assert wish["reasons_include"] in row["reasons"]
    if "duplicate_of" in wish:
        assert row["duplicate_of"] == wish["duplicate_of"]
    if "language" in wish:
        assert row["language"] == wish["language"]
    for kind in wish.get("masked", ()):
        assert row[f"pii_{kind}"] >= 1
    for number in wish.get("gone", ()):
        assert number not in kept[name]
    assert kept.get(name, "").startswith(wish.get("starts_with", ""))


def test_of_two_equal_texts_exactly_one_is_kept(ledger: dict[str, dict[str, Any]]) -> None:
    pairs = {frozenset((name, wish["pair"])) for name, wish in EXPECTED.items() if "pair" in wish}
    assert pairs
    for pair in pairs:
        assert sorted(ledger[name]["decision"] for name in pair) == ["dropped", "kept"]


def test_everything_else_is_kept(ledger: dict[str, dict[str, Any]]) -> None:
    assert {name: row["reasons"] for name, row in ledger.items() if row["decision"] == "dropped"}.keys() <= set(
        EXPECTED
    )


def test_what_cannot_be_read_is_listed_with_its_reason(rejects: list[dict[str, Any]]) -> None:
    wishes = Counter(
        (name.split("/")[0], wish["reason"]) for name, wish in EXPECTED.items() if wish["decision"] == "rejected"
    )
    assert Counter((reject["source"], reject["reason"]) for reject in rejects) == wishes


def test_nothing_is_lost_in_silence(ledger: dict[str, dict[str, Any]], rejects: list[dict[str, Any]]) -> None:
    """Raw records, counted the simple way, are all in the ledger or in the rejects list."""
    raw = {
        "ko-web": len(list((SAMPLE / "general" / "ko-web").iterdir())),
        "en-web": gzip.decompress((SAMPLE / "general" / "en-web.warc.gz").read_bytes()).count(b"WARC-Type: response"),
        "ko-text": len((SAMPLE / "general" / "ko-text" / "0000.jsonl").read_bytes().splitlines()),
        "en-text": len(gzip.decompress((SAMPLE / "general" / "en-text" / "0000.jsonl.gz").read_bytes()).splitlines()),
        "code": len(list((SAMPLE / "domain" / "code").iterdir())),
        **{
            name: len((SAMPLE / "domain" / name / "0000.jsonl").read_bytes().splitlines())
            for name in ("law", "math", "medicine")
        },
    }
    found = Counter(row["source"] for row in ledger.values()) + Counter(reject["source"] for reject in rejects)
    assert found == raw


def test_boilerplate_of_the_pages_is_gone(kept: dict[str, str]) -> None:
    for name, text in kept.items():
        for phrase in ("개인정보 처리방침", "Privacy policy", "window.visits", "오시는 길"):
            assert phrase not in text, name


def test_the_sample_is_small_and_worth_reading(made: dict[str, Artifact]) -> None:
    size = sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file())
    assert size < 400_000, format_bytes(size)
    for name, row in made["decide"].counts["sources"].items():
        assert row["train"] >= 4, name
        assert row["validation"] >= 1, name
