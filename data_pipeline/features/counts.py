"""One compiled pass over documents: the integer counts that the features are made of.

Contract: `count_documents` fills one row of counts per document, with the columns of configs.features.COUNTS;
`count_spans` does so for words, lines and paragraphs that the caller has cut. Counts are exact and the same on
every machine; time and memory (about 25 bytes per code point of the longest document) are linear. There are no
ratios and no thresholds here. What the counts mean, in slow Python: tests/data_pipeline/test_features.py.

How to add a count: name it in a formula of configs/features.py, which reserves `AT.<name>`, and assign
`counts[AT.<name>]` in the function below that reads what it needs: `_count_characters`, `_count_words` or
`_count_lines`. n-grams, runs, URLs and the longest word and line are counted in code points.

Cost: about 16 MB/s of English and 29 of Korean per core. Compiling takes some 10 s once, loading from the
cache 0.3 s.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from configs import features
from data_pipeline.features import repetition, spans, terms
from data_pipeline.features.terms import BULLET, CODE, ELLIPSIS, FEED, HASH, KO_LINE_END, LINE_END, QUOTE_END
from data_pipeline.readers import characters
from data_pipeline.readers.characters import (
    DIGIT,
    HAN,
    HANGUL,
    LETTER,
    MISREAD_TAIL,
    QUOTE,
    RARE_HANGUL,
    SENTENCE_END,
    SPACE,
)
from twofold.compiled import compiled, entry_point

AT: Any = namedtuple("AT", features.COUNTS)(*range(len(features.COUNTS)))
"""The column of each count."""

_GRAM_COLUMNS = (
    *(getattr(AT, f"top_{n}gram") for n in range(2, 5)),
    *(getattr(AT, f"duplicate_{n}gram") for n in range(5, 11)),
)
_KNOWN = characters.SPACE | characters.LETTER | characters.DIGIT | characters.PUNCTUATION
_ALPHANUMERIC = characters.LETTER | characters.DIGIT

OTHER, ENGLISH, KOREAN = range(3)
"""Languages, which choose stop words and line ends."""

SHORT_LINE = 30
"""Code points, at most."""
PROSE_WORDS, PROSE_WORD_LENGTH = 3, 1000
"""A line with fewer words, or with a longer word, is not prose (C4)."""
LABEL = 4
"""Code points, at most, of a line such as (a) or (iv), which is no item of a menu."""
MENU_RUN = 4
"""Fewer lines of bare words in a row are headings."""
JAMO_RUN = 3


def _count_documents(codes, bounds, languages, lexicon, multiplier, counts):  # type: ignore[no-untyped-def]
    """Document i is codes[bounds[i]:bounds[i + 1]]; fills counts, int64 (documents, len(COUNTS)), of zeros."""
    for document in range(len(languages)):
        text = codes[bounds[document] : bounds[document + 1]]
        flags = lexicon.flags[text]
        words, lines = spans.words_of(flags), spans.lines_of(text, flags)
        paragraphs = spans.paragraphs_of(text, flags)
        _count(text, flags, words, lines, paragraphs, languages[document], lexicon, multiplier, counts[document])


def _count_spans(codes, words, lines, paragraphs, language, lexicon, multiplier, counts):  # type: ignore[no-untyped-def]
    """One document with given spans, (starts, ends) int32 each; fills counts, int64 (len(COUNTS),), of zeros."""
    _count(codes, lexicon.flags[codes], words, lines, paragraphs, language, lexicon, multiplier, counts)


@compiled
def _count(codes, flags, words, lines, paragraphs, language, lexicon, multiplier, counts):  # type: ignore[no-untyped-def]
    counts[AT.one], counts[AT.characters] = 1, len(codes)
    counts[AT.words], counts[AT.lines], counts[AT.paragraphs] = len(words[0]), len(lines[0]), len(paragraphs[0])
    _count_characters(codes, flags, counts)
    classes = _count_words(codes, flags, words, counts)
    firsts = repetition.firsts_of(codes, words, multiplier)
    functional = np.zeros(len(firsts), np.bool_)
    if language == ENGLISH:
        counts[AT.stop_words], functional = terms.function_words(codes, flags, words, firsts, lexicon.english, True)
    elif language == KOREAN:
        counts[AT.stop_words], functional = terms.function_words(codes, flags, words, firsts, lexicon.korean, False)
    _count_lines(codes, flags, words, classes, functional, lines, language == KOREAN, lexicon, counts)
    grams = repetition.count_grams(words, firsts, multiplier)
    for i in range(len(_GRAM_COLUMNS)):
        counts[_GRAM_COLUMNS[i]] = grams[2 + i]
    counts[AT.repeated_lines], counts[AT.repeated_line_characters] = repetition.repeats(codes, lines, multiplier)
    repeated_paragraphs, length = repetition.repeats(codes, paragraphs, multiplier)
    counts[AT.repeated_paragraphs], counts[AT.repeated_paragraph_characters] = repeated_paragraphs, length


# --- characters --------------------------------------------------------------------------------


@compiled
def _count_characters(codes, flags, counts):  # type: ignore[no-untyped-def]
    counts[AT.hangul] = _flagged(flags, HANGUL)
    counts[AT.latin] = _flagged(flags, characters.LATIN)
    counts[AT.han] = _flagged(flags, HAN)
    counts[AT.digits] = _flagged(flags, DIGIT)
    counts[AT.letters] = _flagged(flags, LETTER)
    counts[AT.upper] = _flagged(flags, characters.UPPER)
    counts[AT.punctuation] = _flagged(flags, characters.PUNCTUATION)
    counts[AT.emoji] = _flagged(flags, characters.EMOJI)
    counts[AT.hashes] = _flagged(flags, HASH)
    counts[AT.newlines] = _flagged(flags, FEED)
    counts[AT.ellipses] = _flagged(flags, ELLIPSIS) + _three_dots(codes)
    counts[AT.visible] = len(flags) - _flagged(flags, SPACE)
    counts[AT.symbols] = len(flags) - _flagged(flags, _KNOWN)
    counts[AT.broken] = _flagged(flags, characters.BROKEN) + _misread_syllables(flags)
    counts[AT.broken] += _misread_utf8(codes, flags) + _misread_cp949(codes)
    run = 0
    for flag in flags:
        run = run + 1 if flag & characters.JAMO != 0 else 0
        counts[AT.jamo] += run > 0
        counts[AT.jamo_runs] += JAMO_RUN if run == JAMO_RUN else run > JAMO_RUN


@compiled
def _flagged(flags, wanted):  # type: ignore[no-untyped-def]
    found = 0
    for flag in flags:
        found += flag & np.uint32(wanted) != 0
    return found


@compiled
def _three_dots(codes):  # type: ignore[no-untyped-def]
    """Like `text.count("...")`."""
    found = dots = 0
    for code in codes:
        dots = dots + 1 if code == 0x2E else 0
        if dots == 3:
            found += 1
            dots = 0
    return found


@compiled
def _misread_syllables(flags):  # type: ignore[no-untyped-def]
    """Rare syllables beside another or beside Hanja, the mark of UTF-8 read as CP949."""
    found = 0
    for i in range(len(flags)):
        if flags[i] & RARE_HANGUL != 0:
            before = flags[i - 1] if i > 0 else np.uint32(0)
            after = flags[i + 1] if i + 1 < len(flags) else np.uint32(0)
            found += (before | after) & (RARE_HANGUL | HAN) != 0
    return found


@compiled
def _misread_utf8(codes, flags):  # type: ignore[no-untyped-def]
    """Code points in sequences that are UTF-8 read as Latin-1 or CP1252, as readers.normalize finds them."""
    found = i = 0
    while i + 1 < len(codes):
        length = 0
        if flags[i + 1] & MISREAD_TAIL != 0:
            if 0xC2 <= codes[i] <= 0xDF:
                length = 2
            elif 0xE1 <= codes[i] <= 0xEF and i + 2 < len(codes) and flags[i + 2] & MISREAD_TAIL != 0:
                length = 3
        found += length
        i += max(length, 1)
    return found


@compiled
def _misread_cp949(codes):  # type: ignore[no-untyped-def]
    """Code points in sequences that are two syllables of EUC-KR read as Latin-1."""
    found = i = 0
    while i + 3 < len(codes):
        first = 0xB0 <= codes[i] <= 0xC8 and 0xA1 <= codes[i + 1] <= 0xFE
        second = 0xB0 <= codes[i + 2] <= 0xC8 and 0xA1 <= codes[i + 3] <= 0xFE
        length = 4 if first and second else 0
        found += length
        i += max(length, 1)
    return found


# --- words and lines ---------------------------------------------------------------------------


@compiled
def _count_words(codes, flags, words, counts):  # type: ignore[no-untyped-def]
    """Returns the flags that occur in each word, uint32 (words,)."""
    classes = np.zeros(len(words[0]), np.uint32)
    for word in range(len(words[0])):
        start, end = words[0][word], words[1][word]
        counts[AT.longest_word] = max(counts[AT.longest_word], end - start)
        here, marks = np.uint32(0), False
        for flag in flags[start:end]:
            here |= flag
            marks |= flag & _ALPHANUMERIC == 0
        classes[word] = here
        tokens, letters = np.int64(1), np.int64(here & LETTER != 0)
        counts[AT.letter_words] += letters
        counts[AT.hangul_words] += here & HANGUL != 0
        if marks:
            joints, apostrophes = _inner_marks(codes, flags, start, end)
            tokens = _edge_marks(codes, flags, start, end) + (here & _ALPHANUMERIC != 0) + 2 * joints + apostrophes
            letters += joints + apostrophes
            counts[AT.url_characters] += end - start if _is_url(codes, start, end) else 0
        counts[AT.tokens] += tokens
        counts[AT.letter_tokens] += letters
    return classes


@compiled
def _is_url(codes, start, end):  # type: ignore[no-untyped-def]
    """Whether :// or www. is there."""
    for i in range(start, end - 2):
        if codes[i] == 0x3A and codes[i + 1] == 0x2F and codes[i + 2] == 0x2F:
            return True
        if i + 3 < end and codes[i + 3] == 0x2E and codes[i] == codes[i + 1] == codes[i + 2] == 0x77:
            return True
    return False


