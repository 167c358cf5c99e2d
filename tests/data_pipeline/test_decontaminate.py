"""The stage `decontaminate`: who quotes which benchmark item; how benchmark files are read."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.data_schema import Decontamination
from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.stages import benchmark_items, decontaminate, extract
from twofold.artifacts import Artifact, StageSpec, ensure
from twofold.errors import UserError

Make = Callable[..., Artifact]
Write = Callable[..., Path]

FERRY = (
    "A ferry leaves Tarrick Sound every forty minutes, and the crossing takes a quarter of an hour. "
    "Maud reaches the quay ten minutes after a ferry has left. When does she stand on the other shore?"
)
LAMP = (
    "등대지기가 해 질 녘에 켠 등불은 이십 초마다 한 번씩 깜박인다. "
    "밤 아홉 시부터 아홉 시 십 분까지 등불은 몇 번 깜박이는가?"
)
SHORT = "옹기 가마에 불을 넣고 문을 연 까닭으로 가장 알맞은 것을 고르시오 하나만"
PROSE = "The harbour was built of stone, and people have walked to it ever since on Sundays and holidays. "


@pytest.fixture
def make(make_recipe: Callable[..., Recipe], runner: Any) -> Make:
    """`make(folder, texts by source, tasks, **data.decontamination)`: the stage's artifact."""

    def build(folder: Path, texts: dict[str, list[str]], tasks: int = 1, **settings: Any) -> Artifact:
        recipe = make_recipe({name: {"path": "x"} for name in texts}, decontamination=settings)

        def documents(out: Path, work: Path) -> dict[str, Any]:
            for source, all_texts in texts.items():
                for task, share in enumerate(np.array_split(np.arange(len(all_texts)), tasks)):
                    rows = [
                        {
                            "id": f"{source}/{n}",
                            "source": source,
                            "domain": "general",
                            "kind": "prose",
                            "url": None,
                            "license": "x",
                            "file": "f",
                            "index": n,
                            "encoding": "utf-8",
                            "text": all_texts[n],
                        }
                        for n in share.tolist()
                    ]
                    path = tables.task_path(out / "documents", source, task)
                    tables.write_rows(path, extract.DOCUMENTS, rows, {"ids": "unique"})
            return {}

        extracted = ensure(folder, StageSpec("extract", 1, {"tasks": tasks}, {}), documents)
        inputs = {**decontaminate.fingerprints(recipe), "extract": extracted.identity}
        spec = StageSpec("decontaminate", decontaminate.CODE_VERSION, decontaminate.config(recipe), inputs)
        return ensure(
            folder, spec, lambda out, work: decontaminate.build(recipe, extracted, extracted, out, work, runner)
        )

    return build


def rows_of(artifact: Artifact) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for source, _, path in tables.task_files(artifact.path / "contamination"):
        rows[source] += tables.read_rows(path)
    return rows


