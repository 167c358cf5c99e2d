"""The format of token shards: the one module of `tokenizer` that `pretrain` imports.

    <split>/<source>/<task:05d>.ds                   little-endian uint32 token ids, each document ended by eos
    <split>/<source>/<task:05d>.ds.index             little-endian uint64: end of each document, in tokens
    <split>/<source>/<task:05d>.ds.documents.parquet id, source, language, bytes of text; one row per document
    index.json                                       shards and totals by split and source; the tokenizer's identity

`.ds` and `.ds.index` are datatrove's (its `TokenizedFile`), so its readers open them too.

Contract: `open_tokens` maps a shard without reading it. `read_index` reads one file, and refuses shards that hold an id
outside the vocabulary or were made with another tokenizer than asked for. `check_files` refuses shards that are missing
or differ in size from the index; it takes two `stat` calls per shard. A file system that fails for a while is waited
for (twofold/files.py). Counts are 64-bit. The module needs numpy only, and pyarrow to write or read documents.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twofold.errors import UserError, user_error
from twofold.files import atomic_path, is_passing, patiently, read_json, size_of, write_json

INDEX_FILE = "index.json"
TOKEN_DTYPE = np.dtype("<u4")
END_DTYPE = np.dtype("<u8")


@dataclass(frozen=True)
class Shard:
    """One file of tokens; `path` is relative to the folder of the index."""

    path: str
    tokens: int
    documents: int
    bytes: int
    largest_id: int
    """-1 where there is no token."""


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
    """The `index.json` of a folder of shards."""

    folder: Path
    vocab_size: int
    tokenizer_identity: str
    splits: Mapping[str, Mapping[str, SourceShards]]

    def tokens(self, split: str) -> dict[str, int]:
        """Tokens by source."""
        return {source: entry.tokens for source, entry in self.splits[split].items()}


class ShardWriter:
    """Writes one shard, its document ends and its documents; all files appear when the `with` block ends.

    Memory is that of one batch.
    """

    def __init__(self, folder: Path, path: str) -> None:
        self._folder, self._path = folder, path
        self._tokens = self._documents = self._bytes = 0
        self._largest_id = -1
        self._open = ExitStack()

    def __enter__(self) -> ShardWriter:
        import pyarrow as pa
        import pyarrow.parquet as pq

        strings = [(name, pa.string()) for name in ("id", "source", "language")]
        self._schema = pa.schema([*strings, ("bytes", pa.int64())])
        with ExitStack() as stack:
            # The tokens are entered first, so they are renamed last: a shard that exists has its side files.
            token_path, end_path, rows_path = (
                stack.enter_context(atomic_path(self._folder / f"{self._path}{ending}"))
                for ending in ("", ".index", ".documents.parquet")
            )
            self._token_file = stack.enter_context(token_path.open("wb"))
            self._end_file = stack.enter_context(end_path.open("wb"))
            self._rows = stack.enter_context(pq.ParquetWriter(rows_path, self._schema, compression="zstd"))
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self._open.__exit__(kind, value, trace)

    def add(
        self, tokens: npt.NDArray[np.uint32], ends: npt.NDArray[np.integer[Any]], rows: Mapping[str, Sequence[Any]]
    ) -> None:
        """Append documents: their ids, eos included, one after the other; the end of each; columns of `documents`."""
        import pyarrow as pa

        assert len(tokens) == (int(ends[-1]) if len(ends) else 0), "the last document ends with the last token"
        table = pa.table({name: pa.array(rows[name], self._schema.field(name).type) for name in self._schema.names})
        tokens.astype(TOKEN_DTYPE, copy=False).tofile(self._token_file)
        (ends.astype(END_DTYPE) + END_DTYPE.type(self._tokens)).tofile(self._end_file)
        self._rows.write_table(table.cast(self._schema))
        self._tokens += len(tokens)
        self._documents += len(ends)
        self._bytes += sum(table["bytes"].to_pylist())
        if len(tokens):
            self._largest_id = max(self._largest_id, int(tokens.max()))

    def shard(self) -> Shard:
        """What was written so far, for the index."""
        return Shard(self._path, self._tokens, self._documents, self._bytes, self._largest_id)


def write_index(
    folder: Path, vocab_size: int, tokenizer_identity: str, splits: Mapping[str, Mapping[str, SourceShards]]
) -> None:
    """Write `index.json`; call it last."""
    written = {split: {name: asdict(entry) for name, entry in sources.items()} for split, sources in splits.items()}
    index = {
        "token_dtype": TOKEN_DTYPE.name,
        "vocab_size": vocab_size,
        "tokenizer_identity": tokenizer_identity,
        "splits": written,
    }
    write_json(folder / INDEX_FILE, index)


def read_index(folder: Path, tokenizer_identity: str | None = None) -> Index:
    """Read the index of a folder of shards; `check_files` looks at the files.

    `tokenizer_identity`, if given, is the tokenizer that the shards must have been made with.
    """
    path = folder / INDEX_FILE
    try:
        raw = read_json(path)
        if raw["token_dtype"] != TOKEN_DTYPE.name:
            raise ValueError(f"tokens of type {raw['token_dtype']!r}")
        splits = {
            split: {name: _source_shards(entry) for name, entry in sources.items()}
            for split, sources in raw["splits"].items()
        }
        index = Index(folder, int(raw["vocab_size"]), str(raw["tokenizer_identity"]), splits)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"cannot be read ({error!r})") from None
    if tokenizer_identity not in (None, index.tokenizer_identity):
        problem = f"was made with another tokenizer than {tokenizer_identity}"
        raise user_error(str(path), index.tokenizer_identity, problem, "use the shards and the tokenizer of one run")
    for shard in _shards(index):
        if shard.largest_id >= index.vocab_size:
            problem = f"holds the id {shard.largest_id}, beyond the vocabulary of {index.vocab_size}"
            raise _damaged(folder / shard.path, problem)
    return index


def check_files(index: Index) -> None:
    """Check that the files of every shard are there with the size that the index says."""
    for shard in _shards(index):
        for path, expected in (
            (index.folder / shard.path, shard.tokens * TOKEN_DTYPE.itemsize),
            (index.folder / f"{shard.path}.index", shard.documents * END_DTYPE.itemsize),
        ):
            size = size_of(path)
            if size != expected:
                found = "is missing" if size is None else f"has {size} bytes, and the index says {expected}"
                raise _damaged(path, found)


def open_tokens(path: Path, scattered: bool = False) -> npt.NDArray[np.uint32]:
    """A shard's tokens as a read-only memory map, uint32 [tokens].

    `scattered`: they are read here and there, so the system need not read megabytes ahead of each sequence.
    """
    return _map(path, TOKEN_DTYPE, scattered)


def open_document_ends(path: Path) -> npt.NDArray[np.uint64]:
    """The end of each of a shard's documents, in tokens, uint64 [documents]; `path` is the shard's."""
    return _map(path.with_name(f"{path.name}.index"), END_DTYPE)


def read_documents(path: Path) -> dict[str, list[Any]]:
    """id, source, language and bytes of a shard's documents, as columns; `path` is the shard's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = path.with_name(f"{path.name}.documents.parquet")
    try:
        columns: dict[str, list[Any]] = patiently(pq.read_table, rows).to_pydict()
    except (OSError, pa.ArrowException) as error:  # Arrow reports damage as an OSError as well
        if isinstance(error, OSError) and is_passing(error):
            raise
        raise _damaged(rows, f"cannot be read ({error})") from None
    return columns


def _source_shards(raw: Mapping[str, Any]) -> SourceShards:
    return SourceShards(**{**raw, "shards": tuple(Shard(**shard) for shard in raw["shards"])})


def _shards(index: Index) -> Iterator[Shard]:
    return chain.from_iterable(entry.shards for sources in index.splits.values() for entry in sources.values())


def _map(path: Path, dtype: np.dtype[Any], scattered: bool = False) -> npt.NDArray[Any]:
    size = size_of(path)
    if size is None:
        raise _damaged(path, "is missing")
    if size % dtype.itemsize:
        raise _damaged(path, f"has {size} bytes, not a multiple of {dtype.itemsize}")
    if not size:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    mapped = patiently(_mapped, path, size)
    if scattered and hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapped, dtype)


def _mapped(path: Path, size: int) -> mmap.mmap:
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)


def _damaged(path: Path, problem: str) -> UserError:
    """A damaged file of the shards' artifact, which is only built anew once its folder is gone."""
    folder = next((above for above in path.parents if (above / INDEX_FILE).exists()), path.parent)
    return user_error(str(path), None, problem, f"restore it, or remove the folder {folder} and run again")
