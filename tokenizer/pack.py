"""Stage `shards`: kept documents -> token shards with document index, one task a file of documents.

Contract: each document becomes its tokens and one eos; order is that of the documents; the same documents
and tokenizer give the same bytes whatever the number of workers. The manifest's counts are totals by
split and source; `index.json` lists every shard. Memory: about 8 MB of text, or one larger document, and
its tokens (40 bytes each). Speed is the encoder's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import user_error
from configs.files import write_json
from configs.manifest import Artifact
from configs.schema import Recipe
from configs.tasks import TaskRunner
from tokenizer.convert import EOS_ID
from tokenizer.encode import Encoder
from tokenizer.shards import Shard, ShardWriter, SourceShards, write_index

CODE_VERSION: int = 2
SPLITS = ("train", "validation")
_COLUMNS = ["id", "source", "language", "text"]
_ROWS = 256
_TEXT_BYTES = 8_000_000


def config(recipe: Recipe) -> dict[str, Any]:
    """Nothing but the inputs and the sources' domains decides the shards."""
    return {"domains": recipe.destinations}


def build(
    recipe: Recipe, kept: Artifact, tokenizer: Artifact, out: Path, work: Path, runner: TaskRunner
) -> Mapping[str, Any]:
    """Pack every kept document; return totals by split and source."""
    documents = kept.path / "documents"
    names = tuple(
        path.relative_to(documents).with_suffix("").as_posix()
        for split in SPLITS
        for path in sorted((documents / split).glob("*/*.parquet"))
    )
    task = _Pack(documents, names, tokenizer.path, out, work / "packed")
    runner.run("pack tokens", task, len(names), work / "pack-log")
    shards = [Shard(**json.loads(_result(task.results, rank).read_text())) for rank in range(len(names))]
    splits = {split: _by_source(recipe, split, names, shards) for split in SPLITS}
    if not splits["train"]:
        raise user_error("data", None, "keeps no document to train on", "loosen data.rules, or add documents")
    write_index(out, Encoder(tokenizer.path).vocab_size, tokenizer.identity, splits)
    return {
        split: {
            name: {"documents": entry.documents, "tokens": entry.tokens, "bytes": entry.bytes}
            for name, entry in sources.items()
        }
        for split, sources in splits.items()
    }


@dataclass(frozen=True)
class _Pack:
    """Task: one file of documents -> one shard."""

    documents: Path
    names: tuple[str, ...]
    """Files relative to `documents`, without ending: `train/law/00000`."""
    tokenizer: Path
    out: Path
    results: Path

    def __call__(self, rank: int, world_size: int) -> None:
        encoder = Encoder(self.tokenizer)
        name = self.names[rank]
        with ShardWriter(self.out, f"{name}.ds") as writer:
            for rows in _batches(self.documents / f"{name}.parquet"):
                writer.add([[*ids, EOS_ID] for ids in encoder.encode(rows.pop("text"))], rows)
        write_json(_result(self.results, rank), asdict(writer.shard()))


def _batches(path: Path) -> Iterator[dict[str, list[Any]]]:
    """Columns of a few documents at a time, with `bytes` of text: at most _ROWS, about _TEXT_BYTES."""
    for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=_COLUMNS):
        sizes = pc.binary_length(batch["text"]).to_numpy()
        group = np.cumsum(sizes) // _TEXT_BYTES
        borders = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(sizes)]
        for first, end in pairwise(borders):
            yield {**batch.slice(first, end - first).to_pydict(), "bytes": sizes[first:end].tolist()}


def _by_source(recipe: Recipe, split: str, names: tuple[str, ...], shards: list[Shard]) -> dict[str, SourceShards]:
    """The shards that hold documents, in the recipe's order of sources."""
    found = {}
    for source, domain in recipe.destinations.items():
        own = tuple(
            shard
            for name, shard in zip(names, shards, strict=True)
            if name.startswith(f"{split}/{source}/") and shard.documents
        )
        if own:
            documents, tokens, size = (
                sum(column) for column in zip(*((s.documents, s.tokens, s.bytes) for s in own), strict=True)
            )
            found[source] = SourceShards(domain, documents, tokens, size, own)
    return found


def _result(folder: Path, rank: int) -> Path:
    return folder / f"{rank:05d}.json"
