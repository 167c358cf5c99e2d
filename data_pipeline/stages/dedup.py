"""Hashes, URLs and MinHash keys -> exact and URL duplicates, and pairs of near duplicates.

Contract: writes, row-aligned with the documents and numbered in their order,

    clusters/<source>/<task:05d>.parquet  `document` (its number), `exact_cluster` and `url_cluster` (each named by the
                                          number of its first document; null if the document has no duplicate of that
                                          kind), and `cluster` and `cluster_size` for the documents linked by any kind,
                                          directly or through others
    pairs/<source>/<task:05d>.parquet     near duplicates of the task's documents with later ones: `first` < `second`
                                          (document numbers) and `similarity`

Exact duplicates have the same words, ignoring case. URL duplicates have the same canonical URL
(data_pipeline/features/urls.py) and words that agree: a similarity of at least `url_duplicates_threshold` to the
longest document of their group. Many sources give the address of their site to each text, so the address alone says
little; `url_different` counts the documents that share an address with others and agree with none.

A pair stands for all exact copies of both documents, which have the same keys and the same sketch. Two documents are
compared if they share a MinHash bucket key, and are near duplicates if their estimated similarity is at least
`threshold` even if it is one standard error too high (data_pipeline/features/minhash.py). Of more than 64 documents
with one key, each is compared with the longest 32 and the next 8. A cluster only says which documents may compete:
`filter` decides which are kept, and drops a document only for one to which it is itself linked.

The result does not depend on how documents are divided into tasks. Everything travels through files between tasks
(data_pipeline/shuffle.py): about 600 bytes of keys and 1 to 3 kB of sketches a document, each written and read once.
A task that pairs keys has about 4 million documents (0.5 GB). Linking is one task: 8 bytes of memory a document.
`benchmarks/scale.py` measures how time and memory grow.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.schema import Recipe
from data_pipeline import shuffle, tables
from data_pipeline.stages import connected_components, near_pairs
from data_pipeline.stages import score as score_stage
from twofold.artifacts import Artifact
from twofold.files import atomic_path, write_json
from twofold.stage import Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 6

CLUSTERS = pa.schema(
    [(name, pa.int64()) for name in ("document", "exact_cluster", "url_cluster", "cluster", "cluster_size")]
)
PAIRS = near_pairs.SIMILAR
CLUSTERS_FOLDER, PAIRS_FOLDER = "clusters", "pairs"
PART_DOCUMENTS = 4_000_000
_EXACT, _URL = "exact_hash", "url_hash"
_LINKS = ("exact", "url", "all")
_LINKED_AT_ONCE = 1_000_000

_KEYS = pa.schema(
    [
        ("document", pa.int64()),
        *((name, pa.uint64()) for name in ("key", "copy_one", "copy_two")),
        ("bytes", pa.int64()),
    ]
)
"""`copy_one` and `copy_two`: the exact hash."""
Numbers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
"""Shape (n, k): n keys of k words."""


def config(recipe: Recipe) -> dict[str, Any]:
    """Which duplicates are looked for; the MinHash keys depend on score's settings."""
    near = recipe.data.near_duplicates
    data = recipe.data
    return {
        "threshold": near.threshold if near.enabled else None,
        "url_duplicates": data.url_duplicates_threshold if data.url_duplicates else None,
    }


def build(recipe: Recipe, score: Artifact, out: Path, work: Path, runner: TaskRunner) -> Mapping[str, Any]:
    """Bring equal keys together, compare pairs, link what agrees, name the clusters; returns their counts."""
    attributes = score.path / "attributes"
    runs = shuffle.Runs.of(attributes)
    parts = max(1, math.ceil(runs.documents / PART_DOCUMENTS))
    buckets = score_stage.bucket_columns(recipe.data.near_duplicates)
    keys = (_EXACT, *([_URL] if recipe.data.url_duplicates else []), *buckets)
    share = _ShareKeys(attributes, runs, keys, parts, work)
    runner.run("share keys", share, len(runs), work / "share-keys")
    pair = _PairKeys(share)
    runner.run("find duplicates", pair, len(keys) * parts, work / "find")
    compare = near_pairs.Compare(
        runs,
        attributes,
        pair.compared,
        recipe.data.near_duplicates.threshold,
        recipe.data.url_duplicates_threshold,
        parts,
        out / PAIRS_FOLDER,
        work,
    )
    compare.run(runner)
    runner.run("join pages", _SamePages(compare.agreeing, parts, work), parts, work / "join-pages")
    link = _Link(runs, out / PAIRS_FOLDER, work)
    runner.run("link duplicates", link, len(_LINKS), work / "link")
    runner.run("write clusters", _Clusters(link, out / CLUSTERS_FOLDER), len(runs), work / "write-clusters")
    return {"documents": runs.documents, **_counts(work)}


