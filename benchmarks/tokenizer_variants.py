"""Tokenizers of several kinds on the same text: what the compression and ablation benchmarks share.

Contract: `documents` lays sources of the corpus out as kept documents, `trained` makes a tokenizer of them as the
stage does; both are artifacts in the scratch folder, so a second call finds what the first one made.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import common
from configs.recipe import load_recipe
from configs.schema import Tokenizer
from data_pipeline.readers.html import TooDeep, main_text
from tokenizer.evaluation.compression import LabelledText
from tokenizer.stages import train
from twofold.artifacts import Artifact, StageSpec, ensure
from twofold.tasks import Task

VARIANTS: dict[str, dict[str, Any]] = {
    "exaone3": {"pattern": "exaone3", "morphemes": "mecab"},
    "exaone3-code": {"pattern": "exaone3-code", "superwords": 0},
    "exaone3-code, MeCab": {"pattern": "exaone3-code", "morphemes": "mecab", "superwords": 0},
    "plain": {"pattern": "plain"},
    "superbpe": {"pattern": "exaone3-code", "superwords": 0.1},
    "superbpe, a fifth": {"pattern": "exaone3-code", "superwords": 0.2},
}
"""Name -> what the recipe's section `tokenizer` says."""
_RECIPE = Path(__file__).parent.parent / "configs" / "smoke.yaml"
_FILE_BYTES = 16_000_000
_HELD_OUT_ONE_IN = 50
Chosen = Callable[[str], bool]
"""Whether a document, by its id, is taken."""


class OneByOne:
    """A runner of this process."""

    def run(self, label: str, task: Task, n_tasks: int, log_dir: Path) -> None:
        for rank in range(n_tasks):
            task(rank, n_tasks)


def is_held_out(document_id: str) -> bool:
    """Two of a hundred documents, by a hash of the id."""
    return zlib.crc32(document_id.encode()) % _HELD_OUT_ONE_IN == 0


def texts(corpus: Path, sources: Sequence[str], chosen: Chosen = lambda _: True) -> dict[str, list[LabelledText]]:
    """Source -> its chosen texts; the language is ko, en or code, the domain the source's name."""
    return {
        source: [
            LabelledText(language_of(source, record), Path(source).name, text)
            for record in common.records(corpus / source)
            if chosen(record["id"]) and (text := text_of(record))
        ]
        for source in sources
    }


def text_of(record: Mapping[str, Any]) -> str:
    """Its text, or the main content of its page; empty where there is none."""
    if record.get("text"):
        return str(record["text"])
    try:
        return main_text(record.get("html") or "")
    except TooDeep:
        return ""


def language_of(source: str, record: Mapping[str, Any]) -> str:
    """As the record says; sources of code are `code`."""
    return "code" if "/code/" in source else str(record["lang"])


def documents(corpus: Path, sources: Sequence[str], scratch: Path, chosen: Chosen = lambda _: True) -> Artifact:
    """The chosen texts of sources as kept training documents."""

    def build(out: Path, work: Path) -> dict[str, int]:
        return {source: _write(out, Path(source).name, own) for source, own in texts(corpus, sources, chosen).items()}

    config = {"sources": list(sources), "corpus": str(corpus.resolve()), "chosen": chosen.__name__}
    return ensure(scratch, StageSpec("write", 1, config, {}), build)


def trained(kept: Artifact, wish: Tokenizer, scratch: Path) -> Artifact:
    """The tokenizer that `wish` gives on kept documents."""
    recipe = load_recipe(_RECIPE, []).model_copy(update={"tokenizer": wish})
    spec = StageSpec("tokenizer", train.CODE_VERSION, train.config(recipe), {"write": kept.identity})
    return ensure(scratch, spec, lambda out, work: train.build(recipe, kept, out, work, OneByOne()))


def _write(folder: Path, source: str, own: Sequence[LabelledText]) -> int:
    """Files of some 16 MB; returns the bytes of text."""
    parts: list[list[LabelledText]] = [[]]
    size = total = 0
    for text in own:
        size += len(text.text.encode())
        total += len(text.text.encode())
        parts[-1].append(text)
        if size >= _FILE_BYTES:
            parts.append([])
            size = 0
    for number, part in enumerate(parts):
        path = folder / "documents" / "train" / source / f"{number:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        names = [f"{source}/{number}/{place}" for place in range(len(part))]
        column = pa.array([text.text for text in part], pa.large_string())
        pq.write_table(pa.table({"id": names, "text": column}), path, compression="zstd")
    return total
