"""What a folder of documents holds: a guess of its sources, from names and a sample of records.

Contract: `survey` groups the files below a folder into sources and reads a few records of each. It never raises
because of a file's content. Sizes of text are estimates; everything else was seen in the sample. Seconds, whatever the
folder's size: at most `_FILES` files of a source are opened, and `_DOCUMENTS` documents of each are read.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from configs.data_schema import Domain
from data_pipeline.features.language import identify
from data_pipeline.readers import folders, formats, sources, streams
from data_pipeline.readers.folders import InputFile, Tally

_FILES, _DOCUMENTS, _RECORDS = 3, 20, 50
_MAX_BYTES = 8_000_000
_MOST_SOURCES = 40
"""A folder with more sub-folders of documents is one source: they are pages of a site, not collections."""
_TEXT_FIELDS = ("text", "content", "contents", "body", "raw_content", "article", "document", "passage")
_ID_FIELDS = ("id", "_id", "doc_id", "uuid", "url")
_WORDS: Mapping[str, tuple[str, ...]] = {
    "law": ("law", "legal", "statutes", "court"),
    "math": ("math", "maths", "mathematics"),
    "code": ("code", "src", "github"),
    "medicine": ("medicine", "medical", "health", "clinical"),
    "science": ("science", "papers", "arxiv", "pubmed"),
    "finance": ("finance", "financial", "economics"),
}
"""Domain -> words in a path that speak for it."""
_PROSE_ENDINGS = (".txt", ".md", ".rst", ".tex", ".json", ".yaml", ".yml", ".toml", ".css")
_EXPANSION = {"text": 1.0, "jsonl": 0.9, "parquet": 2.0, "html": 0.3, "warc": 0.2}
"""Bytes of text per raw byte where the sample does not tell; compressed files hold about `_COMPRESSION` times more."""
_COMPRESSION = 3.5
_ABOUT = re.compile(r"(readme|licen[cs]e|notice|manifest|contributing|changelog)(\.[a-z]{2,4})?$", re.IGNORECASE)
"""Files that describe the folders beside them, rather than being documents."""
_FEW = 20
"""Files beside sub-folders are sources of their own if they are fewer than one in this many."""
_COMPRESSED = re.compile(r"\.(gz|zst|zstd)$", re.IGNORECASE)


@dataclass
class Found:
    """One likely source: what lies at `path` in one format."""

    name: str
    path: Path
    format: str
    files: int
    raw_bytes: int
    text_bytes: int = 0
    """Estimated, over all files."""
    domain: str = "general"
    kind: str = "prose"
    keys: tuple[str, ...] = ()
    """Fields of the records, most frequent first."""
    text_field: str = "text"
    id_field: str = "id"
    license: str | None = None
    languages: Counter[str] = field(default_factory=Counter)
    """Documents of the sample by language: ko, en, other."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Records of the sample without a document, by reason."""
    labelled: bool = False
    """Whether the records have labels, as examples for a classifier have."""
    benchmark: bool = False
    """Whether the path says that these are a benchmark's items."""


@dataclass(frozen=True)
class Survey:
    """The sources of a folder, and the names below it that no format reads, by reason."""

    found: Sequence[Found]
    passed_over: Mapping[str, Tally]


def survey(root: Path) -> Survey:
    """Look at a folder, or at a single file. Raises `OSError` for a folder that cannot be listed."""
    endings = tuple(itertools.chain.from_iterable(sources.ENDINGS.values()))
    listing = folders.local(root, endings)
    found = []
    groups = _groups(listing.files, 0)
    taken = {file.relative for _, files in groups for file in files}
    for file in listing.files:
        if file.relative not in taken:
            listing.pass_over(file.relative, "describes the folders beside it", file.bytes)
    for folder, files in groups:
        for form, chosen in _by_format(files).items():
            found.append(_inspected(root, folder, form, chosen))
    return Survey(_named(found), listing.passed_over)


def _groups(files: Sequence[InputFile], depth: int) -> list[tuple[str, Sequence[InputFile]]]:
    """(path, files): a folder with documents of its own is one group, otherwise each of its sub-folders is."""
    folder = "/".join(files[0].relative.split("/")[:depth]) if files else ""
    children: dict[str, list[InputFile]] = defaultdict(list)
    own = []
    for file in files:
        name, *below = file.relative.split("/")[depth:]
        if below:
            children[name].append(file)
        elif not _ABOUT.match(name):
            own.append(file)
    pages = any(_format_of(file.relative) == "html" for file in own)
    if not children or pages or len(own) * _FEW > len(files):
        return [(folder, files)] if files else []
    groups: list[tuple[str, Sequence[InputFile]]] = [(file.relative, [file]) for file in own]
    groups += [group for child in children.values() for group in _groups(child, depth + 1)]
    return groups if len(groups) <= _MOST_SOURCES or depth == 0 else [(folder, files)]


def _by_format(files: Sequence[InputFile]) -> dict[str, list[InputFile]]:
    """Format -> its files. A few `.json` files among more text are text, and records elsewhere."""
    found: dict[str, list[InputFile]] = defaultdict(list)
    for file in files:
        found[_format_of(file.relative)].append(file)
    records = found.get("jsonl", [])
    if len(found["text"]) > len(records) and all(_bare(file.relative).endswith(".json") for file in records):
        found["text"] += found.pop("jsonl", [])
    return {form: chosen for form, chosen in found.items() if chosen}


