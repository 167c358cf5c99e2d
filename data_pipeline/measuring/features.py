"""The features of one text: everything that a rule may bound and that needs no model.

Contract: `features(text, language)` is pure, takes any string (lone surrogates and nothing
included), and gives every name of `TEXT_FEATURES` as a finite float; shares lie in 0..1, and the
empty text has 0 everywhere. Sources: Gopher (Rae et al. 2021, table A1), C4 (Raffel et al. 2020,
section 2.2) and FineWeb's filters, over whitespace words; repetition follows datatrove's counting:
shares are of all code points, an n-gram's length is its words' (for the most frequent one with the
single spaces between), occurrences of the most frequent may overlap (so that share is capped at 1),
and a repeated n-gram is skipped over. One deviation: the most frequent n-gram counts only if it
repeats, else short texts would look repetitive. Cost: 5 to 8 MB/s a core.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from configs.features import FEATURES
from data_pipeline.measuring import lexicons
from data_pipeline.reading import characters
from data_pipeline.reading.normalise import mojibake_pairs

MODEL_FEATURES = ("language_score", "quality_score", "toxicity_score")
TEXT_FEATURES = tuple(name for name in FEATURES if name not in MODEL_FEATURES)

_SHORT_LINE = 30
_PARAGRAPH_BREAK = re.compile(r"\n{2,}")
_KO_SPAM = re.compile("|".join(map(re.escape, lexicons.KO_SPAM_TERMS)))
_EN_SPAM = re.compile(rf"\b(?:{'|'.join(map(re.escape, lexicons.EN_SPAM_TERMS))})s?\b")
_EDGE_PUNCTUATION = ".,;:!?\"'()[]“”‘’…"

Ids = npt.NDArray[np.int64]


def features(text: str, language: str) -> dict[str, float]:
    """Every feature of `TEXT_FEATURES`; `language` (ko, en, other, code) chooses the stop words."""
    words = text.split()
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    flags = characters.flags_of(text)
    found = {
        "characters": float(len(text)),
        "words": float(len(words)),
        **_of_characters(text, flags),
        **_of_words(text, words, flags, language),
        **_of_lines(text, lines, language),
        **_of_repetition(text, words),
    }
    assert found.keys() == set(TEXT_FEATURES)
    return found


def _of_characters(text: str, flags: characters.Flags) -> dict[str, float]:
    visible = np.count_nonzero(flags & characters.SPACE == 0)
    known = characters.SPACE | characters.LETTER | characters.DIGIT | characters.PUNCTUATION
    broken = np.count_nonzero(flags & characters.BROKEN) + mojibake_pairs(text) + _misread_syllables(flags)
    return {
        "sentences": float(_sentence_ends(flags)),
        "hangul_share": _share(np.count_nonzero(flags & characters.HANGUL), visible),
        "lone_jamo_share": _share(np.count_nonzero(flags & characters.JAMO), visible),
        "symbol_share": _share(np.count_nonzero(flags & known == 0), len(text)),
        "broken_character_share": _share(broken, len(text)),
    }


def _sentence_ends(flags: characters.Flags) -> int:
    if not len(flags):
        return 0
    ends = flags & characters.SENTENCE_END > 0
    closes = flags & (characters.SPACE | characters.QUOTE) > 0
    return int(np.count_nonzero(ends[:-1] & closes[1:])) + int(ends[-1])


def _misread_syllables(flags: characters.Flags) -> int:
    """Rare syllables beside another or beside Hanja, the mark of UTF-8 read as CP949."""
    rare = flags & characters.RARE_HANGUL > 0
    odd = flags & (characters.RARE_HANGUL | characters.HAN) > 0
    beside = np.zeros(len(flags), dtype=bool)
    beside[1:] |= odd[:-1]
    beside[:-1] |= odd[1:]
    return int(np.count_nonzero(rare & beside))


def _of_words(text: str, words: Sequence[str], flags: characters.Flags, language: str) -> dict[str, float]:
    count = len(words)
    ellipses = sum(text.count(ellipsis) for ellipsis in lexicons.ELLIPSES)
    return {
        "mean_word_length": sum(map(len, words)) / count if count else 0.0,
        "stop_words": float(_stop_words(words, language)),
        "letter_word_share": _share(_words_with_letter(flags), count),
        "hash_per_word": text.count("#") / count if count else 0.0,
        "ellipsis_per_word": ellipses / count if count else 0.0,
        "line_breaks_per_word": text.count("\n") / count if count else 0.0,
        "spam_terms_per_1000_words": 1000 * _spam_terms(text) / count if count else 0.0,
    }


def _spam_terms(text: str) -> int:
    korean = len(_KO_SPAM.findall(text))
    lowered = text.lower()
    # Plain searches outrun the alternation, which is then needed in few texts ("specialist" has cialis in it).
    english = any(term in lowered for term in lexicons.EN_SPAM_TERMS)
    return korean + (len(_EN_SPAM.findall(lowered)) if english else 0)


def _words_with_letter(flags: characters.Flags) -> int:
    visible = flags & characters.SPACE == 0
    starts = np.flatnonzero(visible & ~np.concatenate(([False], visible[:-1])))
    if not len(starts):
        return 0
    return int(np.count_nonzero(np.bitwise_or.reduceat(flags, starts) & characters.LETTER))


def _stop_words(words: Sequence[str], language: str) -> int:
    """Distinct stop words (English) or closing particles and endings (Korean)."""
    if language == "en":
        return len(lexicons.EN_STOP_WORDS.intersection(word.strip(_EDGE_PUNCTUATION).lower() for word in set(words)))
    if language != "ko":
        return 0
    tails = {bare[-3:] for bare in (word.rstrip(_EDGE_PUNCTUATION) for word in set(words)) if len(bare) > 1}
    closings = tails | {tail[-2:] for tail in tails} | {tail[-1:] for tail in tails}
    return len(lexicons.KO_ENDINGS & closings)


def _of_lines(text: str, lines: Sequence[str], language: str) -> dict[str, float]:
    line_ends = lexicons.KO_LINE_ENDS if language == "ko" else lexicons.LINE_ENDS
    paragraphs = _PARAGRAPH_BREAK.split(text.strip()) if lines else []
    repeated, repeated_characters = _repeats(lines)
    repeated_paragraphs, _ = _repeats(paragraphs)
    return {
        "bullet_line_share": _share(sum(line.startswith(lexicons.BULLETS) for line in lines), len(lines)),
        "ellipsis_line_share": _share(sum(line.endswith(lexicons.ELLIPSES) for line in lines), len(lines)),
        "punctuated_line_share": _share(sum(line.endswith(line_ends) for line in lines), len(lines)),
        "short_line_share": _share(sum(len(line) <= _SHORT_LINE for line in lines), len(lines)),
        "duplicate_line_share": _share(repeated, len(lines)),
        "duplicate_line_char_share": _share(repeated_characters, len(text)),
        "duplicate_paragraph_share": _share(repeated_paragraphs, len(paragraphs)),
    }


def _repeats(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts repeat an earlier one, and their code points."""
    if len(set(parts)) == len(parts):
        return 0, 0
    seen: set[str] = set()
    count = length = 0
    for part in parts:
        if part in seen:
            count += 1
            length += len(part)
        seen.add(part)
    return count, length


