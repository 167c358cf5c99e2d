"""A small Korean-English collection of kept documents, and the tokenizer trained on it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.recipe import load_recipe
from configs.schema import Recipe
from tests.conftest import ROOT, InProcessRunner
from tokenizer.stages import train
from twofold.artifacts import Artifact, StageSpec, ensure

KOREAN = [
    "바람이 불면 마을 사람들은 항구로 나가 배를 살폈다. 배를 묶는 일은 언제나 아이들의 몫이었다.",
    "도서관은 아침 일곱 시에 문을 연다. 사람들은 책을 빌리고, 책을 돌려주고, 책 이야기를 한다.",
    "제1조(목적) 이 조례는 시장의 운영에 필요한 사항을 정함을 목적으로 한다. 제2조(정의) 이 조례에서 쓰는 말은 이렇다.",
    "함수의 값이 2026이면 12를 더하고, 아니면 3을 뺀다. 값은 0 이상이어야 한다. ㅋㅋㅋㅋㅋ",
]
ENGLISH = [
    "When the wind rose the people of the village went down to the harbour to look after the boats.",
    "The library opens at seven. People borrow books, return books and talk about books; the cat doesn't mind.",
    "def area(width, height):\n    # both in metres\n    return width * height\n\n\nfor i in range(9):\n    print(i)\n",
    "She'll say it isn't so, and they've said it is: 3.14159 or 22/7, it's the same to him — “nearly”. -------- ====",
]
VOCAB_SIZE, RESERVED = 420, 4


def write_documents(folder: Path, split: str, source: str, texts: list[str], language: str, number: int = 0) -> None:
    """One file of kept documents; a document's id is its place in `texts`."""
    write_rows(folder, split, source, [(f"{source}/{n}", text) for n, text in enumerate(texts)], language, number)


def write_rows(
    folder: Path, split: str, source: str, rows: list[tuple[str, str]], language: str, number: int = 0
) -> None:
    """One file of kept documents from (id, text)."""
    path = folder / "documents" / split / source / f"{number:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(rows)
    columns = {
        "id": [name for name, _ in rows],
        "source": [source] * count,
        "domain": ["general"] * count,
        "language": [language] * count,
        "text": pa.array([text for _, text in rows], pa.large_string()),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def decided(run_dir: Path, files: int = 1) -> Artifact:
    """Kept documents as `write` leaves them, each source cut over `files` files."""

    def build(out: Path, work: Path) -> dict[str, int]:
        for source, texts, language in (("ko-text", KOREAN * 3, "ko"), ("en-text", ENGLISH * 3, "en")):
            rows = [(f"{source}/{n}", text) for n, text in enumerate(texts)]
            for number in range(files):
                share = rows[number * len(rows) // files : (number + 1) * len(rows) // files]
                write_rows(out, "train", source, share, language, number)
            write_documents(out, "validation", source, texts[:2], language)
        return {}

    return ensure(run_dir, StageSpec("write", 1, {"files": files}, {}), build)


def small_recipe(*overrides: str) -> Recipe:
    """Without superwords, unless they are asked for."""
    small = (f"tokenizer.vocab_size={VOCAB_SIZE}", f"tokenizer.reserved_ids={RESERVED}", "tokenizer.superwords=0")
    return load_recipe(ROOT / "configs" / "smoke.yaml", [*small, *overrides])


def trained(run_dir: Path, documents: Artifact, *overrides: str) -> Artifact:
    recipe = small_recipe(*overrides)
    spec = StageSpec("tokenizer", train.CODE_VERSION, train.config(recipe), {"write": documents.identity})
    return ensure(run_dir, spec, lambda out, work: train.build(recipe, documents, out, work, InProcessRunner()))


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return decided(tmp_path_factory.mktemp("documents"))


@pytest.fixture(scope="session")
def tokenizer(documents: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return trained(tmp_path_factory.mktemp("tokenizer"), documents)