def remarks(counts: Mapping[str, Any]) -> list[str]:
    """Addresses that do not identify their documents."""
    if not counts["url_different"]:
        return []
    return [f"documents that share an address but not their words, and were kept apart: {counts['url_different']:,}"]


STAGE = Stage(
    name="dedup", makes="duplicate clusters", code_version=CODE_VERSION, config=config, build=build, remarks=remarks
)


def _counts(work: Path) -> dict[str, int]:
    """The sums of the tasks' counts."""
    found: Counter[str] = Counter()
    for path in (work / "counts").iterdir():
        found.update(tables.read_json(path))
    found["url_different"] = found["url_shared"] - found.pop("url_agreeing", 0)
    kinds = (f"{prefix}{name}" for prefix in ("exact_", "url_", "") for name in ("clusters", "duplicates"))
    return {name: found[name] for name in ("compared_pairs", "near_pairs", "url_shared", "url_different", *kinds)}


# --- pairs -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ShareKeys:
    """Task `rank` sends the keys of a run to the parts that they fall in; of exact copies within the run only one's.

    A text that many documents repeat, such as an error page, is therefore sent once by each run.
    """

    attributes: Path
    runs: shuffle.Runs
    keys: tuple[str, ...]
    parts: int
    work: Path

    def __call__(self, rank: int, world_size: int) -> None:
        files = self.runs.of_run(rank)
        columns = [*dict.fromkeys((*self.keys, "bytes"))]
        table = pa.concat_tables([tables.read_table(file.below(self.attributes), columns) for file in files])
        documents = np.arange(files[0].start, files[-1].stop)
        exact, sizes = _as_integers(table[_EXACT]), table["bytes"].to_numpy()
        copies = copies_of(exact, sizes)
        tables.save_array(self.work / "links" / "exact" / f"run-{rank:05d}.npy", documents[copies])
        alone = np.ones(len(documents), bool)
        alone[copies[:, 1]] = False
        for name in self.keys:
            key = _as_integers(table[name])[:, 0]
            sent = np.flatnonzero(table[name].is_valid() if name == _URL else alone)
            keyed = pa.table([documents[sent], key[sent], *exact[sent].T, sizes[sent]], schema=_KEYS)
            with shuffle.writing(self._path(name, rank), _KEYS, self.parts) as write:
                write(keyed, (key[sent] % np.uint64(self.parts)).astype(np.int64))

    def _path(self, name: str, run: int) -> Path:
        return self.work / "keys" / name / f"{run:05d}"

    def read(self, name: str, part: int) -> pa.Table:
        """`_KEYS` of one kind in one part, in the order of documents."""
        paths = [self._path(name, run) for run in range(len(self.runs))]
        return shuffle.read(paths, _KEYS, part, self.parts)


@dataclass(frozen=True)
class _PairKeys:
    """Task `rank` pairs the documents that agree in one key, among those whose key is in one part."""

    keys: _ShareKeys

    def __call__(self, rank: int, world_size: int) -> None:
        name, part = self.keys.keys[rank // self.keys.parts], rank % self.keys.parts
        found = self.keys.read(name, part)
        documents, key, *exact, sizes = (column.to_numpy() for column in found.columns)
        if name == _EXACT:
            copies = copies_of(np.stack(exact, axis=1), sizes)
            tables.save_array(self.keys.work / "links" / "exact" / f"part-{part:05d}.npy", documents[copies])
            return
        # An address names every document, exact copies too; a near pair stands for all copies.
        same = documents.astype(np.uint64)
        pairs = documents[near_pairs.to_compare(key, np.stack([same, same] if name == _URL else exact, axis=1), sizes)]
        if name == _URL:
            place = np.arange(len(pairs)) * self.keys.parts + part
            write_json(self.keys.work / "counts" / f"url-{part:05d}.json", {"url_shared": len(np.unique(pairs))})
        else:
            pairs = np.sort(pairs, axis=1)
            place = np.full(len(pairs), near_pairs.NEAR)
        runs = self.keys.runs
        with shuffle.writing(self._path(rank), near_pairs.TO_COMPARE, len(runs)) as write:
            write(pa.table([*pairs.T, place], schema=near_pairs.TO_COMPARE), runs.holding(pairs[:, 0]))

    def _path(self, rank: int) -> Path:
        return self.keys.work / "to-compare" / f"{rank:05d}"

    @property
    def compared(self) -> tuple[Path, ...]:
        """The files of `TO_COMPARE`; exact copies, whose parts come first, are not compared."""
        return tuple(self._path(rank) for rank in range(self.keys.parts, len(self.keys.keys) * self.keys.parts))


@dataclass(frozen=True)
class _SamePages:
    """Task `rank` joins the documents of one address that agree, among the addresses of one part."""

    agreeing: tuple[Path, ...]
    parts: int
    work: Path

    def __call__(self, rank: int, world_size: int) -> None:
        found = shuffle.read(self.agreeing, near_pairs.TO_COMPARE, rank, self.parts).sort_by("place")
        pairs = np.column_stack([found["first"].to_numpy(), found["second"].to_numpy()])
        tables.save_array(self.work / "links" / "url" / f"{rank:05d}.npy", near_pairs.same_pages(pairs))
        write_json(self.work / "counts" / f"pages-{rank:05d}.json", {"url_agreeing": len(np.unique(pairs))})


def copies_of(exact: Keys, sizes: Numbers) -> near_pairs.Pairs:
    """Positions of the longest, or first of these, of the documents with one hash, and of each other one with it."""
    order = near_pairs.shared(exact[:, 0])
    order = order[np.lexsort((order, -sizes[order], exact[order, 1], exact[order, 0]))]
    first = near_pairs.first_of_run(exact[order])
    longest = order[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))]
    return np.stack([longest, order], axis=1)[~first]


