"""The format of token shards: the one module of `tokenizer` that `pretrain` imports.

    <split>/<source>/<task:05d>.ds                   little-endian uint32 token ids, each document ended by eos
    <split>/<source>/<task:05d>.ds.index             little-endian uint64: end of each document, in tokens
    <split>/<source>/<task:05d>.ds.documents.parquet id, source, language, bytes of text; a row a document
    index.json                                       shards and totals by split and source; the tokenizer's identity

`.ds` and `.ds.index` are datatrove's (its `TokenizedFile`), so its readers open them too.

Contract: `open_tokens` maps a shard without reading it; `read_index` checks that every shard is there
at the size the index says. Counts are 64-bit. numpy only; pyarrow when documents are written or read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from configs.errors import user_error
from configs.files import atomic_path, write_json

INDEX_FILE = "index.json"
TOKEN_DTYPE = np.dtype("<u4")
END_DTYPE = np.dtype("<u8")
_MEND = "make the shards again"


@dataclass(frozen=True)
class Shard:
    """One file of tokens; `path` is relative to the folder of the index."""

    path: str
    tokens: int
    documents: int
    bytes: int


@dataclass(frozen=True)
class SourceShards:
    """All shards of one source in one split, in order."""

    domain: str
    documents: int
    tokens: int
    bytes: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Index:
    """What `index.json` says of a folder of shards."""

    folder: Path
    vocab_size: int
    tokenizer_identity: str
    splits: Mapping[str, Mapping[str, SourceShards]]

    def tokens(self, split: str) -> dict[str, int]:
        """Tokens by source."""
        return {source: entry.tokens for source, entry in self.splits[split].items()}


class ShardWriter:
    """Writes one shard, its document ends and its side index; each appears whole, at the end of the block.

    Use as a context manager; memory is that of one batch.
    """

    def __init__(self, folder: Path, path: str) -> None:
        self._folder, self._path = folder, path
        self._tokens = self._documents = self._bytes = 0
        self._open = ExitStack()

    def __enter__(self) -> ShardWriter:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema([(name, pa.string()) for name in ("id", "source", "language")] + [("bytes", pa.int64())])
        # The tokens come first here and so are renamed last: a shard that exists has its side files.
        self._token_file = self._open.enter_context(self._begin("").open("wb"))
        self._end_file = self._open.enter_context(self._begin(".index").open("wb"))
        self._rows = self._open.enter_context(pq.ParquetWriter(self._begin(".documents.parquet"), self._schema))
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self._open.__exit__(kind, value, trace)

    def add(self, documents: Sequence[Sequence[int]], rows: Mapping[str, Sequence[Any]]) -> None:
        """Append documents: their token ids (eos included), and columns id, source, language, bytes."""
        import pyarrow as pa

        lengths = np.fromiter((len(ids) for ids in documents), END_DTYPE, count=len(documents))
        total = int(lengths.sum())
        np.fromiter((i for ids in documents for i in ids), TOKEN_DTYPE, count=total).tofile(self._token_file)
        (np.cumsum(lengths, dtype=END_DTYPE) + END_DTYPE.type(self._tokens)).tofile(self._end_file)
        self._rows.write_table(pa.table({name: rows[name] for name in self._schema.names}, schema=self._schema))
        self._tokens += total
        self._documents += len(documents)
        self._bytes += sum(rows["bytes"])

    def shard(self) -> Shard:
        """What was written so far, for the index."""
        return Shard(self._path, self._tokens, self._documents, self._bytes)

    def _begin(self, ending: str) -> Path:
        return self._open.enter_context(atomic_path(self._folder / f"{self._path}{ending}"))


def write_index(
    folder: Path, vocab_size: int, tokenizer_identity: str, splits: Mapping[str, Mapping[str, SourceShards]]
) -> None:
    """Write `index.json`; call it last."""
    written = {split: {name: asdict(entry) for name, entry in sources.items()} for split, sources in splits.items()}
    write_json(
        folder / INDEX_FILE,
        {"token_dtype": "uint32", "vocab_size": vocab_size, "tokenizer_identity": tokenizer_identity, "splits": written},
    )


def read_index(folder: Path) -> Index:
    """The index of a folder of shards, every shard's size checked."""
    path = folder / INDEX_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        assert raw["token_dtype"] == "uint32", raw["token_dtype"]
        splits = {
            split: {name: _source_shards(entry) for name, entry in sources.items()}
            for split, sources in raw["splits"].items()
        }
        index = Index(folder, int(raw["vocab_size"]), str(raw["tokenizer_identity"]), splits)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise user_error(str(path), None, f"cannot be read ({error!r})", _MEND) from None
    for sources in splits.values():
        for entry in sources.values():
            for shard in entry.shards:
                _check_size(folder, shard)
    return index


def open_tokens(path: Path) -> npt.NDArray[np.uint32]:
    """A shard's tokens as a read-only memory map, uint32 [tokens]."""
    return _open(path, TOKEN_DTYPE)


def open_document_ends(path: Path) -> npt.NDArray[np.uint64]:
    """The end of each of a shard's documents, in tokens; `path` is the shard's."""
    return _open(path.with_name(f"{path.name}.index"), END_DTYPE)


def read_documents(path: Path) -> dict[str, list[Any]]:
    """id, source, language and bytes of a shard's documents, as columns; `path` is the shard's."""
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = pq.read_table(path.with_name(f"{path.name}.documents.parquet")).to_pydict()
    return columns


def _source_shards(raw: Mapping[str, Any]) -> SourceShards:
    return SourceShards(**{**raw, "shards": tuple(Shard(**shard) for shard in raw["shards"])})


def _check_size(folder: Path, shard: Shard) -> None:
    for path, expected in (
        (folder / shard.path, shard.tokens * TOKEN_DTYPE.itemsize),
        (folder / f"{shard.path}.index", shard.documents * END_DTYPE.itemsize),
    ):
        size = path.stat().st_size if path.exists() else None
        if size != expected:
            found = "is missing" if size is None else f"has {size} bytes, and the index says {expected}"
            raise user_error(str(path), None, found, _MEND)


def _open(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    try:
        size = path.stat().st_size
        if size % dtype.itemsize:
            raise user_error(str(path), None, f"has {size} bytes, no multiple of {dtype.itemsize}", _MEND)
        # numpy cannot map an empty file.
        return np.memmap(path, dtype, mode="r") if size else np.empty(0, dtype)
    except OSError as error:
        raise user_error(str(path), None, f"cannot be read ({error.strerror})", _MEND) from None