def _format_of(name: str) -> str:
    return next(form for form, endings in sources.ENDINGS.items() if name.lower().endswith(endings))


def _bare(name: str) -> str:
    return _COMPRESSED.sub("", name.lower())


def _inspected(root: Path, folder: str, form: str, files: Sequence[InputFile]) -> Found:
    path = root / folder if root.is_dir() else root
    below = _words(folder if root.is_dir() else "")
    words = below | _words(root.name)
    found = Found(folder or root.name, path, form, len(files), sum(file.bytes for file in files))
    found.domain = next((name for name in get_args(Domain) if words & set(_WORDS.get(name, ()))), "general")
    found.benchmark = bool(below & {"benchmark", "benchmarks", "eval", "evals"})
    code_files = sum(not _bare(file.relative).endswith(_PROSE_ENDINGS) for file in files) if form == "text" else 0
    if found.domain == "code" or code_files > len(files) / 2:
        found.domain, found.kind = "code", "code"
    sample = [files[number * len(files) // _FILES] for number in range(_FILES)] if len(files) > _FILES else files
    if form in ("jsonl", "parquet"):
        _read_fields(found, sample)
    _read_documents(found, sample)
    return found


def _words(path: str) -> set[str]:
    return set(re.split(r"[^a-z]+", path.lower()))


def _read_fields(found: Found, sample: Sequence[InputFile]) -> None:
    records = [record for file in sample for record in _records(file, found.format)]
    keys = Counter(key for record in records for key in record)
    found.keys = tuple(key for key, _ in keys.most_common())
    texts = {key: _mean_length(record.get(key) for record in records) for key in keys}
    named = [key for key in _TEXT_FIELDS if texts.get(key)]
    longest = max(texts, key=lambda key: texts[key], default="text")
    found.text_field = named[0] if named else "text" if texts.get("html") else longest
    found.id_field = next((key for key in _ID_FIELDS if keys[key] == len(records)), "id") if records else "id"
    licenses = Counter(str(record[key]) for record in records for key in ("license", "licence") if record.get(key))
    found.license = licenses.most_common(1)[0][0] if licenses else None
    found.labelled = bool(records) and keys["label"] == len(records)


def _records(file: InputFile, form: str) -> Iterator[dict[str, Any]]:
    """The first records of a file as they are; nothing of a file that cannot be read."""
    try:
        yield from _rows(file) if form == "parquet" else _objects(file)
    except (OSError, ValueError, streams.BrokenStream):  # pyarrow's errors are among these
        return


def _rows(file: InputFile) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for batch in itertools.islice(pq.ParquetFile(file.location).iter_batches(_RECORDS), 1):
        yield from batch.to_pylist()


def _objects(file: InputFile) -> Iterator[dict[str, Any]]:
    for line in itertools.islice(streams.lines(file.location, _MAX_BYTES), _RECORDS):
        if isinstance(line, bytes) and line.strip():
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def _mean_length(values: Iterable[Any]) -> float:
    """Mean length of the strings; 0 if fewer than half of the values are non-empty strings."""
    lengths = [len(value) if isinstance(value, str) else 0 for value in values]
    return sum(lengths) / len(lengths) if sum(map(bool, lengths)) * 2 >= len(lengths) > 0 else 0.0


def _read_documents(found: Found, sample: Sequence[InputFile]) -> None:
    """Languages, rejects, and how much text the files hold."""
    settings = formats.Settings(
        max_bytes=_MAX_BYTES, code=found.kind == "code", text_field=found.text_field, id_field=found.id_field
    )
    text_bytes = raw_bytes = 0
    for file in sample:
        results = list(itertools.islice(formats.read(file.location, found.format, settings), _DOCUMENTS + 1))
        whole = len(results) <= _DOCUMENTS
        for result in results[:_DOCUMENTS]:
            if isinstance(result, formats.Reject):
                found.rejected[result.reason] += 1
                continue
            found.languages[identify(result.text)[0]] += 1
            text_bytes += len(result.text.encode()) if whole else 0
        raw_bytes += file.bytes if whole else 0
    compressed = _COMPRESSION if _COMPRESSED.search(sample[0].relative) else 1.0
    ratio = text_bytes / raw_bytes if raw_bytes else _EXPANSION[found.format] * compressed
    found.text_bytes = round(found.raw_bytes * ratio)


def _named(found: list[Found]) -> list[Found]:
    """Names as recipes allow them: the shortest end of the path that tells the sources apart, and the format."""
    for depth in range(1, 9):
        names = [_slug("-".join(one.name.split("/")[-depth:])) for one in found]
        paths = {(name, one.path) for name, one in zip(names, found, strict=True)}
        if len({name for name, _ in paths}) == len({one.path for one in found}):
            break
    counts = Counter(names)
    taken: set[str] = set()
    for one, name in zip(found, names, strict=True):
        wanted = name if counts[name] == 1 else f"{name[:50]}-{one.format}"
        number = itertools.count(2)
        while wanted in taken:
            wanted = f"{name[:50]}-{next(number)}"
        taken.add(wanted)
        one.name = wanted
    return found


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:60] or "documents"
