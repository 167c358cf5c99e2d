"""The stages together: decisions, splits, repeatability."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from configs.features import FEATURES
from data_pipeline import shuffle
from data_pipeline.decisions import funnel, splits
from data_pipeline.features import pii
from data_pipeline.stages import dedup, extract
from data_pipeline.stages import filter as filter_stage
from twofold.errors import UserError

KO = "산길 바다 마을 아이 하늘 구름 소리 이야기 저녁 아침 바람 나무 강물 학교 친구 시장 기차 노래 그림 편지"
EN = "harbour village morning river market letter garden window story summer winter teacher bridge island road"


def ko_text(seed: int, sentences: int = 12) -> str:
    generator = random.Random(seed)
    return " ".join(
        f"{generator.choice(KO.split())}에서 {generator.choice(KO.split())}를 {seed * 31 + n}번 보았다."
        for n in range(sentences)
    )


def en_text(seed: int, sentences: int = 12) -> str:
    generator = random.Random(seed)
    return " ".join(
        f"The {generator.choice(EN.split())} of the {generator.choice(EN.split())} was seen on day {seed * 31 + n}."
        for n in range(sentences)
    )


def _parquet_bytes(root: Path) -> dict[str, bytes]:
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}
    assert found
    return found


@pytest.fixture
def mixed(tmp_path, make_recipe, write_jsonl):
    """`mixed(**data)`: three sources with planted defects."""
    korean = [{"id": f"k{n}", "text": ko_text(n)} for n in range(12)]
    near = ko_text(3, 60)
    korean += [
        {"id": "long", "text": near},
        {"id": "long-edited", "text": near.replace("보았다.", "들었다.", 1)},
        {"id": "copy", "text": ko_text(5).replace(" ", "  ")},
        {"id": "short", "text": "짧은 글이다."},
        {"id": "personal", "text": ko_text(40) + " 연락처는 010-1234-5678이고 주민번호는 900101-1234567이다."},
        {"id": "english", "text": en_text(77)},
    ]
    english = [{"id": f"e{n}", "text": en_text(n)} for n in range(12)]
    english += [{"id": "german", "text": "Der Hafen war in jener Nacht ruhig, und niemand hörte die Boote. " * 3}]
    write_jsonl(tmp_path / "in/ko/1.jsonl", korean[:9])
    write_jsonl(tmp_path / "in/ko/2.jsonl", korean[9:])
    write_jsonl(tmp_path / "in/en.jsonl", english)
    (tmp_path / "in/code").mkdir()
    for n in range(6):
        (tmp_path / f"in/code/{n}.py").write_text(f"def f{n}(x):\n    return x + {n}\n\n\n# {n * 7919}\n" * 3)
    rules = {
        "ko": {"characters": {"min": 60}, "words": {"min": 10}},
        "en": {"characters": {"min": 60}, "language_score": {"min": 0.5}},
        "code": {"characters": {"min": 10}},
    }

    def make(**data):
        sources = {
            "ko": {"path": str(tmp_path / "in/ko"), "languages": ["ko"]},
            "en": {"path": str(tmp_path / "in/en.jsonl"), "languages": ["en"]},
            "code": {"path": str(tmp_path / "in/code"), "format": "text", "kind": "code", "domain": "code"},
        }
        return make_recipe(sources, **{"rules": rules, **data})

    return make


def test_every_decision_has_its_reasons(tmp_path, mixed, run_chain, decisions_of, read_all):
    made = run_chain(mixed(), tmp_path / "run")
    decisions = decisions_of(made)
    dropped = {identity: row["reasons"] for identity, row in decisions.items() if row["decision"] == "dropped"}
    assert dropped == {
        "ko/long-edited": ["near_duplicate"],
        "ko/k5": ["exact_duplicate"],
        "ko/short": ["characters<60", "words<10"],
        "ko/english": ["wrong_language"],
        "en/german": ["wrong_language"],
    }
    assert all(row["reason"] == (row["reasons"][0] if row["reasons"] else None) for row in decisions.values())
    assert decisions["ko/long-edited"]["duplicate_of"] == "ko/long"
    assert decisions["ko/k5"]["duplicate_of"] == "ko/copy"  # longer by its spaces
    first = min(decisions[name]["document"] for name in ("ko/k5", "ko/copy"))
    assert decisions["ko/k5"]["exact_cluster"] == decisions["ko/copy"]["exact_cluster"] == first
    assert decisions["ko/k5"]["duplicate_similarity"] == 1.0
    assert 0.8 <= decisions["ko/long-edited"]["duplicate_similarity"] < 1.0
    assert decisions["ko/copy"]["cluster_size"] == 2
    assert {row["language"] for row in decisions.values()} == {"ko", "en", "code", "other"}
    assert {*FEATURES, *(f"pii_{kind}" for kind in pii.TYPES), "url", "file", "bytes"} <= set(decisions["ko/k0"])

    kept = {row["id"]: row for row in read_all(made["write"].path / "documents")}
    assert set(kept) == set(decisions) - set(dropped)
    assert list(kept["ko/k0"]) == ["id", "source", "domain", "language", "text"]
    assert "연락처는 [PHONE]이고 주민번호는 [RESIDENT_NUMBER]이다." in kept["ko/personal"]["text"]
    assert decisions["ko/personal"]["personal_information"] == "masked"
    for split in funnel.SPLITS:
        ids = {row["id"] for row in read_all(made["write"].path / "documents" / split)}
        assert ids == {identity for identity, row in decisions.items() if row["split"] == split}
        assert {identity.split("/")[0] for identity in ids} == {"ko", "en", "code"}


def test_funnel_adds_up_to_the_decisions(tmp_path, mixed, run_chain, decisions_of):
    made = run_chain(mixed(), tmp_path / "run")
    rows = decisions_of(made).values()
    counts = made["filter"].counts
    assert counts["read"] == len(rows)
    assert counts["kept"] == counts["train"] + counts["validation"] == sum(row["decision"] == "kept" for row in rows)
    assert counts["read_bytes"] == sum(row["bytes"] for row in rows)
    for name, found in counts["sources"].items():
        mine = [row for row in rows if row["source"] == name]
        assert found["kept_bytes"] == sum(row["bytes"] for row in mine if row["split"])
        assert sum(found["dropped"].values()) == found["read"] - found["kept"]
        assert sum(tally["read"] for tally in found["languages"].values()) == found["read"] == len(mine)
    assert counts["sources"]["ko"]["failed"] == {
        "characters<60": 1,
        "exact_duplicate": 1,
        "near_duplicate": 1,
        "words<10": 1,
        "wrong_language": 1,
    }
    assert counts["sources"]["ko"]["personal_information"] == {"phone": 1, "resident_number": 1}


@pytest.mark.parametrize(
    ("policy", "decision", "verdict", "reasons"),
    [("drop", "dropped", "dropped", ["personal_information"]), ("keep", "kept", "kept", [])],
)
def test_policies_on_personal_information(
    tmp_path, mixed, run_chain, decisions_of, read_all, policy, decision, verdict, reasons
):
    made = run_chain(mixed(personal_information=policy), tmp_path / "run")
    row = decisions_of(made)["ko/personal"]
    assert (row["decision"], row["personal_information"], row["reasons"]) == (decision, verdict, reasons)
    texts = {row["id"]: row["text"] for row in read_all(made["write"].path / "documents")}
    assert ("010-1234-5678" in texts.get("ko/personal", "")) == (policy == "keep")


def test_near_duplicates_can_be_left_alone(tmp_path, mixed, run_chain, decisions_of):
    made = run_chain(mixed(near_duplicates={"enabled": False}), tmp_path / "run")
    decisions = decisions_of(made)
    assert decisions["ko/long-edited"]["decision"] == "kept"
    assert decisions["ko/k5"]["reasons"] == ["exact_duplicate"]


def test_of_one_address_the_longest_document_is_kept(tmp_path, make_recipe, write_jsonl, run_chain, decisions_of):
    records = [
        {"id": "short", "text": ko_text(2, 10), "url": "http://example.kr/a?utm_source=b"},
        {"id": "long", "text": ko_text(2, 14), "url": "https://www.example.kr/a/"},
        {"id": "unlike", "text": ko_text(1), "url": "https://www.example.kr/a/"},
        {"id": "other", "text": ko_text(3), "url": "https://www.example.kr/b"},
    ]
    source = {"s": {"path": str(write_jsonl(tmp_path / "in/s.jsonl", records))}}
    made = run_chain(make_recipe(source), tmp_path / "run")
    decisions = decisions_of(made)
    found = {name: (row["reason"], row["duplicate_of"], row["cluster_size"]) for name, row in decisions.items()}
    assert found == {
        "s/short": ("url_duplicate", "s/long", 2),
        "s/long": (None, None, 2),
        "s/unlike": (None, None, None),
        "s/other": (None, None, None),
    }
    counts = made["dedup"].counts
    assert (counts["url_shared"], counts["url_different"], counts["url_duplicates"]) == (3, 1, 1)
    assert dedup.remarks(counts) == ["documents that share an address but not their words, and were kept apart: 1"]
    decisions = decisions_of(run_chain(make_recipe(source, url_duplicates=False), tmp_path / "without"))
    assert {row["decision"] for row in decisions.values()} == {"kept"}


def test_a_duplicate_that_fails_a_rule_does_not_displace_one_that_passes(
    tmp_path, make_recipe, write_jsonl, run_chain, decisions_of
):
    text = ko_text(1)
    write_jsonl(
        tmp_path / "a.jsonl",
        [
            {"id": "spaced", "text": text.replace(" ", "\n")},
            {"id": "plain", "text": text},
            {"id": "other", "text": ko_text(2)},
        ],
    )
    rules = {"ko": {"new_line_ratio": {"max": 0.1}}, "en": {}, "code": {}}
    recipe = make_recipe({"s": {"path": str(tmp_path / "a.jsonl")}}, rules=rules)
    decisions = decisions_of(run_chain(recipe, tmp_path / "run"))
    assert decisions["s/plain"]["decision"] == "kept"
    assert decisions["s/spaced"]["reasons"] == ["new_line_ratio>0.1", "exact_duplicate"]
    assert decisions["s/spaced"]["duplicate_of"] == "s/plain"


def test_result_does_not_depend_on_tasks(tmp_path, monkeypatch, mixed, run_chain, decisions_of, read_all):
    whole = run_chain(mixed(), tmp_path / "whole")
    monkeypatch.setattr(shuffle, "FEWEST_IN_A_RUN", 1)
    monkeypatch.setattr(dedup, "PART_DOCUMENTS", 20)
    monkeypatch.setattr(filter_stage, "PART_DOCUMENTS", 20)
    cut = run_chain(mixed(extract={"task_bytes": 1}), tmp_path / "cut")
    assert len(list((cut["extract"].path / "documents").rglob("*.parquet"))) == 9
    assert decisions_of(whole) == decisions_of(cut)
    for split in funnel.SPLITS:
        assert read_all(whole["write"].path / "documents" / split) == read_all(cut["write"].path / "documents" / split)
    assert whole["filter"].counts == cut["filter"].counts


def test_same_input_same_bytes(tmp_path, mixed, run_chain):
    first, second = (run_chain(mixed(), tmp_path / name) for name in ("a", "b"))
    for stage in first:
        assert _parquet_bytes(first[stage].path) == _parquet_bytes(second[stage].path)


def test_thresholds_alone_change_only_filter(mixed):
    from data_pipeline.stages import dedup, score

    loose = mixed(rules={"ko": {}, "en": {}, "code": {}}, validation_share=0.5, personal_information="drop")
    for stage in (extract, score, dedup):
        assert stage.config(mixed()) == stage.config(loose)
    assert filter_stage.config(mixed()) != filter_stage.config(loose)


def test_a_source_that_keeps_nothing_is_refused(tmp_path, mixed, run_chain):
    rules = {"ko": {"words": {"min": 5000}}, "en": {}, "code": {}}
    with pytest.raises(UserError) as caught:
        run_chain(mixed(rules=rules), tmp_path / "run")
    (problem,) = caught.value.problems
    assert problem.field == "sources.ko"
    assert "keeps no document of 18 (17 x words<5000, 1 x wrong_language)" in problem.problem
    assert not (tmp_path / "run/filter").exists()


# --- split -------------------------------------------------------------------------------------


def test_documents_whose_host_cannot_be_judged_are_counted(tmp_path, make_recipe, write_jsonl, run_chain, decisions_of):
    addresses = [{"url": "https://denied.kr/1"}, {"metadata": {"url": "www.denied.kr"}}, {"url": "page 3"}, {}, {}]
    records = [{"id": str(n), "text": ko_text(n), **address} for n, address in enumerate(addresses)]
    write_jsonl(tmp_path / "raw/a.jsonl", records)
    recipe = make_recipe({"s": {"path": str(tmp_path / "raw")}}, compliance={"hosts": {"deny": ["denied.kr"]}})
    made = run_chain(recipe, tmp_path / "run")
    decisions = decisions_of(made)
    assert [decisions[f"s/{n}"]["reason"] for n in range(5)] == ["host_refused"] * 2 + [None] * 3
    counts = made["filter"].counts
    assert counts["sources"]["s"]["no_host"] == 3
    kept, remark = filter_stage.remarks(counts)
    assert kept == "s: 3 of 5 documents kept; dropped most for host_refused (2)"
    assert remark.startswith("s: data.compliance.hosts cannot judge 3 of 5 documents")
    assert filter_stage.remarks({**counts, "by_host": False}) == [kept]


def test_split_is_a_pure_share_of_hashes():
    hashes = [splits.split_hash(7, f"s/{n}") for n in range(20_000)]
    ends = {"count": len(hashes), "lowest": min(hashes), "highest": max(hashes)}
    held_out = sum(splits.split_of(value, ends, 0.02) == "validation" for value in hashes)
    assert 320 < held_out < 480
    assert splits.split_hash(7, "s/1") != splits.split_hash(8, "s/1")


@pytest.mark.parametrize(
    ("count", "share", "lowest", "highest"),
    [
        (1, 0.9, "train", "train"),
        (2, 1e-9, "validation", "train"),
        (2, 1.0, "validation", "train"),
        (5, 0.0, "train", "train"),
    ],
)
def test_small_sources_train_and_validate(count, share, lowest, highest):
    ends = {"count": count, "lowest": 10, "highest": 10 if count == 1 else 20}
    assert splits.split_of(ends["lowest"], ends, share) == lowest
    assert splits.split_of(ends["highest"], ends, share) == highest


# --- the development corpus --------------------------------------------------------------------


@pytest.mark.corpus
def test_near_duplicate_groups_are_cut_to_one(tmp_path, corpus_dir, make_recipe, run_chain, decisions_of):
    recipe = make_recipe({"s": {"path": str(corpus_dir / "hostile/near-duplicates.jsonl.zst")}})
    decisions = decisions_of(run_chain(recipe, tmp_path / "run")).values()
    groups = [row["id"].rsplit("-", 1)[0] for row in decisions if row["decision"] == "kept"]
    assert len(set(groups)) == 20
    # One member of each group has a similarity of 0.79 to the others, just below the threshold.
    assert set(Counter(groups).values()) <= {1, 2}


@pytest.mark.corpus
def test_decomposed_korean_duplicates_composed(tmp_path, corpus_dir, make_recipe, run_chain):
    for form in ("nfd", "nfc"):
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(corpus_dir / f"hostile/{form}-korean.jsonl.zst", tmp_path / "in")
    made = run_chain(make_recipe({"s": {"path": str(tmp_path / "in")}}), tmp_path / "run")
    assert made["filter"].counts["kept"] == 30
    assert made["dedup"].counts["exact_duplicates"] == 30


@pytest.mark.corpus
def test_unrepairable_mojibake_is_dropped_by_quality(tmp_path, corpus_dir, make_recipe, run_chain):
    path = str(corpus_dir / "hostile/mojibake-utf8-as-cp949.jsonl.zst")
    rules = {"ko": {"broken_character_frac": {"max": 0.01}}, "en": {}, "code": {}}
    with pytest.raises(UserError, match="20 x broken_character_frac"):
        run_chain(make_recipe({"s": {"path": path}}, rules=rules), tmp_path / "run")


# --- routes ------------------------------------------------------------------------------------


def test_a_route_takes_what_the_domain_classifier_sees(
    tmp_path, make_recipe, write_jsonl, run_chain, decisions_of, read_all
):
    law = [f"제{n}조 이 법은 {n * 31}번 법률의 목적과 적용 범위를 정하고 위반한 자를 처벌한다. " * 3 for n in range(40)]
    talk = [ko_text(n) for n in range(40)]
    labelled = [{"text": text, "label": "law"} for text in law] + [{"text": text, "label": "general"} for text in talk]
    train = write_jsonl(tmp_path / "labelled.jsonl", labelled)
    texts = [
        f"제{n}조 이 법은 {n * 37}번 시행령의 목적과 적용 범위를 정하고 위반한 자를 처벌한다. " * 3
        for n in range(60, 70)
    ]
    write_jsonl(tmp_path / "web/1.jsonl", [*texts[:5], *(ko_text(n) for n in range(60, 70))])
    write_jsonl(tmp_path / "web/2.jsonl", texts[5:])
    route = {"domain": "law", "sources": ["web"], "min_score": 0.5}
    recipe = make_recipe(
        {"web": {"path": str(tmp_path / "web")}},
        extract={"task_bytes": 1},
        classifiers={"domain": {"train": [str(train)]}},
        routes={"web-law": route},
        near_duplicates={"enabled": False},
    )
    made = run_chain(recipe, tmp_path / "run")
    sent = {row["id"]: row["destination"] for row in decisions_of(made).values()}
    assert sum(destination == "web-law" for destination in sent.values()) == 10
    rows = read_all(made["write"].path / "documents/train/web-law") + read_all(
        made["write"].path / "documents/validation/web-law"
    )
    assert sorted(row["id"] for row in rows) == sorted(name for name, place in sent.items() if place == "web-law")
    assert {(row["source"], row["domain"]) for row in rows} == {("web", "law")}
    assert made["filter"].counts["routes"] == {"web-law": {"documents": 10}}
    assert recipe.destinations == {"web": "general", "web-law": "law"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classifiers": {}}, "needs the domain classifier"),
        ({"routes": {"r": {"domain": "law", "sources": ["elsewhere"]}}}, "is not one of the sources"),
        ({"routes": {"s": {"domain": "law", "sources": ["s"]}}}, "is also the name of a source"),
    ],
)
def test_impossible_routes_are_refused(make_recipe, change, said):
    data = {"classifiers": {"domain": {"train": ["x"]}}, "routes": {"r": {"domain": "law", "sources": ["s"]}}, **change}
    with pytest.raises(UserError, match=said):
        make_recipe({"s": {"path": "x"}}, **data)


def test_a_route_that_takes_nothing_is_refused(tmp_path, make_recipe, write_jsonl, run_chain):
    labelled = [{"text": ko_text(n), "label": label} for n, label in enumerate(["law", "general"] * 40)]
    train = write_jsonl(tmp_path / "labelled.jsonl", labelled)
    write_jsonl(tmp_path / "s.jsonl", [ko_text(n) for n in range(5)])
    recipe = make_recipe(
        {"s": {"path": str(tmp_path / "s.jsonl")}},
        classifiers={"domain": {"train": [str(train)]}},
        routes={"r": {"domain": "medicine", "sources": ["s"]}},
    )
    with pytest.raises(UserError, match="takes no document of s"):
        run_chain(recipe, tmp_path / "run")
