"""Stage `shards`: kept documents -> token shards with their documents, one task per file of documents.

Contract: each document becomes its tokens and one eos, in the order of the documents. The same documents and tokenizer
give the same bytes with any number of workers. The manifest's counts are totals by split and source; `index.json` lists
every shard with its own counts. Text that is not UTF-8 is a `UserError`. The first documents of each source are also
encoded by `tokenizers`, and no shard that differs is committed.

Memory: 330 MB per worker at 102,400 ids, and 10 bytes for each byte of a batch of about 8 MB, or of one larger document
(40 where it is one word). Cost: 2 s to start, then 30 MB/s of text per core, Parquet and disk included.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers

from configs.schema import Recipe
from tokenizer.encoder import Encoder
from tokenizer.formats import TOKENIZER_FILE
from tokenizer.shards import (
    Index,
    Shard,
    ShardWriter,
    SourceShards,
    open_document_ends,
    open_tokens,
    read_index,
    write_index,
)
from tokenizer.texts import by_bytes, utf8_of
from twofold.artifacts import Artifact
from twofold.errors import user_error
from twofold.files import write_json
from twofold.special_ids import EOS_ID
from twofold.stage import From, Stage
from twofold.tasks import TaskRunner

CODE_VERSION: int = 3
SPLITS = ("train", "validation")
_COLUMNS = ["id", "source", "language"]
_ROWS = 1_000
_TEXT_BYTES = 8_000_000
_CHECKED_DOCUMENTS, _CHECKED_CHARACTERS = 8, 50_000
"""How many documents of each source's first shard `check_sample` compares, and how long they may be."""


def config(recipe: Recipe) -> dict[str, Any]:
    """The sources' domains, the only thing apart from the inputs that decides the shards."""
    return {"domains": recipe.destinations}


def build(
    recipe: Recipe,
    kept: Annotated[Artifact, From("write")],
    tokenizer: Artifact,
    out: Path,
    work: Path,
    runner: TaskRunner,
) -> Mapping[str, Any]:
    """Tokenize every kept document; return totals by split and source."""
    documents = kept.path / "documents"
    names = tuple(
        path.relative_to(documents).with_suffix("").as_posix()
        for split in SPLITS
        for path in sorted((documents / split).glob("*/*.parquet"))
    )
    task = _Tokenize(documents, names, tokenizer.path, out, work / "results")
    runner.run("tokenize", task, len(names), work / "tokenize-log")
    shards = [Shard(**json.loads(_result(task.results, rank).read_text())) for rank in range(len(names))]
    splits = {split: _by_source(recipe, split, shards) for split in SPLITS}
    if not splits["train"]:
        raise user_error("data", None, "keeps no document to train on", "loosen data.rules, or add documents")
    record = tokenizers.Tokenizer.from_file(str(tokenizer.path / TOKENIZER_FILE))
    write_index(out, record.get_vocab_size(), tokenizer.identity, splits)
    check_sample(read_index(out, tokenizer.identity), documents, record)
    return {
        split: {
            name: {"documents": entry.documents, "tokens": entry.tokens, "bytes": entry.bytes}
            for name, entry in sources.items()
        }
        for split, sources in splits.items()
    }


STAGE = Stage(
    name="shards",
    makes="token shards",
    code_version=CODE_VERSION,
    config=config,
    build=build,
    in_recipe=lambda recipe: recipe.tokenizes,
)


def check_sample(index: Index, documents: Path, record: tokenizers.Tokenizer) -> None:
    """Check the first documents of each source against `tokenizers`."""
    record.encode_special_tokens = True
    for shard in (entry.shards[0] for sources in index.splits.values() for entry in sources.values()):
        path, start = index.folder / shard.path, 0
        tokens, ends = open_tokens(path), open_document_ends(path)[:_CHECKED_DOCUMENTS].tolist()
        texts = next(_batches((documents / shard.path).with_suffix(".parquet")))["text"].to_pylist()
        for text, end in zip(texts, ends, strict=False):
            if len(text) <= _CHECKED_CHARACTERS:
                same = tokens[start:end].tolist() == [*record.encode(text).ids, EOS_ID]
                assert same, f"{shard.path}: token {start} and on are not what tokenizer.json says"
            start = end


@dataclass(frozen=True)
class _Tokenize:
    """Task: one file of documents -> one shard."""

    documents: Path
    names: tuple[str, ...]
    """Files relative to `documents`, without ending: `train/law/00000`."""
    tokenizer: Path
    out: Path
    results: Path

    def __call__(self, rank: int, world_size: int) -> None:
        encoder = _encoder(self.tokenizer)
        name = self.names[rank]
        with ShardWriter(self.out, f"{name}.ds") as writer:
            for batch in _batches(self.documents / f"{name}.parquet"):
                text, bounds = utf8_of(batch["text"])
                tokens, token_ends = encoder.encode_utf8(text, bounds[1:])
                rows = {column: batch[column] for column in _COLUMNS}
                writer.add(tokens, token_ends, {**rows, "bytes": pa.array(np.diff(bounds))})
        write_json(_result(self.results, rank), asdict(writer.shard()))


@functools.lru_cache(maxsize=1)
def _encoder(tokenizer: Path) -> Encoder:
    """Kept between the tasks of a worker, with its cache of words."""
    return Encoder(tokenizer)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """A few documents at a time: at most _ROWS, about _TEXT_BYTES of text; `UserError` where one is not text."""
    first_row = 0
    for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=[*_COLUMNS, "text"]):
        try:
            batch["text"].validate(full=True)
            if batch["text"].null_count:
                raise pa.ArrowInvalid("a text is missing")
        except pa.ArrowInvalid as error:
            problem = f"is not text (rows {first_row} to {first_row + len(batch) - 1}: {error})"
            raise user_error(str(path), None, problem, "run the stage write again") from None
        first_row += len(batch)
        yield from by_bytes(batch, _TEXT_BYTES)


def _by_source(recipe: Recipe, split: str, shards: list[Shard]) -> dict[str, SourceShards]:
    """The shards that hold documents, in the recipe's order of sources."""
    found = {}
    for source, domain in recipe.destinations.items():
        own = tuple(shard for shard in shards if shard.path.startswith(f"{split}/{source}/") and shard.documents)
        if own:
            documents, tokens = sum(shard.documents for shard in own), sum(shard.tokens for shard in own)
            found[source] = SourceShards(domain, documents, tokens, sum(shard.bytes for shard in own), own)
    return found


def _result(folder: Path, rank: int) -> Path:
    return folder / f"{rank:05d}.json"