def benchmarks_of(artifact: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((artifact.path / decontaminate.BENCHMARKS_FILE).read_text(encoding="utf-8"))
    return found


def read(path: Path, **settings: Any) -> tuple[benchmark_items.Items, benchmark_items.Size]:
    items, sizes = benchmark_items.read(Decontamination(benchmarks={"b": str(path)}, **settings))
    return items, sizes["b"]


# --- the stage ---------------------------------------------------------------------------------


def test_a_document_that_quotes_an_item_is_found_with_benchmark_and_place(
    tmp_path: Path, make: Make, write_jsonl: Write
) -> None:
    quiz = write_jsonl(tmp_path / "quiz.jsonl", [SHORT, LAMP, FERRY, "Too short."])
    exam = write_jsonl(tmp_path / "exam" / "a.jsonl", [{"question": FERRY, "answer": "C"}])
    texts = {
        "a": [PROSE, PROSE + FERRY[:120].upper() + PROSE, "", "짧다"],
        "b": [f"{LAMP}\n\n{FERRY}", f"앞글\n{SHORT}!"],
    }
    made = make(tmp_path, texts, benchmarks={"quiz": str(quiz), "exam": str(exam.parent)})
    rows = rows_of(made)
    assert [row["benchmarks"] for row in rows["a"]] == [[], ["exam", "quiz"], [], []]
    assert [row["benchmarks"] for row in rows["b"]] == [["exam", "quiz"], ["quiz"]]
    assert [row["benchmark_item"] for row in rows["a"] + rows["b"]] == [None, "exam#0", None, None, "quiz#1", "quiz#0"]
    assert [row["contamination_share"] for row in rows["b"]] == [1.0, 30 / 32]
    quoted = sum(map(str.isalnum, FERRY[:120]))
    assert [row["contamination_matches"] for row in rows["a"]] == [0, quoted - 49, 0, 0]
    assert benchmarks_of(made) == {
        "exam": {
            "items": 1,
            "too_short": 0,
            "items_found": 1,
            "documents": 2,
            "sources": {name: {"items_found": 1, "documents": 1} for name in "ab"},
        },
        "quiz": {
            "items": 4,
            "too_short": 1,
            "items_found": 3,
            "documents": 3,
            "sources": {"a": {"items_found": 1, "documents": 1}, "b": {"items_found": 3, "documents": 2}},
        },
    }
    assert made.counts["contaminated"] == 3
    assert made.counts["benchmarks"]["quiz"] == {"items": 4, "too_short": 1, "items_found": 3, "documents": 3}


@pytest.mark.parametrize("method", ["full", "sampled"])
def test_the_result_does_not_depend_on_tasks(tmp_path: Path, make: Make, write_jsonl: Write, method: str) -> None:
    quiz = write_jsonl(tmp_path / "quiz.jsonl", [FERRY, LAMP])
    texts = {"a": [PROSE * n + FERRY for n in range(12)], "b": [LAMP, PROSE, ""]}
    made = [make(tmp_path, texts, tasks, benchmarks={"quiz": str(quiz)}, method=method) for tasks in (1, 3)]
    assert rows_of(made[0]) == rows_of(made[1])
    assert benchmarks_of(made[0]) == benchmarks_of(made[1])
    assert [len(tables.task_files(artifact.path / "contamination")) for artifact in made] == [2, 6]


def test_samples_depend_on_seed_document_and_number_alone() -> None:
    many = decontaminate.draws(7, "a/1", 10)
    assert decontaminate.draws(7, "a/1", 4) == many[:4]
    assert len({*many, *decontaminate.draws(8, "a/1", 10), *decontaminate.draws(7, "a/2", 10)}) == 30
    assert all(0 <= draw < 2**32 for draw in many)
    whole = np.array([decontaminate.draws(7, f"a/{n}", 10) for n in range(2_000)]) / 2**32
    assert abs(whole.mean() - 0.5) < 0.01


def test_sampling_misses_a_quotation_in_a_long_text_as_theory_says(
    tmp_path: Path, make: Make, write_jsonl: Write
) -> None:
    quiz = write_jsonl(tmp_path / "quiz.jsonl", [FERRY])
    texts = {"a": [PROSE * 15 + FERRY + f" {n}" for n in range(400)]}
    sampled, full = (
        [
            row["contamination_matches"]
            for row in rows_of(make(tmp_path, texts, benchmarks={"quiz": str(quiz)}, method=method))["a"]
        ]
        for method in ("sampled", "full")
    )
    length = len("".join(filter(str.isalnum, texts["a"][0])))
    share = full[0] / (length - 49)
    assert full == [full[0]] * 400
    assert 0.05 < share < 0.2
    assert sum(map(bool, sampled)) / 400 == pytest.approx(1 - (1 - share) ** 10, abs=0.07)


def test_the_report_of_a_sampled_run_counts_samples(tmp_path: Path, make: Make, write_jsonl: Write) -> None:
    quiz = write_jsonl(tmp_path / "quiz.jsonl", [FERRY, SHORT])
    texts = {"a": [FERRY, SHORT, "short"]}
    made = make(tmp_path, texts, benchmarks={"quiz": str(quiz)}, method="sampled", samples=4)
    assert [row["contamination_matches"] for row in rows_of(made)["a"]] == [4, 0, 0]
    assert [row["contamination_share"] for row in rows_of(made)["a"]] == [1.0, 0.0, 0.0]
    assert benchmarks_of(made)["quiz"]["too_short"] == 1, "the method knows no items shorter than its substrings"


def test_identity_is_how_overlaps_are_found_and_what_the_files_hold(
    tmp_path: Path, make_recipe: Callable[..., Recipe], write_jsonl: Write
) -> None:
    def recipe(name: str = "quiz.jsonl", **settings: Any) -> Recipe:
        quiz = write_jsonl(tmp_path / name, [FERRY])
        return make_recipe({"a": {"path": "x"}}, decontamination={"benchmarks": {"quiz": str(quiz)}, **settings})

    def config(**settings: Any) -> dict[str, Any]:
        return decontaminate.config(recipe(**settings))

    assert config() == config(policy="report") == config(samples=3) == config(name="other.jsonl")
    assert config(method="sampled") != config(method="sampled", samples=3)
    assert config(characters=40) != config() != config(method="sampled")
    before = decontaminate.fingerprints(recipe())
    assert decontaminate.fingerprints(recipe(name="moved.jsonl")) == before
    write_jsonl(tmp_path / "moved.jsonl", [LAMP])
    other = make_recipe({"a": {"path": "x"}}, decontamination={"benchmarks": {"quiz": str(tmp_path / "moved.jsonl")}})
    assert decontaminate.fingerprints(other) != before


# --- benchmark files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"question": "What is it?", "choices": ["a cat", "dog"], "answer": "B", "n": 4}, "What is it?\na cat\ndog"),
        ({"id": "x 1", "Task": "BoolQ test", "licence": "CC BY 4.0", "text": "One text."}, "One text."),
        ({"text": "Who? Me, him.", "question": "Who?", "answers": ["me", "him"]}, "Who? Me, him."),
        ({"a": "the same words", "b": "the same words"}, "the same words"),
        (
            {"fields": {"ID": "7 7", "Context": "deep text", "more": [{"q": "deeper text"}, 3, None]}},
            "deep text\ndeeper text",
        ),
        ({"label": "not this one", "url": "http://x y", "gold": "entailment"}, ""),
        ({"sequence": "ACGT" * 20}, "ACGT" * 20),
        ({"context": "이 말이다https://a.example/b?c=1뜻 www.b.example", "source": "a b"}, "이 말이다뜻 "),
    ],
)
def test_the_text_of_an_item_is_what_a_document_could_quote(item: dict[str, Any], text: str) -> None:
    assert benchmark_items.text_of(item, 50) == text


