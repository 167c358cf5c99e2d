"""One compiled pass over documents: integer counts of everything that a feature is made of.

Contract: `count_documents` fills one row of `COUNTS` a document, `count_spans` does so for words, lines
and paragraphs that the caller cut. All counts are exact and the same on every machine; time and memory
(about 25 bytes a code point of the longest document) are linear. No shares, no thresholds: those are
features.py and rules. What the counts mean, in slow Python: tests/data_pipeline/test_features.py.
Cost: 30 MB/s of English and 60 of Korean a core; compiled once (some 10 s), then read from the cache in
0.3 s.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_pipeline.features import repetition, spans, terms
from data_pipeline.features.repetition import count_grams, firsts_of, repeats
from data_pipeline.features.spans import lines_of, paragraphs_of, words_of
from data_pipeline.features.terms import (
    BULLET,
    ELLIPSIS,
    FEED,
    HASH,
    KO_LINE_END,
    LINE_END,
    QUOTE_END,
    count_terms,
    endings,
    stop_words,
)
from data_pipeline.readers import characters
from data_pipeline.readers.characters import (
    JAMO,
    LETTER,
    MISREAD_LEAD,
    MISREAD_TAIL,
    QUOTE,
    RARE_HANGUL,
    SENTENCE_END,
    SPACE,
)
from twofold import compiled as machine_code
from twofold.compiled import compiled

COUNTS = (
    *("one", "characters", "visible", "words", "lines", "paragraphs", "sentences", "prose_sentences"),
    *("longest_word", "longest_line", "stop_words", "letter_words", "tokens", "letter_tokens"),
    *("hashes", "ellipses", "newlines"),
    *("bullet_lines", "ellipsis_lines", "punctuated_lines", "short_lines", "notice_lines"),
    *("repeated_lines", "repeated_line_characters", "repeated_paragraphs", "repeated_paragraph_characters"),
    *("top_2gram", "top_3gram", "top_4gram"),
    *("duplicate_5gram", "duplicate_6gram", "duplicate_7gram", "duplicate_8gram", "duplicate_9gram"),
    *("duplicate_10gram", "hangul", "latin", "han", "digits", "letters", "upper", "punctuation", "jamo"),
    *("jamo_runs", "emoji", "symbols", "broken", "url_characters", "curly_brackets", "lorem_ipsum", "spam_terms"),
)
"""Columns of the result; `one` is 1. n-grams, runs, URLs and the longest are in code points."""

(
    _ONE, _CHARACTERS, _VISIBLE, _WORDS, _LINES, _PARAGRAPHS, _SENTENCES, _PROSE_SENTENCES,
    _LONGEST_WORD, _LONGEST_LINE, _STOP_WORDS, _LETTER_WORDS, _TOKENS, _LETTER_TOKENS,
    _HASHES, _ELLIPSES, _NEWLINES,
    _BULLET_LINES, _ELLIPSIS_LINES, _PUNCTUATED_LINES, _SHORT_LINES, _NOTICE_LINES,
    _REPEATED_LINES, _REPEATED_LINE_CHARACTERS, _REPEATED_PARAGRAPHS, _REPEATED_PARAGRAPH_CHARACTERS,
    _TOP_2GRAM, _, _,
    _DUPLICATE_5GRAM, _, _, _, _,
    _, _HANGUL, _LATIN, _HAN, _DIGITS, _LETTERS, _UPPER, _PUNCTUATION, _JAMO,
    _JAMO_RUNS, _EMOJI, _SYMBOLS, _BROKEN, _URL_CHARACTERS, _CURLY_BRACKETS, _LOREM_IPSUM, _SPAM_TERMS,
) = range(len(COUNTS))  # fmt: skip

_OF_CLASS = (
    (characters.HANGUL, _HANGUL), (characters.LATIN, _LATIN), (characters.HAN, _HAN), (characters.DIGIT, _DIGITS),
    (characters.LETTER, _LETTERS), (characters.UPPER, _UPPER), (characters.PUNCTUATION, _PUNCTUATION),
    (characters.JAMO, _JAMO), (characters.EMOJI, _EMOJI), (characters.BROKEN, _BROKEN),
    (ELLIPSIS, _ELLIPSES), (FEED, _NEWLINES), (HASH, _HASHES),
)  # fmt: skip
_KNOWN = characters.SPACE | characters.LETTER | characters.DIGIT | characters.PUNCTUATION
_ALPHANUMERIC = characters.LETTER | characters.DIGIT
_ODD_HANGUL = characters.RARE_HANGUL | characters.HAN

OTHER, ENGLISH, KOREAN = range(3)
"""Languages: which stop words and line ends are meant."""

SHORT_LINE = 30
"""Code points, at most."""
PROSE_WORDS, PROSE_WORD_LENGTH = 3, 1000
"""A line with fewer words, or with a longer one, is no prose (C4)."""
JAMO_RUN = 3


def _entry_points(sources: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """`sources` names the files that are compiled in: a closure, so that numba's cache is renewed with it."""

    def count_documents(codes, bounds, languages, lexicon, multiplier, counts):  # type: ignore[no-untyped-def]
        """Document i is codes[bounds[i]:bounds[i + 1]]; fills counts, int64 (documents, len(COUNTS)), of zeros."""
        assert sources
        for document in range(len(languages)):
            text = codes[bounds[document] : bounds[document + 1]]
            flags = _flags_of(text, lexicon.flags)
            words, lines, paragraphs = words_of(flags), lines_of(text, flags), paragraphs_of(text, flags)
            _count(text, flags, words, lines, paragraphs, languages[document], lexicon, multiplier, counts[document])

    def count_spans(codes, words, lines, paragraphs, language, lexicon, multiplier, counts):  # type: ignore[no-untyped-def]
        """One document with given spans, (starts, ends) int32 each; fills counts, int64 (len(COUNTS),), of zeros."""
        assert sources
        flags = _flags_of(codes, lexicon.flags)
        _count(codes, flags, words, lines, paragraphs, language, lexicon, multiplier, counts)

    return machine_code.entry_point(count_documents), machine_code.entry_point(count_spans)