def _of_repetition(text: str, words: Sequence[str]) -> dict[str, float]:
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(word, len(numbers)) for word in words], dtype=np.int64)
    ends = np.concatenate(([0], np.cumsum(np.fromiter(map(len, words), dtype=np.int64, count=len(words)))))
    grams = _n_gram_ids(ids)
    return {
        **{f"top_{n}gram_char_share": _share(_top_length(grams[n], ends, n), len(text)) for n in (2, 3, 4)},
        **{f"duplicate_{n}gram_char_share": _share(_repeated_length(grams[n], ends, n), len(text)) for n in (5, 10)},
    }


def _n_gram_ids(ids: Ids) -> dict[int, Ids]:
    """n -> an id for the n-gram that begins at each word; equal ids exactly for equal n-grams.

    Built from shorter ones (3 = 2 + 1, 4 = 2 + 2, 5 = 4 + 1, 10 = 5 + 5), so no hash can collide.
    """
    grams = {1: ids}
    for left, right in ((1, 1), (2, 1), (2, 2), (4, 1), (5, 5)):
        count = max(0, len(ids) - (left + right) + 1)
        first, second = grams[left][:count], grams[right][left : left + count]
        grams[left + right] = _renumbered(first * (int(second.max()) + 1 if count else 1) + second)
    return grams


def _renumbered(keys: Ids) -> Ids:
    """Keys -> small ids, equal for equal keys; stays exact where a product of keys would overflow."""
    order = np.argsort(keys)
    ordered = keys[order]
    fresh = np.concatenate((np.zeros(min(1, len(keys)), dtype=np.int64), ordered[1:] != ordered[:-1]))
    numbered = np.empty(len(keys), dtype=np.int64)
    numbered[order] = np.cumsum(fresh)
    return numbered


def _top_length(grams: Ids, ends: Ids, n: int) -> int:
    """Code points of the most frequent n-gram (the first of equals) times its count; 0 if none repeats."""
    if not len(grams):
        return 0
    counts = np.bincount(grams)
    most = int(counts.max())
    if most < 2:
        return 0
    start = int(np.argmax(counts[grams] == most))
    return (int(ends[start + n] - ends[start]) + n - 1) * most


def _repeated_length(grams: Ids, ends: Ids, n: int) -> int:
    """Code points of n-grams seen before, read left to right, a repeated one being skipped over."""
    counts = np.bincount(grams) if len(grams) else np.zeros(1, dtype=np.int64)
    if counts.max() < 2:
        return 0
    seen: set[int] = set()
    length = following = 0
    for start in np.flatnonzero(counts[grams] > 1).tolist():
        if start < following:
            continue
        gram = int(grams[start])
        if gram in seen:
            length += int(ends[start + n] - ends[start])
            following = start + n
        else:
            seen.add(gram)
    return length


def _share(part: int | np.signedinteger, whole: int | np.signedinteger) -> float:
    """part / whole within 0..1; 0 of nothing."""
    return min(1.0, float(part) / float(whole)) if whole else 0.0
