"""Line edits in the stage `score`: edits are recorded and explain the text; repeats are counted over all tasks."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from configs.data_schema import Lines
from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.stages import extract, lines, repeated_lines, score
from twofold.artifacts import Artifact, StageSpec, ensure
from twofold.errors import UserError

Make = Callable[..., tuple[Artifact, Artifact]]

FRAME = "이 누리집의 모든 글은 한여울군이 만들어 군민에게 무료로 나누어 드립니다."


@pytest.fixture
def make(make_recipe: Callable[..., Recipe], runner: Any) -> Make:
    """`make(folder, texts by source, tasks, **data.lines)`: documents and the stage's artifact."""

    def build(
        folder: Path, texts: dict[str, list[str]], tasks: int = 1, kind: str = "prose", **settings: Any
    ) -> tuple[Artifact, Artifact]:
        recipe = make_recipe({name: {"path": "x"} for name in texts}, lines=settings)

        def documents(out: Path, work: Path) -> dict[str, Any]:
            for source, all_texts in texts.items():
                for task, share in enumerate(np.array_split(np.arange(len(all_texts)), tasks)):
                    rows = [
                        {
                            "id": f"{source}/{n}",
                            "source": source,
                            "domain": "general",
                            "kind": kind,
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

        spec = StageSpec("score", score.CODE_VERSION, score.config(recipe), {})
        extracted = ensure(folder, StageSpec("extract", 1, {"tasks": tasks}, {}), documents)
        return extracted, ensure(
            folder, spec, lambda out, work: score.build(recipe, extracted, None, out, work, runner)
        )

    return build


def texts_of(artifact: Artifact) -> dict[str, str]:
    files = tables.task_files(artifact.path / "documents")
    return {row["id"]: row["text"] for _, _, path in files for row in tables.read_rows(path)}


def edits_of(artifact: Artifact) -> list[dict[str, Any]]:
    return [row for _, _, path in tables.task_files(artifact.path / "edits") for row in tables.read_rows(path)]


def test_every_edit_is_recorded_and_explains_the_text(tmp_path: Path, make: Make) -> None:
    body = "물은 흐르고 산은 그대로다.\n\n공유하기\n\n오늘도 웃었다 ㅋㅋㅋㅋ\n끝."
    extracted, made = make(tmp_path, {"a": ["그대로 두는 글.", body, f"{body}\n댓글 3개"]}, repeated_in_documents=None)
    old, new = texts_of(extracted), texts_of(made)
    assert new["a/0"] == old["a/0"]
    assert new["a/1"] == "물은 흐르고 산은 그대로다.\n\n오늘도 웃었다 ㅋㅋ\n끝."
    found = [(row["id"], row["row"], row["line"], row["rule"], row["removed_characters"]) for row in edits_of(made)]
    assert found == [
        ("a/1", 1, 2, "boilerplate", 4),
        ("a/1", 1, 4, "shorten_runs", 2),
        ("a/2", 2, 2, "boilerplate", 4),
        ("a/2", 2, 4, "shorten_runs", 2),
        ("a/2", 2, 6, "boilerplate", 5),
    ]
    for row in edits_of(made):
        assert row["line_hash"] == xxhash.xxh3_64_intdigest(old[row["id"]].split("\n")[row["line"]].encode())
    assert made.counts["lines"]["lines"] == {"boilerplate": 3, "shorten_runs": 2}
    assert made.counts["lines"]["removed_characters"] == {"boilerplate": 13, "shorten_runs": 4}
    assert (made.counts["lines"]["documents"], made.counts["lines"]["edited"]) == (3, 2)


def test_rows_and_other_columns_stay_and_an_emptied_document_is_a_row(tmp_path: Path, make: Make) -> None:
    extracted, made = make(tmp_path, {"a": ["공유하기\n\nRead more", "글이다."]})
    old, new = (
        pq.read_table(a.path / "documents" / "a" / "00000.parquet", partitioning=None) for a in (extracted, made)
    )
    assert new.schema.equals(extract.DOCUMENTS)
    assert new.drop(["text"]).equals(old.drop(["text"]).replace_schema_metadata(None))
    assert new["text"].to_pylist() == ["", "글이다."]
    assert made.counts["lines"]["emptied"] == 1


def test_code_is_never_edited(tmp_path: Path, make: Make) -> None:
    texts = ["Read more\nㅋㅋㅋㅋ\n" + FRAME] * 3 + [f"{n}\nRead more\n{FRAME}" for n in range(9)]
    extracted, made = make(tmp_path, {"a": texts}, kind="code", repeated_in_documents=2)
    assert texts_of(made) == texts_of(extracted)
    assert edits_of(made) == []


def test_a_line_on_many_pages_goes_from_all_but_one(tmp_path: Path, make: Make) -> None:
    """Spaces apart; in documents that repeat it too, once each; not from another source."""
    own = [
        f"{n}번째 이야기는 오직 이 쪽에만 있으며, 다른 어느 쪽에도 적혀 있지 않다. 그래서 길다. " * 2 for n in range(5)
    ]
    pages = [f"{text}\n{FRAME}" for text in own[:3]] + [f"{FRAME}  \n{FRAME}\n{own[3]}", own[4]]
    _, made = make(tmp_path, {"a": pages, "b": pages[:3]}, repeated_in_documents=4)
    found = [text for name, text in texts_of(made).items() if name[0] == "a"]
    whole = [text for text, page in zip(found, pages, strict=True) if text == page and text not in own]
    assert len(whole) == 1, "one copy stays"
    assert [text for text in found if text not in whole] == [
        text for text, page in zip(own, pages, strict=True) if page not in whole
    ]
    assert [text for name, text in texts_of(made).items() if name[0] == "b"] == pages[:3]
    assert made.counts["lines"]["sources"]["a"]["lines"] == {"repeated_in_documents": 5 - whole[0].count(FRAME)}


CLAUSE = "이 규칙은 공포한 날부터 시행하되, 제3조의 개정규정은 공포 후 여섯 달이 지난 날부터 시행한다."


@pytest.mark.parametrize(
    "number",
    ["제1조(시행일) ", "제12조의2 ", "① ", "1. ", "가. ", "(a) ", "§ 7 ", "Section 4. ", "Article 2: ", "- 3) "],
)
def test_numbered_lines_stay_in_every_document(number: str, tmp_path: Path, make: Make) -> None:
    texts = [f"{n}번째 이야기는 오직 이 쪽에만 있다. " * 4 + f"\n\n부칙\n{number}{CLAUSE}" for n in range(6)]
    _, made = make(tmp_path, {"a": texts}, repeated_in_documents=2)
    assert list(texts_of(made).values()) == texts


def test_chosen_sources_keep_their_repeated_lines(tmp_path: Path, make: Make) -> None:
    texts = [f"{n}번째 이야기는 오직 이 쪽에만 있다. " * 4 + f"\n{CLAUSE}" for n in range(6)]
    _, made = make(tmp_path, {"a": texts, "b": texts}, repeated_in_documents=2, repeated_stay_in=["b"])
    assert [name for name, text in texts_of(made).items() if CLAUSE in text and name[0] == "b"] == [
        f"b/{n}" for n in range(6)
    ]
    assert sum(CLAUSE in text for name, text in texts_of(made).items() if name[0] == "a") == 1
    _, made = make(tmp_path / "general", {"a": texts}, repeated_in_documents=2, repeated_stay_in=["general"])
    assert list(texts_of(made).values()) == texts, "the name of a domain"


def test_a_part_is_repeated_relative_to_the_size_of_its_source(tmp_path: Path, make: Make) -> None:
    texts = [f"{n}번째 이야기는 오직 이 쪽에만 있다. " * 4 + (f"\n{FRAME}" if n < 5 else "") for n in range(20)]
    kept = {
        share: sum(
            FRAME in text
            for text in texts_of(
                make(tmp_path / str(share), {"a": texts}, repeated_in_documents=2, repeated_in_share=share)[1]
            ).values()
        )
        for share in (0.25, 0.3)
    }
    assert kept == {0.25: 1, 0.3: 5}


@given(st.lists(st.lists(st.sampled_from("ABCDE"), min_size=1, max_size=4), min_size=2, max_size=8))
def test_every_repeated_line_keeps_a_copy(pages: list[list[str]]) -> None:
    """Whatever lines and paragraphs overlap: what was somewhere still is somewhere."""
    texts = ["\n".join(f"{name} {FRAME}" for name in page) for page in pages]
    found: dict[int, int] = {}
    for text in texts:
        parts, content = repeated_lines.parts_of(text, 60)
        for part in parts:
            found[part.hash] = min(content, found.get(part.hash, content))
    known = np.array(sorted(found.items()), dtype=np.uint64)
    repeats = repeated_lines.TaskRepeats(known, frozenset(range(len(texts))))
    left = {
        line
        for row, text in enumerate(texts)
        for number, line in enumerate(text.split("\n"))
        if number not in repeats.lines_of(row, text, 60).dropped
    }
    assert left == {line for text in texts for line in text.split("\n")}


def test_a_paragraph_wrapped_otherwise_is_the_same(tmp_path: Path, make: Make) -> None:
    words = FRAME.split()
    pages = [
        f"{n} 이 쪽에만 있는 이야기를 길고 길게 적어 둔 것이니 남아 있어야 한다. 참으로 그렇고 그렇다. 또 그렇다.\n\n"
        + " ".join(words[:n])
        + "\n"
        + " ".join(words[n:])
        for n in (3, 4, 5)
    ]
    _, made = make(tmp_path, {"a": pages}, repeated_in_documents=3)
    assert sorted(text.count("\n") for text in texts_of(made).values()) == [0, 0, 3], "one copy stays"


def test_copies_count_once_and_near_copies_stay_whole(tmp_path: Path, make: Make) -> None:
    copies = [FRAME.upper(), FRAME, f"{FRAME} ", FRAME]
    _, made = make(tmp_path / "copies", {"a": copies}, repeated_in_documents=2)
    assert made.counts["lines"]["edited"] == 0, "documents with the same words are one document"
    near = [f"{FRAME}\n{FRAME[::-1]}\n{n}" for n in range(6)]
    _, made = make(tmp_path / "near", {"a": near}, repeated_in_documents=2)
    assert list(texts_of(made).values()) == near
    assert made.counts["lines"]["left_as_copies"] == 6


def test_short_lines_and_code_in_prose_are_not_counted_as_repeated() -> None:
    text = (
        "외부 링크\n\n" + FRAME + "\n\n```\n" + FRAME + "\n```\n\n    " + FRAME + "\n\n" + r"\begin{theorem} " + FRAME
    )
    parts, _ = repeated_lines.parts_of(text, 60)
    assert [(part.first, part.stop) for part in parts] == [(2, 3)]
    parts, _ = repeated_lines.parts_of("\n".join(FRAME.split()), 60)
    assert [(part.first, part.stop) for part in parts] == [(0, len(FRAME.split()))], "short lines, one paragraph"


def slow_counts(texts: list[str], fewest_bytes: int) -> dict[int, int]:
    """Documents of each part, counted the obvious way."""
    seen: dict[str, list[int]] = {}
    for text in texts:
        seen.setdefault(" ".join(text.lower().split()), []).extend(
            p.hash for p in repeated_lines.parts_of(text, fewest_bytes)[0]
        )
    counts: dict[int, int] = defaultdict(int)
    for hashes in seen.values():
        for value in set(hashes):
            counts[value] += 1
    return counts


@pytest.mark.parametrize("tasks", [1, 3, 7])
@pytest.mark.parametrize("pairs", [2, 2**24])
def test_counting_is_exact_whatever_the_tasks_and_partitions(
    tasks: int, pairs: int, tmp_path: Path, make: Make, runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeated_lines, "PAIRS_IN_A_PARTITION", pairs)
    dice = random.Random(1)
    stock = [f"{n}번 문장은 {'가나다라마바사'[n % 7]} 하고 말하였다." for n in range(12)]
    texts = ["\n".join(dice.choices(stock, k=dice.randint(0, 5))) for _ in range(40)]
    extracted, _ = make(tmp_path, {"a": texts, "b": texts[:2]}, tasks, repeated_in_documents=None)
    limits = repeated_lines.Limits(9, 0.0)
    found = repeated_lines.find(extracted.path / "documents", tmp_path / "w", limits, 20, runner)
    counts = slow_counts(texts, 20)
    assert found.of_task("a", 0).known[:, 0].tolist() == sorted(value for value, count in counts.items() if count >= 9)
    assert 0 < len(found.of_task("a", 0).known) < len(counts)
    assert found.of_task("b", 0).known.tolist() == []


def test_tasks_do_not_change_a_text(tmp_path: Path, make: Make) -> None:
    dice = random.Random(2)
    stock = (
        [f"{FRAME}{n}" for n in range(6)]
        + ["Read more", "좋다 ㅋㅋㅋ", ""]
        + [f"혼자 있는 글 {n}" * 9 for n in range(60)]
    )
    texts = ["\n".join(dice.sample(stock, k=4)) for _ in range(30)]
    one, many = (make(tmp_path / str(tasks), {"a": texts}, tasks, repeated_in_documents=3)[1] for tasks in (1, 7))
    assert texts_of(one) == texts_of(many)
    assert one.counts == many.counts
    assert {row["rule"] for row in edits_of(one)} == {"boilerplate", "shorten_runs", "repeated_in_documents"}

    def told(artifact: Artifact) -> list[tuple[Any, ...]]:
        return [(row["id"], row["line"], row["rule"], row["line_hash"]) for row in edits_of(artifact)]

    assert told(one) == told(many)


def test_a_stage_that_was_killed_gives_the_same_bytes(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"a": [f"{n} 이야기 하나는 이 쪽에만 있다. 참으로 그렇다고 한다. 길다.\n{FRAME}\nㅋㅋㅋ" for n in range(8)]}
    _, whole = make(tmp_path / "whole", texts, 4, repeated_in_documents=3)
    real, calls = tables.task_path, 0

    def fails(*arguments: Any) -> Path:
        nonlocal calls
        calls += 1
        if calls > 9:  # four for the documents, three for each edited file
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(tables, "task_path", fails)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "cut", texts, 4, repeated_in_documents=3)
    assert list((tmp_path / "cut").rglob("edits/*/*.parquet")), "it had begun"
    _, again = make(tmp_path / "cut", texts, 4, repeated_in_documents=3)
    assert [entry.sha256 for entry in again.manifest.files] == [entry.sha256 for entry in whole.manifest.files]


EDITS = st.lists(
    st.tuples(st.integers(0, 8), st.sampled_from(["boilerplate", "shorten_runs"])), unique_by=lambda e: e[0]
)


@given(st.lists(st.sampled_from(["", "가", "나다", "ㅋㅋㅋㅋ", "  "]), max_size=9), EDITS)
def test_removal_leaves_no_double_gap_and_nothing_else_changes(parts: list[str], chosen: list[tuple[int, str]]) -> None:
    text = "\n".join(parts)
    count = text.count("\n") + 1
    edits = [lines.Edit(number, rule, 0) for number, rule in sorted(chosen) if number < count]
    gone = {edit.line for edit in edits if edit.rule != lines.SHORTENED}
    short = {edit.line for edit in edits if edit.rule == lines.SHORTENED}
    kept = [
        "ㅋㅋ" if number in short and line == "ㅋㅋㅋㅋ" else line
        for number, line in enumerate(text.split("\n"))
        if number not in gone
    ]
    new = lines.edited(text, edits).split("\n")
    assert [line for line in new if line.strip()] == [line for line in kept if line.strip()]
    if not gone:
        assert new == kept


def test_unknown_rules_are_refused(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(UserError, match="javascript"):
        make_recipe({"a": {"path": "x"}}, lines={"drop": ["no_such_rule"]})


def test_sources_that_keep_repeated_lines_must_exist(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(UserError, match=r"repeated_stay_in = .?laws.*neither a source nor a domain"):
        make_recipe({"a": {"path": "x"}}, lines={"repeated_stay_in": ["laws"]})


def test_settings_are_the_identity(make_recipe: Callable[..., Recipe]) -> None:
    sources = {"a": {"path": "x"}}
    assert score.config(make_recipe(sources))["lines"] == Lines().model_dump(mode="json")
    assert score.config(make_recipe(sources, lines={"drop": []})) != score.config(make_recipe(sources))


def test_opt_in_rules_edit_every_line_that_breaks_them(tmp_path: Path, make: Make) -> None:
    text = "제목\n그는 마을로 돌아와 집을 지었다.\n목차 보기와 여러 가지 안내\n\nHe said so."
    _, made = make(tmp_path, {"a": [text]}, drop=["no_terminal_punctuation", "few_words"])
    assert texts_of(made)["a/0"] == "그는 마을로 돌아와 집을 지었다.\n\nHe said so."


def test_a_source_without_documents_and_an_empty_text_pass(tmp_path: Path, make: Make) -> None:
    _, made = make(tmp_path, {"a": [], "b": [""]}, repeated_in_documents=1)
    assert texts_of(made) == {"b/0": ""}
    assert made.counts["lines"]["sources"]["a"]["documents"] == 0
    assert pa.schema(lines.EDITS).equals(pq.read_schema(made.path / "edits" / "a" / "00000.parquet"))