@compiled
def _flags_of(codes, table):  # type: ignore[no-untyped-def]
    flags = np.empty(len(codes), np.uint32)
    for i in range(len(codes)):
        flags[i] = table[codes[i]]
    return flags


@compiled
def _count(codes, flags, words, lines, paragraphs, language, lexicon, multiplier, counts):  # type: ignore[no-untyped-def]
    counts[_ONE], counts[_CHARACTERS] = 1, len(codes)
    counts[_WORDS], counts[_LINES], counts[_PARAGRAPHS] = len(words[0]), len(lines[0]), len(paragraphs[0])
    _count_characters(codes, flags, lexicon, counts)
    _count_words(codes, flags, words, counts)
    firsts = firsts_of(codes, words, multiplier)
    if language == ENGLISH:
        counts[_STOP_WORDS] = stop_words(codes, flags, words, firsts, lexicon.english)
    elif language == KOREAN:
        counts[_STOP_WORDS] = endings(codes, flags, words, firsts, lexicon.korean)
    count_grams(words, firsts, multiplier, counts[_TOP_2GRAM:], counts[_DUPLICATE_5GRAM:])
    _count_lines(codes, flags, words, lines, KO_LINE_END if language == KOREAN else LINE_END, lexicon, counts)
    counts[_REPEATED_LINES], counts[_REPEATED_LINE_CHARACTERS] = repeats(codes, lines, multiplier)
    counts[_REPEATED_PARAGRAPHS], counts[_REPEATED_PARAGRAPH_CHARACTERS] = repeats(codes, paragraphs, multiplier)


# --- characters --------------------------------------------------------------------------------


@compiled
def _count_characters(codes, flags, lexicon, counts):  # type: ignore[no-untyped-def]
    classes = _histogram(codes, lexicon)
    rare = leads = 0
    for i in range(len(classes)):
        flag, found = lexicon.class_flags[i], classes[i]
        for wanted, column in _OF_CLASS:
            counts[column] += found if flag & wanted != 0 else 0
        counts[_VISIBLE] += found if flag & SPACE == 0 else 0
        counts[_SYMBOLS] += found if flag & _KNOWN == 0 else 0
        rare += found if flag & RARE_HANGUL != 0 else 0
        leads += found if flag & MISREAD_LEAD != 0 else 0
    if rare:
        counts[_BROKEN] += _misread_syllables(flags)
    if leads:
        counts[_BROKEN] += _misread_utf8(codes, flags) + _misread_cp949(codes)
    counts[_ELLIPSES] += _three_dots(codes)
    run = 0
    for i in range(len(flags) if counts[_JAMO] else 0):
        run = run + 1 if flags[i] & JAMO != 0 else 0
        counts[_JAMO_RUNS] += JAMO_RUN if run == JAMO_RUN else run > JAMO_RUN


@compiled
def _three_dots(codes):  # type: ignore[no-untyped-def]
    """As `text.count("...")`; most texts are done after the first loop, which the compiler makes vectors of."""
    found = dots = 0
    for i in range(2, len(codes)):
        found += (codes[i] == 0x2E) & (codes[i - 1] == 0x2E) & (codes[i - 2] == 0x2E)
    if not found:
        return 0
    found = 0
    for code in codes:
        dots = dots + 1 if code == 0x2E else 0
        if dots == 3:
            found += 1
            dots = 0
    return found


