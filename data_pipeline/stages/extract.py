"""Raw files -> one normalised text per document, and a list of everything rejected.

Contract: each task reads one share of `sources.plan`. Writes

    documents/<source>/<task:05d>.parquet   one row per document, in file order (may be empty)
    rejects.jsonl                           source, file, index, reason, detail; in the same order

Ids are unique within a source: `<source>/<the record's id>`, or else `<source>/<file>#<index>`, or
`<source>/<file>` for files that are one document. A repeated id gets `~2`, `~3`, … in reading order (and an id
that itself ends in `~<number>` gets `~1`, so that no two can collide). `max_bytes` keeps a source's first
documents as long as their UTF-8 text fits in it; reading stops there. A source without a document, or whose account
(stages/account.py) does not add up, is a `UserError`. Cost: 15 to 30 MB/s of raw bytes per core; memory for one row
group.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from configs.schema import Recipe
from data_pipeline import tables
from data_pipeline.readers import formats, sources
from data_pipeline.readers.folders import InputFile, Listing
from data_pipeline.stages import account, unique_ids
from twofold.errors import Problem, UserError, user_error
from twofold.files import atomic_path, write_json
from twofold.stage import Stage
from twofold.tasks import TaskRunner

CODE_VERSION = 9

DOCUMENTS = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "source", "domain", "kind", "url", "license", "file")),
        ("index", pa.int64()),
        ("encoding", pa.string()),
        ("text", pa.large_string()),
    ]
)
_ONE_DOCUMENT_FORMATS = ("html", "text")
_Found = formats.Document | formats.Reject | formats.Passed | None
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
    listed = sources.list_files(recipe)
    shares = sources.plan(recipe, listed)
    runner.run("extract documents", _Extract(recipe, shares, out, work), len(shares), work / "extract")
    counts = _gather(recipe, listed, shares, work)
    _refuse_empty(recipe, counts)
    unique_ids.make(out / "documents", work / "ids", work, runner)
    with atomic_path(out / "rejects.jsonl") as partial, partial.open("wb") as stream:
        for share in shares:
            stream.write(_side_file(work, "rejects", share, "jsonl").read_bytes())
    return counts


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
        tally = account.Tally()
        ids: list[str] = []
        text_bytes = 0
        limit = self.recipe.sources[share.source].max_bytes
        target = tables.task_path(self.out / "documents", share.source, share.number)
        with tables.row_writer(target, DOCUMENTS) as write:
            for file, found, n_bytes in self._records(share, tally):
                if isinstance(found, formats.Document):
                    size = len(found.text.encode())
                    if text_bytes + size > limit:
                        tally.limit_reached(file, share.files[share.files.index(file) + 1 :])
                        break
                    text_bytes += size
                    row = self._row(share.source, file.relative, found)
                    ids.append(row["id"])
                    write(row)
                elif isinstance(found, formats.Reject):
                    rejects.append(_reject_line(share.source, file.relative, found))
                tally.add(file, found, n_bytes)
        with atomic_path(_side_file(self.work, "rejects", share, "jsonl")) as partial:
            partial.write_text("".join(rejects), encoding="utf-8")
        hashes = np.array([xxhash.xxh3_64_intdigest(identity.encode()) for identity in ids], dtype=np.uint64)
        tables.save_array(_side_file(self.work, "ids", share, "npy"), hashes)
        counts = {"documents": len(ids), "text_bytes": text_bytes, **tally.as_json()}
        write_json(_side_file(self.work, "counts", share, "json"), counts)

    def _records(self, share: sources.Share, tally: account.Tally) -> Iterator[tuple[InputFile, _Found, int]]:
        source = self.recipe.sources[share.source]
        settings = _settings(self.recipe, share.source)
        stops = self.recipe.data.extract.broken_files == "stop"
        for file in share.files:
            for found, n_bytes in formats.account(file.location, source.format, settings):
                if stops and isinstance(found, formats.Reject) and found.reason in formats.DAMAGE:
                    raise _stop(share.source, file.location, found)
                yield file, found, n_bytes
            tally.end_of_file()

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


def _gather(
    recipe: Recipe, listed: Mapping[str, Listing], shares: Sequence[sources.Share], work: Path
) -> dict[str, Any]:
    by_source: dict[str, Any] = {}
    for name, group in itertools.groupby(shares, key=lambda share: share.source):
        tasks = list(group)
        done = [tables.read_json(_side_file(work, "counts", share, "json")) for share in tasks]
        found = account.of_source(listed[name], done)
        account.check(name, recipe.sources[name].path, found)
        by_source[name] = {
            "files": sum(len(share.files) for share in tasks),
            "raw_bytes": sum(file.bytes for share in tasks for file in share.files),
            "tasks": len(tasks),
            "documents": sum(counts["documents"] for counts in done),
            "text_bytes": sum(counts["text_bytes"] for counts in done),
            "rejects": found["records"]["refused"],
            "account": found,
            "passed_over": {reason: passed.examples for reason, passed in listed[name].passed_over.items()},
            "like_html": sum(counts["like_html"] for counts in done),
            "fields_seen": next((counts["fields_seen"] for counts in done if counts["fields_seen"]), None),
        }
    totals = {key: sum(counts[key] for counts in by_source.values()) for key in ("files", "documents", "text_bytes")}
    return {**totals, "sources": by_source}


def remarks(counts: Mapping[str, Any]) -> list[str]:
    """The account of each source, and what its texts look like."""
    told = []
    for name, found in counts["sources"].items():
        told += account.lines(name, found["account"], found["passed_over"])
        if found["like_html"]:
            told.append(
                f"{name}: {found['like_html']:,} of {found['documents']:,} texts look like HTML. If they are, set "
                f"sources.{name}.html_field to the name of their field."
            )
    return told


STAGE = Stage(
    name="extract",
    makes="documents",
    code_version=CODE_VERSION,
    config=config,
    build=build,
    fingerprints=sources.fingerprints,
    remarks=remarks,
)


def _refuse_empty(recipe: Recipe, counts: Mapping[str, Any]) -> None:
    problems = []
    for name, found in counts["sources"].items():
        if found["documents"]:
            continue
        rejects = ", ".join(f"{count} x {reason}" for reason, count in found["rejects"].items())
        problem = f"yields no document ({rejects or 'its files are empty'})"
        hint = "check its path, format and max_bytes, or remove the source"
        if found["fields_seen"]:
            problem = f"yields no document ({rejects}; its first record has {found['fields_seen']})"
            hint = f"name the field with the text: sources.{name}.text_field, or html_field"
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