def _as_integers(column: pa.ChunkedArray) -> Keys:
    """8-byte keys, or 16-byte hashes as two words (undefined where null)."""
    if column.type == pa.uint64():
        keys: Keys = column.to_numpy().reshape(-1, 1)
        return keys
    whole = column.combine_chunks()
    words = np.frombuffer(whole.buffers()[1] or b"", dtype=np.uint64).reshape(-1, 2)
    return words[whole.offset : whole.offset + len(whole)]


# --- clusters ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Link:
    """Task `rank` joins the links of one kind, or of all, and writes name and size of each document's set."""

    runs: shuffle.Runs
    pairs: Path
    work: Path

    def __call__(self, rank: int, world_size: int) -> None:
        kind = _LINKS[rank]
        sets = connected_components.Sets(self.runs.documents)
        for links in self._links(kind):
            sets.join(links)
        clusters, duplicates = sets.count()
        prefix = "" if kind == "all" else f"{kind}_"
        counts = {f"{prefix}clusters": clusters, f"{prefix}duplicates": duplicates}
        write_json(self.work / "counts" / f"{kind}.json", counts)
        shape = (self.runs.documents, 2)
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.int64)), "fortran_order": False, "shape": shape}
        with atomic_path(self._path(kind)) as partial, partial.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, self.runs.documents, _LINKED_AT_ONCE):
                names, sizes = sets.of(start, min(start + _LINKED_AT_ONCE, self.runs.documents))
                stream.write(np.stack([names, sizes], axis=1).tobytes())

    def _links(self, kind: str) -> Iterator[Numbers]:
        """Linked documents, shape (n, 2)."""
        for path in sorted((self.work / "links").glob("*/*.npy" if kind == "all" else f"{kind}/*.npy")):
            links = np.load(path, mmap_mode="r")
            for start in range(0, len(links), _LINKED_AT_ONCE):
                yield links[start : start + _LINKED_AT_ONCE]
        for file in self.runs.files if kind == "all" else ():
            near = tables.read_table(file.below(self.pairs), ["first", "second"])
            yield np.column_stack([column.to_numpy() for column in near.columns])

    def _path(self, kind: str) -> Path:
        return self.work / "sets" / f"{kind}.npy"

    def sets(self, kind: str) -> Numbers:
        """Name and size of the set of each document, shape (n, 2); the name is -1 for one alone."""
        found: Numbers = np.load(self._path(kind), mmap_mode="r")
        return found


@dataclass(frozen=True)
class _Clusters:
    """Task `rank` writes the clusters of a run's documents."""

    link: _Link
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        sets = [self.link.sets(kind) for kind in _LINKS]
        for file in self.link.runs.of_run(rank):
            here = [found[file.start : file.stop] for found in sets]
            alone = here[-1][:, 0] < 0
            columns = [
                pa.array(np.arange(file.start, file.stop)),
                *(pa.array(found[:, 0], mask=found[:, 0] < 0) for found in here),
                pa.array(here[-1][:, 1], mask=alone),
            ]
            tables.write_table(file.below(self.out), pa.table(columns, schema=CLUSTERS))