@compiled
def _edge_marks(codes, flags, start, end):  # type: ignore[no-untyped-def]
    """Tokens before the first and after the last letter or digit: marks, but a run of dots or dashes is one."""
    found = 0
    first = start
    while first < end and flags[first] & _ALPHANUMERIC == 0:
        found += first == start or codes[first] != codes[first - 1] or not 0x2D <= codes[first] <= 0x2E
        first += 1
    last = end
    while last > first and flags[last - 1] & _ALPHANUMERIC == 0:
        found += last == end or codes[last - 1] != codes[last] or not 0x2D <= codes[last - 1] <= 0x2E
        last -= 1
    return found


@compiled
def _inner_marks(codes, flags, start, end):  # type: ignore[no-untyped-def]
    """Dashes or slashes, and apostrophes, between two letters: they cut a word in three, or in two."""
    joints = apostrophes = 0
    for i in range(start + 1, end - 1):
        code = codes[i]
        if flags[i] & _ALPHANUMERIC == 0 and flags[i - 1] & flags[i + 1] & LETTER != 0:
            joints += code == 0x2D or code == 0x2F or code == 0x2013 or code == 0x2014
            apostrophes += code == 0x27 or code == 0x2019
    return joints, apostrophes


@compiled
def _count_lines(codes, flags, words, classes, functional, lines, korean, lexicon, counts):  # type: ignore[no-untyped-def]
    """`classes`: the flags in each word; `functional`: whether it is a stop word or closes with a Korean ending."""
    word = 0
    found = np.zeros(3, np.int64)
    line_end = np.uint32(KO_LINE_END if korean else LINE_END)
    run = run_length = 0
    for line in range(len(lines[0])):
        start, end = lines[0][line], lines[1][line]
        counts[AT.longest_line] = max(counts[AT.longest_line], end - start)
        counts[AT.short_lines] += end - start <= SHORT_LINE
        sentences = _sentence_ends(flags, start, end)
        counts[AT.sentences] += sentences
        notices = found[terms.NOTICE]
        terms.count_terms(codes, flags, start, end, lexicon, found)
        notice = found[terms.NOTICE] > notices
        counts[AT.notice_lines] += notice
        words_here = longest = functional_here = visible = 0
        classes_here = np.uint32(0)
        while word < len(words[0]) and words[0][word] < end:
            if words[0][word] >= start:
                words_here += 1
                functional_here += functional[word]
                classes_here |= classes[word]
                visible += words[1][word] - words[0][word]
            longest = max(longest, words[1][word] - words[0][word])
            word += 1
        if start < end:
            ellipsis = _ends_in_ellipsis(codes, flags, start, end)
            punctuated, quoted = flags[end - 1] & line_end != 0, flags[end - 1] & QUOTE_END != 0
            counts[AT.bullet_lines] += flags[start] & BULLET != 0
            counts[AT.ellipsis_lines] += ellipsis
            counts[AT.punctuated_lines] += punctuated
            sentence = (punctuated or quoted) and not ellipsis
            if sentence and not notice and words_here >= PROSE_WORDS and longest <= PROSE_WORD_LENGTH:
                counts[AT.prose_sentences] += max(1, sentences)
                counts[AT.curly_brackets] += (codes[start:end] == 0x7B).sum()
            running = _is_running(sentence, words_here, functional_here, korean) and longest <= PROSE_WORD_LENGTH
            bare = classes_here & LETTER != 0 and classes_here & (DIGIT | CODE) == 0
            menu = bare and not running and end - start > LABEL
            counts[AT.running_characters] += end - start if running else 0
            run = run + 1 if menu else 0
            run_length = run_length + end - start if menu else 0
            if run >= MENU_RUN:
                counts[AT.menu_lines] += MENU_RUN if run == MENU_RUN else 1
                counts[AT.menu_characters] += run_length if run == MENU_RUN else end - start
            counts[AT.text_visible] += visible if running or classes_here & HANGUL != 0 else 0
    counts[AT.spam_terms], counts[AT.lorem_ipsum] = found[terms.SPAM], found[terms.LOREM_IPSUM]