@compiled
def _histogram(codes, lexicon):  # type: ignore[no-untyped-def]
    """Code points of each class. Two tables in turn: adding to one again at once would wait for the first."""
    even, odd = np.zeros(len(lexicon.class_flags), np.int64), np.zeros(len(lexicon.class_flags), np.int64)
    for i in range(0, len(codes) - 1, 2):
        even[lexicon.classes[codes[i]]] += 1
        odd[lexicon.classes[codes[i + 1]]] += 1
    if len(codes) & 1:
        even[lexicon.classes[codes[-1]]] += 1
    return even + odd


@compiled
def _equal(codes, wanted):  # type: ignore[no-untyped-def]
    found = 0
    for code in codes:
        found += code == np.uint32(wanted)
    return found


@compiled
def _misread_syllables(flags):  # type: ignore[no-untyped-def]
    """Rare syllables beside another or beside Hanja, the mark of UTF-8 read as CP949."""
    found = 0
    for i in range(len(flags)):
        if flags[i] & RARE_HANGUL != 0:
            before, after = i > 0 and flags[i - 1] & _ODD_HANGUL != 0, False
            if i + 1 < len(flags):
                after = flags[i + 1] & _ODD_HANGUL != 0
            found += before or after
    return found


@compiled
def _misread_utf8(codes, flags):  # type: ignore[no-untyped-def]
    """Code points in sequences that are UTF-8 read as Latin-1 or CP1252, as reading.normalise finds them."""
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
    starts, ends = words
    longest = with_letter = 0
    for word in range(len(starts)):
        start, end = starts[word], ends[word]
        longest = max(longest, end - start)
        classes, marks = np.uint32(0), False
        for i in range(start, end):
            classes |= flags[i]
            marks |= flags[i] & _ALPHANUMERIC == 0
        with_letter += classes & LETTER != 0
        tokens, letter_tokens = np.int64(1), np.int64(classes & LETTER != 0)
        if marks:
            joints, apostrophes = _inner_marks(codes, flags, start, end)
            tokens = _edge_marks(codes, flags, start, end) + (classes & _ALPHANUMERIC != 0) + 2 * joints + apostrophes
            letter_tokens += joints + apostrophes
            counts[_URL_CHARACTERS] += end - start if _is_url(codes, start, end) else 0
        counts[_TOKENS] += tokens
        counts[_LETTER_TOKENS] += letter_tokens
    counts[_LONGEST_WORD], counts[_LETTER_WORDS] = longest, with_letter


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
def _count_lines(codes, flags, words, lines, line_end, lexicon, counts):  # type: ignore[no-untyped-def]
    word = place = 0
    places = terms.term_places(flags)
    found = np.zeros(3, np.int64)
    for line in range(len(lines[0])):
        start, end = lines[0][line], lines[1][line]
        counts[_LONGEST_LINE] = max(counts[_LONGEST_LINE], end - start)
        counts[_SHORT_LINES] += end - start <= SHORT_LINE
        sentences = _sentence_ends(flags, start, end)
        counts[_SENTENCES] += sentences
        notices = found[terms.NOTICE]
        while place < len(places) and places[place] < start:
            place += 1
        place = count_terms(codes, flags, places, place, end, lexicon, found)
        notice = found[terms.NOTICE] > notices
        counts[_NOTICE_LINES] += notice
        words_here = longest = 0
        while word < len(words[0]) and words[0][word] < end:
            words_here += words[0][word] >= start
            longest = max(longest, words[1][word] - words[0][word])
            word += 1
        if start < end:
            ellipsis = _ends_in_ellipsis(codes, flags, start, end)
            punctuated, quoted = flags[end - 1] & line_end != 0, flags[end - 1] & QUOTE_END != 0
            counts[_BULLET_LINES] += flags[start] & BULLET != 0
            counts[_ELLIPSIS_LINES] += ellipsis
            counts[_PUNCTUATED_LINES] += punctuated
            prose = (punctuated or quoted) and not ellipsis and not notice
            if prose and words_here >= PROSE_WORDS and longest <= PROSE_WORD_LENGTH:
                counts[_PROSE_SENTENCES] += max(1, sentences)
                counts[_CURLY_BRACKETS] += _equal(codes[start:end], 0x7B)
    counts[_SPAM_TERMS], counts[_LOREM_IPSUM] = found[terms.SPAM], found[terms.LOREM_IPSUM]


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


count_documents, count_spans = _entry_points(
    machine_code.digest(
        __file__, machine_code.__file__, repetition.__file__, spans.__file__, terms.__file__, characters.__file__
    )
)
