"""Files of words for tests, from what a Counter holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import regex

from tokenizer.engine.patterns import PATTERNS, map_bytes, unmap_bytes
from tokenizer.training.word_files import batch_of, record_batch, write_batches


def table_of(path: Path, words: Mapping[str, int]) -> Path:
    """A file of mapped words and their counts."""
    write_batches(path, [record_batch(batch_of((unmap_bytes(word), count) for word, count in words.items()))])
    return path


def pieces_of(word: str) -> list[str]:
    """`word` in pieces of at most 256 bytes, cut between characters: slow and obvious."""
    pieces = [""]
    for character in word:
        if len((pieces[-1] + character).encode()) > 256:
            pieces.append("")
        pieces[-1] += character
    return pieces


def counter_of(texts: Iterable[str], pattern: str) -> Counter[str]:
    """Mapped words of texts, counted by Python and its regex."""
    counts: Counter[str] = Counter()
    for text in texts:
        for word in regex.findall(PATTERNS[pattern], text):
            counts.update(map(map_bytes, pieces_of(word)))
    return counts