@compiled
def _is_running(sentence, words, functional, korean):  # type: ignore[no-untyped-def]
    """Whether a line is running text: it ends as a sentence, or has enough stop words or Korean endings.

    Verse, headlines, definitions and paragraphs whose last full stop is missing have them; menus, tags and names
    do not.
    """
    if korean:
        return (sentence and words >= 2) or (functional * 6 >= words and functional >= (1 if words >= 5 else 2))
    return (sentence and words >= 3) or (functional * 8 >= words and functional >= (1 if words >= 7 else 2))


@compiled
def _sentence_ends(flags, start, end):  # type: ignore[no-untyped-def]
    found = 0
    for i in range(start, min(end, len(flags) - 1)):
        found += (flags[i] & SENTENCE_END != 0) & (flags[i + 1] & (SPACE | QUOTE) != 0)
    if start < end == len(flags):
        found += flags[end - 1] & SENTENCE_END != 0
    return found


@compiled
def _ends_in_ellipsis(codes, flags, start, end):  # type: ignore[no-untyped-def]
    if flags[end - 1] & ELLIPSIS != 0:
        return True
    return end - start >= 3 and codes[end - 1] == 0x2E and codes[end - 2] == 0x2E and codes[end - 3] == 0x2E


_SOURCES = (features, repetition, spans, terms, characters)
count_documents = entry_point(_count_documents, *_SOURCES)
count_spans = entry_point(_count_spans, *_SOURCES)
