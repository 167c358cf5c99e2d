"""Raw files -> one normalised text per document, and a list of everything rejected.

Contract: each task reads one share of `sources.plan`. Writes

    documents/<source>/<task:05d>.parquet   one row per document, in file order (may be empty)
    rejects.jsonl                           source, file, index, reason, detail; in the same order

Ids are unique within a source: `<source>/<the record's id>`, or else `<source>/<file>#<index>`, or
`<source>/<file>` for files that are one document. A repeated id gets `~2`, `~3`, … in reading order (and an id
that itself ends in `~<number>` gets `~1`, so that no two can collide). `max_bytes` keeps a source's first
documents as long as their UTF-8 text fits in it; reading stops there. A source without a document is a
`UserError`. Cost: 15 to 30 MB/s of raw bytes per core; memory for one row group.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.readers import formats, sources
from twofold.errors import Problem, UserError, user_error
from twofold.files import atomic_path, write_json
from twofold.stage import Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 6

DOCUMENTS = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "source", "domain", "kind", "url", "license", "file")),
        ("index", pa.int64()),
        ("encoding", pa.string()),
        ("text", pa.large_string()),
    ]
)
_UNIQUE = {"ids": "unique"}
"""Parquet metadata of a file whose repeated ids were renamed."""
_ONE_DOCUMENT_FORMATS = ("html", "text")
_LOOKS_NUMBERED = re.compile(r"~\d+$")


def config(recipe: Recipe) -> dict[str, Any]:
    """What the documents depend on besides the raw files, which `sources.fingerprints` covers."""
    taken = {"format", "domain", "kind", "license", "max_bytes", "text_field", "html_field", "url_field", "id_field"}
    return {
        "sources": {name: source.model_dump(mode="json", include=taken) for name, source in recipe.sources.items()},
        "extract": recipe.data.extract.model_dump(mode="json", exclude={"fingerprint"}),
    }


def build(recipe: Recipe, out: Path, work: Path, runner: TaskRunner) -> Mapping[str, Any]:
    """Run the tasks, make ids unique, collect rejects; returns counts by source."""
    shares = sources.plan(recipe)
    runner.run("extract documents", _Extract(recipe, shares, out, work), len(shares), work / "extract")
    counts = _gather(recipe, shares, work)
    _refuse_empty(recipe, counts)
    for name in recipe.sources:
        _make_ids_unique([share for share in shares if share.source == name], out, work)
    with atomic_path(out / "rejects.jsonl") as partial, partial.open("wb") as stream:
        for share in shares:
            stream.write(_side_file(work, "rejects", share, "jsonl").read_bytes())
    return counts


STAGE = Stage(
    name="extract",
    makes="documents",
    code_version=CODE_VERSION,
    config=config,
    build=build,
    fingerprints=sources.fingerprints,
)


@dataclass(frozen=True)
class _Extract:
    """Task `rank` reads share `rank`."""

    recipe: Recipe
    shares: tuple[sources.Share, ...]
    out: Path
    work: Path

    def __call__(self, rank: int, world_size: int) -> None:
        assert world_size == len(self.shares), (world_size, len(self.shares))
        share = self.shares[rank]
        rejects: list[str] = []
        reasons: Counter[str] = Counter()
        ids: list[str] = []
        text_bytes = 0
        target = tables.task_path(self.out / "documents", share.source, share.number)
        with tables.row_writer(target, DOCUMENTS) as write:
            for file, found in self._records(share):
                if isinstance(found, formats.Reject):
                    reasons[found.reason] += 1
                    rejects.append(_reject_line(share.source, file, found))
                    continue
                size = len(found.text.encode())
                if text_bytes + size > self.recipe.sources[share.source].max_bytes:
                    break
                text_bytes += size
                row = self._row(share.source, file, found)
                ids.append(row["id"])
                write(row)
        with atomic_path(_side_file(self.work, "rejects", share, "jsonl")) as partial:
            partial.write_text("".join(rejects), encoding="utf-8")
        hashes = np.array([xxhash.xxh3_64_intdigest(identity.encode()) for identity in ids], dtype=np.uint64)
        tables.save_array(_side_file(self.work, "ids", share, "npy"), hashes)
        counts = {"documents": len(ids), "text_bytes": text_bytes, "rejects": reasons}
        write_json(_side_file(self.work, "counts", share, "json"), counts)

    def _records(self, share: sources.Share) -> Iterator[tuple[str, formats.Document | formats.Reject]]:
        source = self.recipe.sources[share.source]
        settings = _settings(self.recipe, share.source)
        stops = self.recipe.data.extract.broken_files == "stop"
        for file in share.files:
            for found in formats.read(file.location, source.format, settings):
                if stops and isinstance(found, formats.Reject) and found.reason in formats.DAMAGE:
                    raise _stop(share.source, file.location, found)
                yield file.relative, found

    def _row(self, name: str, file: str, document: formats.Document) -> dict[str, Any]:
        source = self.recipe.sources[name]
        place = file if source.format in _ONE_DOCUMENT_FORMATS else f"{file}#{document.index}"
        local = document.raw_id or place
        return {
            "id": f"{name}/{local}~1" if _LOOKS_NUMBERED.search(local) else f"{name}/{local}",
            "source": name,
            "domain": source.domain,
            "kind": source.kind,
            "url": document.url,
            "license": document.license or source.license,
            "file": file,
            "index": document.index,
            "encoding": document.encoding,
            "text": document.text,
        }


def _settings(recipe: Recipe, name: str) -> formats.Settings:
    source, extract = recipe.sources[name], recipe.data.extract
    return formats.Settings(
        max_bytes=extract.max_document_bytes,
        code=source.kind == "code",
        text_field=source.text_field,
        html_field=source.html_field,
        url_field=source.url_field,
        id_field=source.id_field,
        extractor=extract.html,
        unicode=extract.unicode,
    )


def _make_ids_unique(shares: Sequence[sources.Share], out: Path, work: Path) -> None:
    """Number the repeats of each id over all tasks of a source; rewrites only files that have repeats.

    Ids are compared by 64-bit hash; a collision of two different ids only costs a needless `~2`.
    """
    hashes = [np.load(_side_file(work, "ids", share, "npy")) for share in shares]
    values, counts = np.unique(np.concatenate(hashes), return_counts=True)
    repeated = set(values[counts > 1].tolist())
    if not repeated:
        return
    seen: Counter[int] = Counter()
    for share, task_hashes in zip(shares, hashes, strict=True):
        numbers: dict[int, int] = {}
        for row in np.flatnonzero(np.isin(task_hashes, list(repeated))).tolist():
            value = int(task_hashes[row])
            seen[value] += 1
            if seen[value] > 1:
                numbers[row] = seen[value]
        if numbers:
            _rename(tables.task_path(out / "documents", share.source, share.number), numbers)


def _rename(path: Path, numbers: Mapping[int, int]) -> None:
    """Append `~<number>` to the ids of the rows in `numbers`; calling it again changes nothing."""
    if (pq.read_schema(path).metadata or {}).get(b"ids") == b"unique":
        return
    rows = (
        {**row, "id": f"{row['id']}~{numbers[place]}"} if place in numbers else row
        for place, row in enumerate(tables.read_rows(path))
    )
    tables.write_rows(path, DOCUMENTS, rows, _UNIQUE)


def _gather(recipe: Recipe, shares: Sequence[sources.Share], work: Path) -> dict[str, Any]:
    by_source: dict[str, Any] = {}
    for name, group in itertools.groupby(shares, key=lambda share: share.source):
        tasks = list(group)
        files = [file for share in tasks for file in share.files]
        done = [tables.read_json(_side_file(work, "counts", share, "json")) for share in tasks]
        rejects: Counter[str] = Counter()
        for counts in done:
            rejects.update(counts["rejects"])
        by_source[name] = {
            "files": len(files),
            "raw_bytes": sum(file.bytes for file in files),
            "tasks": len(tasks),
            "documents": sum(counts["documents"] for counts in done),
            "text_bytes": sum(counts["text_bytes"] for counts in done),
            "rejects": dict(rejects.most_common()),
        }
    totals = {key: sum(counts[key] for counts in by_source.values()) for key in ("files", "documents", "text_bytes")}
    return {**totals, "sources": by_source}


def _refuse_empty(recipe: Recipe, counts: Mapping[str, Any]) -> None:
    problems = []
    for name, found in counts["sources"].items():
        if not found["documents"]:
            rejects = ", ".join(f"{count} x {reason}" for reason, count in found["rejects"].items())
            problem = f"yields no document ({rejects or 'its files are empty'})"
            hint = "check its path, format and max_bytes, or remove the source"
            problems.append(Problem(f"sources.{name}", recipe.sources[name].path, problem, hint))
    if problems:
        raise UserError(problems)


def _stop(source: str, location: object, reject: formats.Reject) -> UserError:
    return user_error(
        f"sources.{source}",
        str(location),
        f"is broken at record {reject.index} ({reject.reason}: {reject.detail})",
        "fix or remove the file, or set data.extract.broken_files: reject",
    )


def _reject_line(source: str, file: str, reject: formats.Reject) -> str:
    entry = {"source": source, "file": file, "index": reject.index, "reason": reject.reason, "detail": reject.detail}
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _side_file(work: Path, kind: str, share: sources.Share, ending: str) -> Path:
    return tables.task_path(work / kind, share.source, share.number, ending)
