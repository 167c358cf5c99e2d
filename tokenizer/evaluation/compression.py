"""How many tokens a tokenizer needs for held-out text: by language and domain, by size, by Unicode form.

Contract: pure functions of a candidate and labelled texts. A word is a run without white space. Counts are summed over
texts before they are divided, so long documents weigh more than short ones. Cost: each function encodes the text once,
at 2 MB/s per core; `curve` encodes it five times.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from tokenizer.evaluation.candidates import Candidate, prefixes

SYLLABLES = [chr(code) for code in range(0xAC00, 0xD7A4)]
"""All 11,172 of Hangul."""
_BATCH = 256
_ROWS = 64


@dataclass(frozen=True)
class LabelledText:
    """A text with its language and domain."""

    language: str
    domain: str
    text: str


Groups = dict[tuple[str, str], list[str]]
"""(language, domain) -> texts."""


def held_out(documents: Path, bytes_per_source: int) -> Iterator[LabelledText]:
    """The first validation documents of each source; `documents` is the folder of write's artifact."""
    for folder in sorted((documents / "documents" / "validation").glob("*")):
        yield from first_bytes(_documents(folder), bytes_per_source)


def first_bytes(texts: Iterable[LabelledText], limit: int) -> Iterator[LabelledText]:
    """Whole texts from the first on, until they reach `limit` bytes; at least one."""
    size = 0
    for text in texts:
        yield text
        size += len(text.text.encode("utf-8", "replace"))
        if size >= limit:
            return


def groups_of(texts: Iterable[LabelledText]) -> Groups:
    """Texts by language and domain; empty ones are left out, and lone surrogates become U+FFFD."""
    found: Groups = {}
    for text in texts:
        if text.text.strip():
            whole = text.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            found.setdefault((text.language, text.domain), []).append(whole)
    return dict(sorted(found.items()))


def compression(candidate: Candidate, groups: Groups) -> dict[str, dict[str, dict[str, float]]]:
    """Language -> domain, and `all` of them -> figures (`_figures`)."""
    partial, silent = partial_ids(candidate), silent_ids(candidate)
    sums: dict[str, dict[str, npt.NDArray[np.int64]]] = {}
    for (language, domain), texts in groups.items():
        total = np.zeros(7, np.int64)
        for batch in _batches(texts):
            ids = np.fromiter((number for row in candidate.encode(batch) for number in row), np.int64)
            sizes = [(len(text.encode()), len(text), len(text.split())) for text in batch]
            tokens = (len(ids), int(partial[ids].sum()), int(silent[ids].sum()))
            total += np.array([len(batch), *np.sum(sizes, axis=0), *tokens], np.int64)
        row = sums.setdefault(language, {"all": np.zeros(7, np.int64)})
        row[domain] = total
        row["all"] = row["all"] + total
    return {
        language: {domain: _figures(*total.tolist()) for domain, total in row.items()} for language, row in sums.items()
    }


def _figures(
    documents: int, size: int, characters: int, words: int, tokens: int, partial: int, silent: int
) -> dict[str, float]:
    return {
        "documents": documents,
        "bytes": size,
        "words": words,
        "tokens": tokens,
        "tokens_per_word": tokens / max(1, words),
        "bytes_per_token": size / max(1, tokens),
        "characters_per_token": characters / max(1, tokens),
        "partial_character_share": partial / max(1, tokens),
        "no_text_share": silent / max(1, tokens),
    }


def partial_ids(candidate: Candidate) -> npt.NDArray[np.bool_]:
    """Which tokens are not whole UTF-8 characters, bool [vocab_size]."""
    return np.array([piece is not None and not _is_text(piece) for piece in candidate.pieces], np.bool_)


def silent_ids(candidate: Candidate) -> npt.NDArray[np.bool_]:
    """Which tokens stand for no text, bool [vocab_size]; where text is encoded into one, something of it is lost."""
    return np.array([piece is None for piece in candidate.pieces], np.bool_)


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def syllables(candidate: Candidate) -> dict[str, int]:
    """How many of Hangul's syllables are one token, two, or more."""
    blanks = {number for number, piece in enumerate(candidate.pieces) if piece == b" "}  # some add one before a text
    sizes = np.array([sum(number not in blanks for number in ids) for ids in candidate.encode(SYLLABLES)])
    return {"one": int((sizes <= 1).sum()), "two": int((sizes == 2).sum()), "more": int((sizes > 2).sum())}


def nfd_penalty(candidate: Candidate, texts: Sequence[str]) -> float:
    """Tokens of texts in canonical decomposition, divided by those in composition."""
    tokens = {
        form: sum(map(len, candidate.encode([unicodedata.normalize(form, text) for text in texts])))
        for form in ("NFC", "NFD")
    }
    return tokens["NFD"] / max(1, tokens["NFC"])


def curve(path: Path, groups: Groups) -> dict[str, dict[str, list[float]]]:
    """Language -> `vocab_size` and `tokens_per_word` of our tokenizer with fewer merges."""
    texts: dict[str, list[str]] = {}
    for (language, _), own in groups.items():
        texts.setdefault(language, []).extend(own)
    found: dict[str, dict[str, list[float]]] = {
        language: {"vocab_size": [], "tokens_per_word": []} for language in texts
    }
    for smaller in prefixes(path):
        for language, own in texts.items():
            words = sum(len(text.split()) for text in own)
            tokens = sum(len(ids) for batch in _batches(own) for ids in smaller.encode(batch))
            found[language]["vocab_size"].append(smaller.vocab_size)
            found[language]["tokens_per_word"].append(tokens / max(1, words))
    return found


def sample(groups: Groups, bytes_per_group: int) -> Groups:
    """The first texts of each group."""
    return {
        label: [row.text for row in first_bytes((LabelledText(*label, text) for text in texts), bytes_per_group)]
        for label, texts in groups.items()
    }


def _documents(folder: Path) -> Iterator[LabelledText]:
    columns = ["language", "domain", "text"]
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=columns):
            for row in batch.to_pylist():
                yield LabelledText(**row)


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    rows = iter(texts)
    while batch := list(islice(rows, _BATCH)):
        yield batch
