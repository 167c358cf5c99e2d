"""Where a tokenizer cuts Korean words, compared with the borders of their morphemes.

Contract: words are runs without white space that hold a Hangul syllable. Each is analysed and encoded on its own, after
a blank, and counts as often as it occurs. Recall is the share of borders inside words that are cut; precision is the
share of cuts inside words that are borders; a cut inside a character is not a border. The borders are MeCab's for the
word alone, as in training (morphemes.py). Cost: 30 microseconds per distinct word, and its encoding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from tokenizer.evaluation.candidates import Candidate
from tokenizer.training.morphemes import Analyse, morphemes_of

MOST_WORDS = 20_000
"""Distinct words, the most frequent."""
_INSIDE_CHARACTER = -1


@dataclass(frozen=True)
class KoreanWords:
    """Words with a blank before them: how often each occurs, and where its morphemes end inside it."""

    counts: Mapping[str, int]
    borders: Mapping[str, frozenset[int]]


def korean_words(texts: Iterable[str], analyse: Analyse) -> KoreanWords:
    """The most frequent Korean words of texts, analysed."""
    found = Counter(word for text in texts for word in text.split() if any("가" <= letter <= "힣" for letter in word))
    counts = {f" {word}": count for word, count in found.most_common(MOST_WORDS)}
    return KoreanWords(counts, {word: _borders(word, analyse) for word in counts})


def boundary_scores(candidate: Candidate, words: KoreanWords) -> dict[str, float]:
    """Recall and precision of a candidate's cuts, and how many words they were measured on."""
    hits = made = wanted = 0
    for word, spans in zip(words.counts, candidate.spans(list(words.counts)), strict=True):
        count, cuts = words.counts[word], _cuts(spans)
        hits += count * len(words.borders[word].intersection(cuts))
        made += count * len(cuts)
        wanted += count * len(words.borders[word])
    return {
        "recall": hits / max(1, wanted),
        "precision": hits / max(1, made),
        "words": sum(words.counts.values()),
        "distinct_words": len(words.counts),
    }


def _borders(word: str, analyse: Analyse) -> frozenset[int]:
    ends, at = set(), 0
    for piece in morphemes_of(word, analyse):
        at += len(piece)
        ends.add(at)
    return frozenset(ends - {len(word)})


def _cuts(spans: list[tuple[int, int]]) -> list[int]:
    """Ends of tokens inside the word; `_INSIDE_CHARACTER` for each cut within a character."""
    cuts = [end if begin >= end else _INSIDE_CHARACTER for (_, end), (begin, _) in pairwise(spans)]
    return [cut for cut in cuts if cut > 1 or cut == _INSIDE_CHARACTER]  # 1 is the blank's end
