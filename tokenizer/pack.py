"""Stage `shards`: kept documents -> token shards with document index, one task a file of documents.

Contract: each document becomes its tokens and one eos; order is that of the documents; the same documents
and tokenizer give the same bytes whatever the number of workers. Memory: one batch of documents.
The manifest's counts are totals by split and source; `index.json` lists every shard.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from configs.errors import user_error
from configs.files import write_json
from configs.manifest import Artifact
from configs.schema import Recipe
from configs.tasks import TaskRunner
from tokenizer.convert import EOS_ID
from tokenizer.encode import Encoder
from tokenizer.shards import Shard, ShardWriter, SourceShards, write_index

CODE_VERSION: int = 1
SPLITS = ("train", "validation")
_ROWS = 256


def config(recipe: Recipe) -> dict[str, Any]:
    """Nothing but the inputs and the sources' domains decides the shards."""
    return {"domains": {name: source.domain for name, source in recipe.sources.items()}}


def build(
    recipe: Recipe, decided: Artifact, tokenizer: Artifact, out: Path, work: Path, runner: TaskRunner
) -> Mapping[str, Any]:
    """Pack every kept document; return totals by split and source."""
    files = tuple(
        path.relative_to(decided.path / "documents").with_suffix("").as_posix()
        for split in SPLITS
        for path in sorted((decided.path / "documents" / split).glob("*/*.parquet"))
    )
    task = _Pack(decided.path / "documents", files, tokenizer.path, out, work / "packed")
    runner.run("pack tokens", task, len(files), work / "pack-log")
    shards = [Shard(**json.loads((work / "packed" / f"{rank:05d}.json").read_text())) for rank in range(len(files))]
    splits = {split: dict(_by_source(recipe, split, files, shards)) for split in SPLITS}
    if not splits["train"]:
        raise user_error("data", None, "keeps no document to train on", "loosen data.rules, or add documents")
    write_index(out, Encoder(tokenizer.path).vocab_size, tokenizer.identity, splits)
    return {
        split: {
            name: {key: value for key, value in asdict(entry).items() if key != "shards"}
            for name, entry in sources.items()
        }
        for split, sources in splits.items()
    }


@dataclass(frozen=True)
class _Pack:
    """Task: one file of documents -> one shard."""

    documents: Path
    files: tuple[str, ...]
    """Relative to `documents`, without ending: `train/law/00000`."""
    tokenizer: Path
    out: Path
    results: Path

    def __call__(self, rank: int, world_size: int) -> None:
        encoder = Encoder(self.tokenizer)
        name = self.files[rank]
        columns = ["id", "source", "language", "text"]
        with ShardWriter(self.out, f"{name}.ds") as writer:
            for batch in pq.ParquetFile(self.documents / f"{name}.parquet").iter_batches(_ROWS, columns=columns):
                rows = batch.to_pydict()
                rows["bytes"] = [len(text.encode("utf-8")) for text in rows["text"]]
                writer.add([[*ids, EOS_ID] for ids in encoder.encode(rows.pop("text"))], rows)
        write_json(self.results / f"{rank:05d}.json", asdict(writer.shard()))


def _by_source(
    recipe: Recipe, split: str, files: tuple[str, ...], shards: list[Shard]
) -> Iterator[tuple[str, SourceShards]]:
    for source in recipe.sources:
        own = tuple(
            shard
            for name, shard in zip(files, shards, strict=True)
            if name.startswith(f"{split}/{source}/") and shard.documents
        )
        if own:
            yield source, SourceShards(
                domain=recipe.sources[source].domain,
                documents=sum(shard.documents for shard in own),
                tokens=sum(shard.tokens for shard in own),
                bytes=sum(shard.bytes for shard in own),
                shards=own,
            )
