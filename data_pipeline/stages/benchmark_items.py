"""Benchmark files -> the folded text of every test item, which documents must not share.

Contract: a benchmark is a file or a folder of JSON Lines (.jsonl, .gz, .zst), one item per line. Items are numbered
from 0 over all files of their benchmark, in the order of their paths. The text of an item is every text in it, in
order and at any depth: question, context, choices, answer, solution, under any name (`text_of` lists the
exceptions). An item too short to look for is counted and left out. A benchmark that is missing, empty, damaged or
not JSON is a `UserError` that names it. Memory: the texts, and 4 bytes per letter and digit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from configs.data_schema import Decontamination
from data_pipeline.features import overlap
from data_pipeline.readers import sources, streams
from data_pipeline.readers.characters import Codes
from twofold.artifacts import digest
from twofold.errors import Problem, UserError, user_error
from twofold.files import atomic_path, sha256_of

_MAX_LINE_BYTES = 64_000_000
_ABOUT = frozenset(
    {
        *("id", "_id", "uid", "idx", "index", "source", "dataset", "url", "author", "citation", "version"),
        *("licence", "license", "lang", "language", "split", "kind", "type", "task", "category", "subject"),
        *("domain", "label", "labels", "difficulty", "level"),
    }
)
"""Lower-case names of fields that describe an item without being part of it."""
_ADDRESS = re.compile(r"(?:https?://|www\.)[!-~]+")
_SEPARATORS = re.compile(r"[\W_]+")


class Items(NamedTuple):
    """The items to look for; item i is codes[bounds[i]:bounds[i + 1]]."""

    codes: Codes
    bounds: npt.NDArray[np.int64]
    benchmarks: npt.NDArray[np.int32]
    """The benchmark of each item, as an index into the sorted names."""
    numbers: npt.NDArray[np.int64]
    """Each item's number within its benchmark."""


@dataclass(frozen=True)
class Size:
    """The number of items of a benchmark, and of those that are too short."""

    items: int
    too_short: int


def fingerprints(settings: Decontamination) -> dict[str, str]:
    """Benchmark -> hash of its files' contents; raises one `UserError` with the problems of all benchmarks."""
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for name, address in settings.benchmarks.items():
        try:
            found[name] = digest([_hash(path, name) for path in _files(address, name)])
        except UserError as error:
            problems.extend(error.problems)
    if problems:
        raise UserError(problems)
    return found


def read(settings: Decontamination) -> tuple[Items, dict[str, Size]]:
    """All benchmarks in the order of their names."""
    shortest = overlap.shortest_item(settings.characters, settings.method == "full")
    parts: list[Codes] = []
    lengths: list[int] = []
    owners: list[tuple[int, int]] = []
    sizes: dict[str, Size] = {}
    for position, (name, address) in enumerate(sorted(settings.benchmarks.items())):
        texts = [text_of(item, settings.characters) for path in _files(address, name) for item in _records(path, name)]
        if not any(texts):
            raise user_error(_field(name), address, "has no item with text", "name the file that contains its items")
        codes, bounds = overlap.fold(texts)
        long_enough = np.flatnonzero(np.diff(bounds) >= shortest).tolist()
        parts += [codes[bounds[number] : bounds[number + 1]] for number in long_enough]
        lengths += [len(part) for part in parts[len(lengths) :]]
        owners += [(position, number) for number in long_enough]
        sizes[name] = Size(len(texts), len(texts) - len(long_enough))
    codes = np.concatenate(parts) if parts else np.zeros(0, np.uint32)
    columns = np.array(owners, dtype=np.int64).reshape(-1, 2).T
    return Items(codes, np.cumsum([0, *lengths], dtype=np.int64), columns[0].astype(np.int32), columns[1]), sizes


def text_of(item: Mapping[str, Any], window: int) -> str:
    """The texts of an item, one per line; a list of strings, such as choices, is one text.

    Excluded are numbers, descriptive fields (`_ABOUT`), labels (one word, shorter than `window` characters), texts
    contained in another text of the item, and URLs: 1,258 items of KoBEST link to one dictionary, and so do
    documents that quote none of them.
    """
    without_addresses = (_ADDRESS.sub("", text) for text in _texts(item))
    texts = [text for text in without_addresses if len(text.split()) > 1 or len(text) >= window]
    bare = [_SEPARATORS.sub("", text.lower()) for text in texts]
    repeated = {
        place
        for place, mine in enumerate(bare)
        for other_place, other in enumerate(bare)
        if mine in other and (len(mine), -place) < (len(other), -other_place)
    }
    return "\n".join(text for place, text in enumerate(texts) if place not in repeated)


def save(items: Items, target: Path) -> None:
    """Save items for `load`, atomically."""
    with atomic_path(target) as partial, partial.open("wb") as stream:
        np.savez(stream, **items._asdict())


def load(path: Path) -> Items:
    """The items that `save` wrote."""
    with np.load(path) as kept:
        return Items(**{name: kept[name] for name in Items._fields})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name.lower() not in _ABOUT:
                yield from _texts(inner)
    elif isinstance(value, list) and all(isinstance(inner, str) for inner in value):
        yield "\n".join(value)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _records(path: Path, name: str) -> Iterator[Mapping[str, Any]]:
    try:
        for position, line in enumerate(streams.lines(path, _MAX_LINE_BYTES), start=1):
            if not isinstance(line, bytes):
                raise _bad_line(path, position, f"is longer than {_MAX_LINE_BYTES} bytes")
            if line.strip():
                yield _record(line, path, position)
    except OSError as error:
        raise _unreadable(name, str(path), error) from error
    except streams.BrokenStream as error:
        raise user_error(_field(name), str(path), f"is damaged ({error})", "restore the file") from error


def _record(line: bytes, path: Path, position: int) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise _bad_line(path, position, "is not a JSON object")
    return record


def _files(address: str, name: str) -> list[Path]:
    path = Path(address)
    try:
        files = _below(path) if path.is_dir() else [path] if path.exists() else []
        if not files:
            problem = "has no JSON Lines (.jsonl, .gz or .zst)" if path.is_dir() else "does not exist"
            raise user_error(_field(name), address, problem, "name the file of its items, or remove the benchmark")
        if not any(found.stat().st_size for found in files):
            raise user_error(_field(name), address, "is empty", "restore its items, or remove the benchmark")
    except OSError as error:
        raise _unreadable(name, address, error) from error
    return files


def _below(folder: Path) -> list[Path]:
    """The files with items, except hidden ones."""
    endings = sources.JSON_LINES
    found = (path for path in folder.rglob("*") if not path.name.startswith("."))
    return sorted(path for path in found if path.name.lower().endswith(endings))


def _hash(path: Path, name: str) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise _unreadable(name, str(path), error) from error


def _field(name: str) -> str:
    return f"data.decontamination.benchmarks.{name}"


def _bad_line(path: Path, position: int, problem: str) -> UserError:
    return user_error(f"{path}, line {position}", None, problem, 'write {"question": "…"} there, or remove the line')


def _unreadable(name: str, address: str, error: OSError) -> UserError:
    problem = f"cannot be read ({error.strerror or error})"
    return user_error(_field(name), address, problem, "name a readable file or folder")
