"""Labelled texts for classifiers, read and split into training, calibration and test parts.

Contract: `read` returns the distinct texts of a classifier's `train` entries in three disjoint parts. Texts are
equal if a model reads the same line in them; a text with two labels is left out and counted. A hash of seed and
text decides part and order, so the names and number of files do not matter; an entry whose records have a
`split` with both `train` and `test` keeps its own. Each label of an entry contributes at most `most_per_entry`
texts, those with the lowest hashes. Unreadable input is a `UserError` that names file and line. Memory: the texts
in use, cut to what models read, plus 200 bytes per distinct text.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.data_schema import Classifier
from data_pipeline.classification import fasttext_model
from data_pipeline.readers import normalize, sources, streams
from twofold.errors import UserError, user_error
from twofold.files import sha256_of

PARTS = ("training", "calibration", "test")
MIN_PER_LABEL = 20
_MAX_LINE_BYTES = 8_000_000
_JSON_LINES = sources.JSON_LINES
_PLAIN = sources.PLAIN_TEXT


@dataclass(frozen=True)
class Entry:
    """One item of `train` as the recipe has it; `label` is that of `LABEL=PATH`."""

    name: str
    label: str | None
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Text:
    """One labelled text; `key` is the hash that orders it; `split` and `language` come from its record."""

    text: str
    label: str
    key: bytes
    entry: int
    split: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Labelled:
    """Texts by part, ordered by hash; number of records of each entry; number left out by reason."""

    parts: Mapping[str, list[Text]]
    records: Mapping[int, int]
    left_out: Mapping[str, int]


def entries(settings: Classifier, labels: Sequence[str], where: str) -> tuple[Entry, ...]:
    """The files of every item of `train`, folders searched; errors name the field `where`."""
    found = []
    for item in settings.train:
        prefix, _, rest = item.partition("=")
        given = prefix if rest and prefix in labels else None
        files = _files(Path(rest if given else item), _JSON_LINES + (_PLAIN if given else ()), where)
        if not files:
            hint = f"name JSON Lines (.jsonl, .gz or .zst), or LABEL=PATH where LABEL is one of {', '.join(labels)}"
            raise user_error(where, item, "no data files found", hint)
        found.append(Entry(item, given, files))
    return tuple(found)


def hashes(entry: Entry, where: str) -> list[dict[str, Any]]:
    """Name, bytes and SHA-256 of each of an entry's files."""
    try:
        return [{"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in entry.files]
    except OSError as error:
        raise _unreadable(where, entry.name, error) from error


def read(found: Sequence[Entry], settings: Classifier, labels: Sequence[str], seed: int, where: str) -> Labelled:
    """The texts of all entries by part; labels without texts are absent."""
    pool = _Pool(labels, settings.most_per_entry)
    for number, entry in enumerate(found):
        for text in _texts(entry, number, settings, seed, where):
            pool.add(text)
    texts = pool.texts()
    _check_enough(texts, pool, labels, settings.train, where)
    parts: dict[str, list[Text]] = {part: [] for part in PARTS}
    for label in labels:
        _divide([text for text in texts if text.label == label], settings.held_out_share, parts)
    for part in parts.values():
        # fastText learns in file order, so runs of one label would bias it towards the last.
        part.sort(key=_place)
    return Labelled(parts, pool.records, pool.left_out(len(texts)))


class _Pool:
    """Distinct texts as they are read; the first of equal texts counts."""

    def __init__(self, labels: Sequence[str], most: int) -> None:
        self._most = most
        self._labels = frozenset(labels)
        self._kept: defaultdict[tuple[int, str], dict[bytes, Text]] = defaultdict(dict)
        self._first: dict[bytes, tuple[int, str]] = {}
        self._conflicting: set[bytes] = set()
        self._sides: defaultdict[int, set[str | None]] = defaultdict(set)
        self.records: Counter[int] = Counter()
        self._other_labels: Counter[str] = Counter()

    def add(self, text: Text) -> None:
        self.records[text.entry] += 1
        if text.label not in self._labels:
            self._other_labels[text.label] += 1
            return
        self._sides[text.entry].add(text.split)
        place = text.entry, text.label
        first = self._first.setdefault(text.key, place)
        if first[1] != text.label:
            self._conflicting.add(text.key)
        if first != place:
            return
        mine = self._kept[place]
        if text.key not in mine or text.split == "test":  # prefer the tested copy: test texts are not trained on
            mine[text.key] = text
        if len(mine) > 2 * self._most:
            self._kept[place] = self._lowest(mine)

    def texts(self) -> list[Text]:
        """The texts in use, with `split` where it applies."""
        own = {entry for entry, sides in self._sides.items() if {"train", "test"} <= sides}
        return [
            text if text.entry in own else replace(text, split=None)
            for mine in self._kept.values()
            for text in self._lowest({key: mine[key] for key in mine.keys() - self._conflicting}).values()
        ]

    def left_out(self, used: int) -> dict[str, int]:
        distinct, other, both = len(self._first), self._other_labels.total(), len(self._conflicting)
        repeated = self.records.total() - other - distinct
        return {"other_label": other, "repeated": repeated, "two_labels": both, "over_limit": distinct - both - used}

    def hint(self) -> str:
        """How texts with unknown labels could be used."""
        shown = ", ".join(f"{label} ({count})" for label, count in self._other_labels.most_common(5))
        return f", or map existing labels in `labels`: {shown}" if shown else ""

    def _lowest(self, texts: Mapping[bytes, Text]) -> dict[bytes, Text]:
        return {key: texts[key] for key in heapq.nsmallest(self._most, texts)}


def _check_enough(texts: Sequence[Text], pool: _Pool, labels: Sequence[str], train: Sequence[str], where: str) -> None:
    """Both of two labels are needed; of more labels, those that occur, at least two."""
    tallies = [Counter(text.label for text in texts if (text.split == "test") == tested) for tested in (False, True)]
    taught, tested = tallies
    wanted = labels if len(labels) == 2 else [label for label in labels if taught[label] or tested[label]]
    for label in wanted:
        if taught[label] < MIN_PER_LABEL:
            problem = f"has {taught[label]} distinct texts to learn {label} from, fewer than {MIN_PER_LABEL}"
            raise user_error(where, train, problem, f"label more{pool.hint()}")
        if not tested[label] and all(text.split for text in texts if text.label == label):
            raise user_error(where, train, f"has no {label} in its test split", "add some, or remove `split`")
    if len(wanted) < 2:
        raise user_error(where, train, f"has texts of {len(wanted)} labels, fewer than 2", f"add some{pool.hint()}")


def _divide(texts: Sequence[Text], share: float, parts: Mapping[str, list[Text]]) -> None:
    """One label's texts: `share` of them for testing, half that share of the rest for calibration, others to learn."""
    texts = sorted(texts, key=_place)
    free = [text for text in texts if text.split not in ("train", "test")]
    cut = max(1, round(share * len(free))) if free else 0
    test = [text for text in texts if text.split == "test"] + free[:cut]
    tested = {text.key for text in test}
    rest = [text for text in texts if text.key not in tested]
    cut = max(1, round(share / 2 * len(rest))) if rest else 0
    parts["test"].extend(test)
    parts["calibration"].extend(rest[:cut])
    parts["training"].extend(rest[cut:])


def _place(text: Text) -> bytes:
    # Reversed: the texts of a large entry were chosen by the first bytes, which are low for all of them.
    return text.key[::-1]


def _files(path: Path, endings: tuple[str, ...], where: str) -> tuple[Path, ...]:
    def refuse(error: OSError) -> None:
        raise _unreadable(where, str(path), error) from error

    if not path.is_dir():
        return (path,) if path.exists() else ()
    found = [
        Path(folder, name)
        for folder, _, names in os.walk(path, onerror=refuse, followlinks=True)
        for name in names
        if not name.startswith(".") and name.lower().endswith(endings)
    ]
    return tuple(sorted(found))


def _texts(entry: Entry, number: int, settings: Classifier, seed: int, where: str) -> Iterator[Text]:
    for path in entry.files:
        try:
            if entry.label and path.name.lower().endswith(_PLAIN):
                yield _text(path.read_bytes()[:_MAX_LINE_BYTES].decode("utf-8", "replace"), entry.label, number, seed)
            else:
                yield from _records(path, entry, number, settings, seed)
        except OSError as error:
            raise _unreadable(where, str(path), error) from error
        except streams.BrokenStream as error:
            raise user_error(where, str(path), f"is damaged ({error})", "restore the file") from error


def _records(path: Path, entry: Entry, number: int, settings: Classifier, seed: int) -> Iterator[Text]:
    for position, line in enumerate(streams.lines(path, _MAX_LINE_BYTES), start=1):
        if not isinstance(line, bytes):
            raise _bad_line(path, position, f"is longer than {_MAX_LINE_BYTES} bytes", entry.label)
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            text = record["text"]
            label = entry.label or str(record[settings.label_field])
        except (ValueError, KeyError, TypeError, RecursionError):
            text = None
        if not isinstance(text, str):
            wanted = "`text`" if entry.label else f"`text` and `{settings.label_field}`"
            raise _bad_line(path, position, f"is not a JSON object with {wanted}", entry.label)
        label = entry.label or settings.labels.get(label, label)
        yield _text(text, label, number, seed, record.get("split"), record.get("lang") or record.get("language"))


def _text(text: str, label: str, entry: int, seed: int, split: Any = None, language: Any = None) -> Text:
    text = normalize.normalise(normalize.repair(text[: 2 * fasttext_model.READ_CHARACTERS]))
    text = text[: fasttext_model.READ_CHARACTERS]
    key = hashlib.sha256(f"{seed}:{fasttext_model.as_line(text)}".encode("utf-8", "replace")).digest()[:16]
    own_split = split if split in ("train", "test") else None
    return Text(text, label, key, entry, own_split, language if language in ("ko", "en") else None)


def _bad_line(path: Path, position: int, problem: str, label: str | None) -> UserError:
    wanted = '{"text": "…"}' if label else '{"text": "…", "label": "…"}'
    return user_error(f"{path}, line {position}", None, problem, f"write {wanted}, or remove the line")


def _unreadable(where: str, name: str, error: OSError) -> UserError:
    return user_error(where, name, f"cannot be read ({error.strerror or error})", "name a readable file or folder")