def test_items_are_numbered_through_all_files_of_a_folder(tmp_path: Path, write_jsonl: Write) -> None:
    write_jsonl(tmp_path / "b.jsonl", [LAMP])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"t": "too short"}\n\n' + json.dumps({"t": FERRY}).encode()))
    (tmp_path / ".hidden.jsonl").write_text("never read")
    (tmp_path / "notes.txt").write_text("never read")
    items, size = read(tmp_path)
    assert (size.items, size.too_short, items.numbers.tolist()) == (3, 1, [1, 2])
    first = items.codes[items.bounds[0] : items.bounds[1]]
    assert "".join(map(chr, first)) == "".join(filter(str.isalnum, FERRY.lower()))


def test_items_come_back_as_they_were_kept(tmp_path: Path, write_jsonl: Write) -> None:
    items, _ = read(write_jsonl(tmp_path / "b.jsonl", [FERRY, LAMP]))
    benchmark_items.save(items, tmp_path / "items.npz")
    kept = benchmark_items.load(tmp_path / "items.npz")
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(items, kept, strict=True))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"benchmarks\.b = '.*': does not exist. Hint: name the file of its items, or remove the benchmark"),
        (b"", r"benchmarks\.b = '.*': is empty"),
        (b"\n\n", r"has no item with text"),
        (b'{"answer": "B"}\n', r"has no item with text"),
        (b'{"text": "one two"}\n["a"]\n', r"b\.jsonl, line 2: is not a JSON object"),
        (b'{"text": ', r"b\.jsonl, line 1: is not a JSON object"),
        (b"[" * 100_000, r"b\.jsonl, line 1: is not a JSON object"),
        (gzip.compress(b'{"text": "one two"}\n', mtime=0)[:-6], r"is damaged \(gzip: .*\). Hint: restore the file"),
    ],
)
def test_a_benchmark_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "b.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=problem):
        read(path)


def test_a_line_beyond_all_measure_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_jsonl: Write
) -> None:
    monkeypatch.setattr(benchmark_items, "_MAX_LINE_BYTES", 100)
    with pytest.raises(UserError, match=r"line 2: is longer than 100 bytes"):
        read(write_jsonl(tmp_path / "b.jsonl", ["one two", FERRY]))


def test_every_benchmarks_problem_is_told_at_once_and_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "x.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "nested" / "x.jsonl").mkdir(parents=True)
    places = {name: str(tmp_path / name) for name in ("folder", "broken.jsonl", "linked", "nested")}
    settings = Decontamination(benchmarks={name.split(".")[0]: place for name, place in places.items()})
    with pytest.raises(UserError) as caught:
        benchmark_items.fingerprints(settings)
    told = {problem.field.rsplit(".", 1)[1]: problem.problem for problem in caught.value.problems}
    assert told == {
        "folder": "has no JSON Lines (.jsonl, .gz or .zst)",
        "broken": "does not exist",
        "linked": "cannot be read (No such file or directory)",
        "nested": "cannot be read (Is a directory)",
    }


def test_a_file_lost_while_reading_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(UserError, match=r"x\.jsonl': cannot be read \(Is a directory\). Hint: name a readable file"):
        read(tmp_path)


# --- the development corpus --------------------------------------------------------------------


@pytest.mark.corpus
def test_pubmedqa_is_found_in_its_abstracts_and_nothing_in_code(corpus_dir: Path, tmp_path: Path, make: Make) -> None:
    from data_pipeline.readers import formats

    def texts(folder: str) -> list[str]:
        files = sorted((corpus_dir / folder).rglob("*.jsonl.zst"))
        settings = formats.Settings(8_000_000)
        found = (item for path in files for item in formats.read(path, "jsonl", settings))
        return [item.text for item in found if isinstance(item, formats.Document)]

    documents = {"science": texts("domain/science/pubmedqa-abstracts"), "code": texts("domain/code/networkx-py")}
    names = ("pubmedqa-labelled", "gsm8k-test", "kobest-test")
    benchmarks = {name: str(corpus_dir / "benchmarks" / name) for name in names}
    for method in ("full", "sampled"):
        made = make(tmp_path, documents, benchmarks=benchmarks, method=method)
        rows = rows_of(made)
        assert all("pubmedqa-labelled" in row["benchmarks"] for row in rows["science"])
        assert not any(row["benchmarks"] for row in rows["code"])
        assert benchmarks_of(made)["gsm8k-test"]["documents"] == benchmarks_of(made)["kobest-test"]["documents"] == 0
    assert benchmarks_of(make(tmp_path, documents, benchmarks=benchmarks))["pubmedqa-labelled"]["items_found"] == 1000
