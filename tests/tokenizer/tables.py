"""Words and files of words for tests, made and read the slow and obvious way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, pre_tokenizers

from tokenizer.engine import Words
from tokenizer.patterns import PATTERNS, map_piece, unmap_bytes
from tokenizer.training import word_files
from tokenizer.training.word_files import record_batch, words_of, write_batches


def map_bytes(text: str) -> str:
    """The UTF-8 bytes of `text`, each as its code point."""
    return map_piece(text.encode())


def cut(expression: str, text: str) -> list[str]:
    """The words that the engine of record cuts `text` into."""
    split = pre_tokenizers.Split(Regex(expression), behavior="isolated")
    return [word for word, _ in split.pre_tokenize_str(text)]


def table_of(path: Path, words: Mapping[str, int]) -> Path:
    """A file of mapped words and their counts."""
    write_batches(path, [record_batch(words_of((unmap_bytes(word), count) for word, count in words.items()))])
    return path


def listed(words: Words) -> Iterator[tuple[str, int]]:
    """(mapped word, count) of each word."""
    for (first, end), count in zip(pairwise(words.bounds.tolist()), words.counts.tolist(), strict=True):
        yield map_piece(words.data[first:end].tobytes()), count


def read_words(path: Path) -> Iterator[tuple[str, int]]:
    """(mapped word, count) of each word of a file."""
    return listed(word_files.read_words(path))


def pieces_of(word: str) -> list[str]:
    """`word` in pieces of at most 256 bytes, cut between characters."""
    pieces = [""]
    for character in word:
        if len((pieces[-1] + character).encode()) > 256:
            pieces.append("")
        pieces[-1] += character
    return pieces


def counter_of(texts: Iterable[str], pattern: str) -> Counter[str]:
    """Mapped words of texts, counted by Python."""
    counts: Counter[str] = Counter()
    for text in texts:
        for word in cut(PATTERNS[pattern], text):
            counts.update(map(map_bytes, pieces_of(word)))
    return counts
