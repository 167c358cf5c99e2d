"""One compiled pass over the code points of documents: integer counts, no shares, no thresholds.

Contract: `count_documents` fills one row of `COUNTS` a document; `count_spans` does so for words,
lines and paragraphs that the caller cut. Every count is exact: spans that hash alike are compared code
point by code point, and an n-gram is a pair of ids, so no collision can change a count. `multiplier`,
the hash's odd factor, decides only the order of probes; each process draws its own, so that no document
can be written to make them many. Time and memory are linear in the document: about 25 bytes a code
point. The only module that imports numba. What the counts mean, in slow Python:
tests/data_pipeline/test_features.py.

Compiled at first use (about 10 s) and cached in `__pycache__`, in numba's folder of the user where that
cannot be written, and nowhere where neither can; numba does not see changes of imported constants, so
all of the kernel is in this one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from data_pipeline.reading import characters

COUNTS = (
    *("one", "characters", "visible", "words", "lines", "paragraphs", "sentences", "prose_sentences"),
    *("longest_word", "longest_line", "stop_words", "letter_words", "hashes", "ellipses", "newlines"),
    *("bullet_lines", "ellipsis_lines", "punctuated_lines", "short_lines", "notice_lines"),
    *("repeated_lines", "repeated_line_characters", "repeated_paragraphs", "repeated_paragraph_characters"),
    *("top_2gram", "top_3gram", "top_4gram"),
    *("duplicate_5gram", "duplicate_6gram", "duplicate_7gram", "duplicate_8gram", "duplicate_9gram"),
    *("duplicate_10gram", "hangul", "latin", "han", "digits", "letters", "upper", "punctuation", "jamo"),
    *("jamo_runs", "emoji", "symbols", "broken", "url_characters", "curly_brackets", "lorem_ipsum", "spam_terms"),
)
"""Columns of the result; `one` is 1, all but words, lines, paragraphs and terms are code points."""

(
    _ONE, _CHARACTERS, _VISIBLE, _WORDS, _LINES, _PARAGRAPHS, _SENTENCES, _PROSE_SENTENCES,
    _LONGEST_WORD, _LONGEST_LINE, _STOP_WORDS, _LETTER_WORDS, _HASHES, _ELLIPSES, _NEWLINES,
    _BULLET_LINES, _ELLIPSIS_LINES, _PUNCTUATED_LINES, _SHORT_LINES, _NOTICE_LINES,
    _REPEATED_LINES, _REPEATED_LINE_CHARACTERS, _REPEATED_PARAGRAPHS, _REPEATED_PARAGRAPH_CHARACTERS,
    _TOP_2GRAM, _TOP_3GRAM, _TOP_4GRAM,
    _DUPLICATE_5GRAM, _DUPLICATE_6GRAM, _DUPLICATE_7GRAM, _DUPLICATE_8GRAM, _DUPLICATE_9GRAM,
    _DUPLICATE_10GRAM, _HANGUL, _LATIN, _HAN, _DIGITS, _LETTERS, _UPPER, _PUNCTUATION, _JAMO,
    _JAMO_RUNS, _EMOJI, _SYMBOLS, _BROKEN, _URL_CHARACTERS, _CURLY_BRACKETS, _LOREM_IPSUM, _SPAM_TERMS,
) = range(len(COUNTS))  # fmt: skip

# Numba takes a module's integers for constants.
_SPACE, _LETTER, _DIGIT, _PUNCT = characters.SPACE, characters.LETTER, characters.DIGIT, characters.PUNCTUATION
_RARE_HANGUL, _ODD_HANGUL = characters.RARE_HANGUL, characters.RARE_HANGUL | characters.HAN
_LONE_JAMO, _TAIL = characters.JAMO, characters.MISREAD_TAIL
_SENTENCE_END, _CLOSES = characters.SENTENCE_END, characters.SPACE | characters.QUOTE
_KNOWN = _SPACE | _LETTER | _DIGIT | _PUNCT
_CLASSES = (
    (characters.HANGUL, _HANGUL), (characters.LATIN, _LATIN), (characters.HAN, _HAN), (_DIGIT, _DIGITS),
    (_LETTER, _LETTERS), (characters.UPPER, _UPPER), (_PUNCT, _PUNCTUATION), (_LONE_JAMO, _JAMO),
    (characters.EMOJI, _EMOJI), (characters.BROKEN, _BROKEN),
)  # fmt: skip

BULLET, LINE_END, KO_LINE_END, EDGE, ELLIPSIS = 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20
"""Further flags of `Lexicon.flags`: begins a bulleted line, ends a sentence-like line (also in Korean), is
no part of a stop word at a word's edge, is an ellipsis by itself."""

OTHER, ENGLISH, KOREAN = range(3)
"""Languages: which stop words and line ends are meant."""

SPAM, SPAM_WORD, LOREM_IPSUM, NOTICE = range(4)
"""Kinds of terms; a SPAM_WORD stands alone between what are not ASCII letters or digits, or has an s."""

SHORT_LINE = 30
"""Code points, at most."""
PROSE_WORDS, PROSE_WORD_LENGTH = 3, 1000
"""A line with fewer words, or with a longer one, is no prose (C4)."""
HEADS = 4096
_LONGEST_GRAM = 10

Codes = npt.NDArray[np.uint32]
Spans = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
"""Starts and ends in code points, ascending; a span may be empty."""


class Lexicon(NamedTuple):
    """Everything that words and characters are looked up in."""

    flags: Codes
    """(0x110000,): reading.characters.table() and the flags above."""
    english: npt.NDArray[np.uint64]
    """Stop words, lower-case, packed with 7 bits a letter, ascending."""
    korean: npt.NDArray[np.uint64]
    """Endings of at most three syllables, packed with 21 bits each, ascending."""
    terms: Codes
    """The terms in lower case, one after the other."""
    bounds: npt.NDArray[np.int32]
    """(terms + 1,): where each begins in `terms`."""
    kinds: npt.NDArray[np.int8]
    heads: npt.NDArray[np.int16]
    """(HEADS,): by the hash of two code points the first term that begins so, or -1."""
    following: npt.NDArray[np.int16]
    """(terms,): the next term with the same head, or -1."""


def _compiled(function: Callable[..., Any]) -> Any:
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no folder that can hold its cache
        return numba.njit(nogil=True)(function)


@_compiled
def count_documents(codes, bounds, languages, lexicon, multiplier, counts):  # type: ignore[no-untyped-def]
    """Document i is codes[bounds[i]:bounds[i + 1]]; fills counts, int64 (documents, len(COUNTS)), of zeros."""
    for document in range(len(languages)):
        text = codes[bounds[document] : bounds[document + 1]]
        flags = _flags_of(text, lexicon.flags)
        words, lines, paragraphs = _words(flags), _lines(text, flags), _paragraphs(text, flags)
        _count(text, flags, words, lines, paragraphs, languages[document], lexicon, multiplier, counts[document])


@_compiled
def count_spans(codes, words, lines, paragraphs, language, lexicon, multiplier, counts):  # type: ignore[no-untyped-def]
    """One document whose spans are given (each `Spans`); fills counts, int64 (len(COUNTS),), of zeros."""
    flags = _flags_of(codes, lexicon.flags)
    _count(codes, flags, words, lines, paragraphs, language, lexicon, multiplier, counts)


@_compiled
def _count(codes, flags, words, lines, paragraphs, language, lexicon, multiplier, counts):  # type: ignore[no-untyped-def]
    counts[_ONE] = 1
    _count_characters(codes, flags, counts)
    _count_words(codes, flags, words, counts)
    firsts = _firsts(codes, words, multiplier)
    if language == ENGLISH:
        counts[_STOP_WORDS] = _stop_words(codes, flags, words, firsts, lexicon.english)
    elif language == KOREAN:
        counts[_STOP_WORDS] = _endings(codes, flags, words, firsts, lexicon.korean)
    _count_repetition(words, firsts, multiplier, counts)
    _count_lines(codes, flags, words, lines, LINE_END | (KO_LINE_END if language == KOREAN else 0), lexicon, counts)
    counts[_LINES], counts[_PARAGRAPHS] = len(lines[0]), len(paragraphs[0])
    counts[_REPEATED_LINES], counts[_REPEATED_LINE_CHARACTERS] = _repeats(codes, lines, multiplier)
    counts[_REPEATED_PARAGRAPHS], counts[_REPEATED_PARAGRAPH_CHARACTERS] = _repeats(codes, paragraphs, multiplier)


# --- cutting -----------------------------------------------------------------------------------


@_compiled
def _flags_of(codes, table):  # type: ignore[no-untyped-def]
    flags = np.empty(len(codes), np.uint32)
    for i in range(len(codes)):
        flags[i] = table[codes[i]]
    return flags


@_compiled
def _words(flags):  # type: ignore[no-untyped-def]
    """As `str.split()`."""
    starts, ends = np.empty(len(flags) // 2 + 1, np.int32), np.empty(len(flags) // 2 + 1, np.int32)
    count, inside = 0, False
    for i in range(len(flags)):
        space = flags[i] & _SPACE != 0
        if inside and space:
            ends[count] = i
            count += 1
        elif not inside and not space:
            starts[count] = i
        inside = not space
    if inside:
        ends[count] = len(flags)
        count += 1
    return starts[:count], ends[:count]


@_compiled
def _lines(codes, flags):  # type: ignore[no-untyped-def]
    """Parts between line feeds, stripped, without empty ones."""
    capacity = 1
    for code in codes:
        capacity += code == 10
    starts, ends = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    count = start = 0
    end = -1
    for i in range(len(codes) + 1):
        if i == len(codes) or codes[i] == 10:
            if end > start:
                starts[count], ends[count] = start, end
                count += 1
            start, end = i + 1, -1
        elif flags[i] & _SPACE == 0:
            start = i if end < 0 else start
            end = i + 1
    return starts[:count], ends[:count]


@_compiled
def _paragraphs(codes, flags):  # type: ignore[no-untyped-def]
    """Parts of the stripped text between two or more line feeds."""
    first, last = 0, len(codes)
    while first < last and flags[first] & _SPACE != 0:
        first += 1
    while last > first and flags[last - 1] & _SPACE != 0:
        last -= 1
    capacity = 1
    for i in range(first + 1, last):
        capacity += codes[i] == 10 and codes[i - 1] == 10
    starts, ends = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    count, start, feeds = 0, first, 0
    for i in range(first, last):
        if codes[i] == 10:
            feeds += 1
            continue
        if feeds > 1:
            starts[count], ends[count] = start, i - feeds
            count += 1
            start = i
        feeds = 0
    if last > first:
        starts[count], ends[count] = start, last
        count += 1
    return starts[:count], ends[:count]


# --- characters --------------------------------------------------------------------------------


@_compiled
def _count_characters(codes, flags, counts):  # type: ignore[no-untyped-def]
    counts[_CHARACTERS] = len(codes)
    for flag, column in _CLASSES:
        found = 0
        for i in range(len(flags)):
            found += flags[i] & flag != 0
        counts[column] = found
    visible = symbols = rare = leads = hashes = brackets = feeds = ellipses = dots = run = runs = 0
    for i in range(len(codes)):
        code, flag = codes[i], flags[i]
        visible += flag & _SPACE == 0
        symbols += flag & _KNOWN == 0
        rare += flag & _RARE_HANGUL != 0
        leads += 0xB0 <= code <= 0xEF
        hashes += code == 0x23
        brackets += code == 0x7B
        feeds += code == 10
        ellipses += flag & ELLIPSIS != 0
        dots = dots + 1 if code == 0x2E else 0
        if dots == 3:
            ellipses += 1
            dots = 0
        run = run + 1 if flag & _LONE_JAMO != 0 else 0
        runs += (run >= 3) + 2 * (run == 3)
    counts[_VISIBLE], counts[_SYMBOLS], counts[_HASHES] = visible, symbols, hashes
    counts[_CURLY_BRACKETS], counts[_NEWLINES], counts[_ELLIPSES], counts[_JAMO_RUNS] = brackets, feeds, ellipses, runs
    if rare:
        counts[_BROKEN] += _misread_syllables(flags)
    if leads:
        counts[_BROKEN] += _misread_utf8(codes, flags) + _misread_cp949(codes)


@_compiled
def _misread_syllables(flags):  # type: ignore[no-untyped-def]
    """Rare syllables beside another or beside Hanja, the mark of UTF-8 read as CP949."""
    found = 0
    for i in range(len(flags)):
        if flags[i] & _RARE_HANGUL != 0:
            beside = (i > 0 and flags[i - 1] & _ODD_HANGUL != 0) or (
                i + 1 < len(flags) and flags[i + 1] & _ODD_HANGUL != 0
            )
            found += beside
    return found


@_compiled
def _misread_utf8(codes, flags):  # type: ignore[no-untyped-def]
    """Code points in sequences that are UTF-8 read as Latin-1 or CP1252; as reading.normalise finds them."""
    found = i = 0
    while i + 1 < len(codes):
        tail = flags[i + 1] & _TAIL != 0
        if 0xC2 <= codes[i] <= 0xDF and tail:
            length = 2
        elif 0xE1 <= codes[i] <= 0xEF and tail and i + 2 < len(codes) and flags[i + 2] & _TAIL != 0:
            length = 3
        else:
            length = 0
        found += length
        i += max(length, 1)
    return found


@_compiled
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


# --- words -------------------------------------------------------------------------------------


@_compiled
def _count_words(codes, flags, words, counts):  # type: ignore[no-untyped-def]
    starts, ends = words
    longest = with_letter = in_urls = 0
    for word in range(len(starts)):
        start, end = starts[word], ends[word]
        longest = max(longest, end - start)
        seen, url = np.uint32(0), False
        for i in range(start, end):
            seen |= flags[i]
            if codes[i] == 0x3A:  # ://
                url |= i + 2 < end and codes[i + 1] == 0x2F and codes[i + 2] == 0x2F
            elif codes[i] == 0x2E:  # www.
                url |= i - 3 >= start and codes[i - 1] == 0x77 and codes[i - 2] == 0x77 and codes[i - 3] == 0x77
        with_letter += seen & _LETTER != 0
        in_urls += end - start if url else 0
    counts[_WORDS], counts[_LONGEST_WORD] = len(starts), longest
    counts[_LETTER_WORDS], counts[_URL_CHARACTERS] = with_letter, in_urls


@_compiled
def _stop_words(codes, flags, words, firsts, keys):  # type: ignore[no-untyped-def]
    """How many of `keys` are words, case and punctuation at the edges apart."""
    seen = np.zeros(len(keys), np.bool_)
    for word in range(len(firsts)):
        if firsts[word] == word:
            start, end = words[0][word], words[1][word]
            while end > start and flags[end - 1] & EDGE != 0:
                end -= 1
            while end > start and flags[start] & EDGE != 0:
                start += 1
            _mark(keys, seen, codes, start, end, 7)
    return seen.sum()


@_compiled
def _endings(codes, flags, words, firsts, keys):  # type: ignore[no-untyped-def]
    """How many of `keys` close words of two syllables or more, punctuation apart."""
    seen = np.zeros(len(keys), np.bool_)
    for word in range(len(firsts)):
        if firsts[word] == word:
            start, end = words[0][word], words[1][word]
            while end > start and flags[end - 1] & EDGE != 0:
                end -= 1
            if end - start > 1:
                for length in range(1, min(3, end - start) + 1):
                    _mark(keys, seen, codes, end - length, end, 21)
    return seen.sum()


@_compiled
def _mark(keys, seen, codes, start, end, bits):  # type: ignore[no-untyped-def]
    """Set seen[i] if codes[start:end], lower-case and packed with `bits` each behind a 1, is keys[i]."""
    if (end - start) * bits >= 64:
        return
    key = np.uint64(1)
    for i in range(start, end):
        code = np.uint64(_lower(codes[i]))
        if code >> np.uint64(bits):
            return
        key = key << np.uint64(bits) | code
    place = np.searchsorted(keys, key)
    if place < len(keys) and keys[place] == key:
        seen[place] = True


@_compiled
def _lower(code):  # type: ignore[no-untyped-def]
    return code + np.uint32(32) if 65 <= code <= 90 else code


# --- lines -------------------------------------------------------------------------------------


@_compiled
def _count_lines(codes, flags, words, lines, line_end, lexicon, counts):  # type: ignore[no-untyped-def]
    word = 0
    for line in range(len(lines[0])):
        start, end = lines[0][line], lines[1][line]
        counts[_LONGEST_LINE] = max(counts[_LONGEST_LINE], end - start)
        counts[_SHORT_LINES] += end - start <= SHORT_LINE
        sentences = _sentence_ends(flags, start, end)
        counts[_SENTENCES] += sentences
        words_here = longest = 0
        while word < len(words[0]) and words[0][word] < end:
            words_here += words[0][word] >= start
            longest = max(longest, words[1][word] - words[0][word])
            word += 1
        notice = _count_terms(codes, start, end, lexicon, counts)
        counts[_NOTICE_LINES] += notice
        if end == start:
            continue
        counts[_BULLET_LINES] += flags[start] & BULLET != 0
        ellipsis = flags[end - 1] & ELLIPSIS != 0 or (
            end - start >= 3 and codes[end - 1] == codes[end - 2] == codes[end - 3] == 0x2E
        )
        counts[_ELLIPSIS_LINES] += ellipsis
        punctuated = flags[end - 1] & line_end != 0
        counts[_PUNCTUATED_LINES] += punctuated
        if punctuated and not ellipsis and not notice and words_here >= PROSE_WORDS and longest <= PROSE_WORD_LENGTH:
            counts[_PROSE_SENTENCES] += max(1, sentences)


@_compiled
def _sentence_ends(flags, start, end):  # type: ignore[no-untyped-def]
    found = 0
    for i in range(start, end):
        if flags[i] & _SENTENCE_END != 0:
            found += i + 1 == len(flags) or flags[i + 1] & _CLOSES != 0
    return found


@_compiled
def _count_terms(codes, start, end, lexicon, counts):  # type: ignore[no-untyped-def]
    """Terms within a line, left to right, none overlapping; returns whether one is a NOTICE."""
    notice = False
    i = start
    while i + 1 < end:
        term = lexicon.heads[head(_lower(codes[i]), _lower(codes[i + 1]))]
        length = 0
        while term >= 0 and not length:
            length = _match(codes, start, i, end, lexicon, term)
            if not length:
                term = lexicon.following[term]
        if length:
            kind = lexicon.kinds[term]
            notice |= kind == NOTICE
            counts[_LOREM_IPSUM] += kind == LOREM_IPSUM
            counts[_SPAM_TERMS] += kind == SPAM or kind == SPAM_WORD
        i += max(length, 1)
    return notice


@_compiled
def head(first, second):  # type: ignore[no-untyped-def]
    """Place in `Lexicon.heads` of terms that begin with these lower-case code points."""
    return (np.uint32(first) * np.uint32(61) + np.uint32(second)) % np.uint32(HEADS)


@_compiled
def _match(codes, start, i, end, lexicon, term):  # type: ignore[no-untyped-def]
    """Length of the term at codes[i], 0 if it is not there."""
    begin, length = lexicon.bounds[term], lexicon.bounds[term + 1] - lexicon.bounds[term]
    if i + length > end:
        return 0
    for offset in range(length):
        if _lower(codes[i + offset]) != lexicon.terms[begin + offset]:
            return 0
    if lexicon.kinds[term] == SPAM_WORD:
        after = i + length
        plural = after < end and _lower(codes[after]) == 0x73
        if i > start and _is_word(codes[i - 1]):
            return 0
        if plural and (after + 1 == end or not _is_word(codes[after + 1])):
            return length + 1
        if after < end and _is_word(codes[after]):
            return 0
    return length


@_compiled
def _is_word(code):  # type: ignore[no-untyped-def]
    return 48 <= code <= 57 or 97 <= _lower(code) <= 122 or code == 95


# --- repetition --------------------------------------------------------------------------------


@_compiled
def _firsts(codes, spans, multiplier):  # type: ignore[no-untyped-def]
    """For each span the index of the first span with the same code points, which is its id."""
    starts, ends = spans
    slots = np.zeros(_capacity(len(starts)), np.int32)
    mask = len(slots) - 1
    hashes, firsts = np.empty(len(starts), np.uint64), np.empty(len(starts), np.int32)
    for span in range(len(starts)):
        start, end = starts[span], ends[span]
        key = hashes[span] = _hash(codes, start, end, multiplier)
        slot = np.int64(key) & mask
        firsts[span] = span
        while slots[slot]:
            other = slots[slot] - 1
            if hashes[other] == key and _same(codes, starts[other], ends[other], start, end):
                firsts[span] = other
                break
            slot = (slot + 1) & mask
        if firsts[span] == span:
            slots[slot] = span + 1
    return firsts


@_compiled
def _capacity(count):  # type: ignore[no-untyped-def]
    """A power of two, at least twice `count`."""
    capacity = 16
    while capacity < 2 * count:
        capacity *= 2
    return capacity


@_compiled
def _hash(codes, start, end, multiplier):  # type: ignore[no-untyped-def]
    """Two code points a step; the shift brings the product's well mixed upper half down."""
    key = np.uint64(end - start)
    for i in range(start, end - 1, 2):
        key = (key ^ np.uint64(codes[i]) ^ np.uint64(codes[i + 1]) << np.uint64(32)) * multiplier
        key ^= key >> np.uint64(32)
    if (end - start) & 1:
        key = (key ^ np.uint64(codes[end - 1])) * multiplier
        key ^= key >> np.uint64(32)
    return key


@_compiled
def _same(codes, start, end, other_start, other_end):  # type: ignore[no-untyped-def]
    if end - start != other_end - other_start:
        return False
    for offset in range(end - start):
        if codes[start + offset] != codes[other_start + offset]:
            return False
    return True


@_compiled
def _repeats(codes, spans, multiplier):  # type: ignore[no-untyped-def]
    """How many spans repeat an earlier one, and their code points."""
    count = length = 0
    firsts = _firsts(codes, spans, multiplier)
    for span in range(len(firsts)):
        if firsts[span] != span:
            count += 1
            length += spans[1][span] - spans[0][span]
    return count, length


@_compiled
def _count_repetition(words, firsts, multiplier, counts):  # type: ignore[no-untyped-def]
    """Most frequent 2..4-grams and repeated 5..10-grams, in code points (Gopher, as datatrove counts).

    An n-gram can repeat only where the (n-1)-grams that begin at its first and second word do, so each
    round looks at what the round before it left: in prose little is left after 4.
    """
    count = len(firsts)
    before = np.zeros(count + 1, np.int64)
    for word in range(count):
        before[word + 1] = before[word] + words[1][word] - words[0][word]
    grams = firsts.copy()
    keys, frequency = np.empty(count, np.uint64), np.zeros(count, np.int32)
    for word in range(count):
        frequency[firsts[word]] += 1
    repeated = np.zeros(count + 1, np.bool_)
    for word in range(count):
        repeated[word] = frequency[firsts[word]] > 1
    places = np.arange(count).astype(np.int32)
    for n in range(2, _LONGEST_GRAM + 1):
        places = _places_left(places, repeated, count - n + 1)
        _number_grams(places, n, grams, keys, firsts, frequency, repeated, multiplier)
        if n <= 4:
            counts[_TOP_2GRAM + n - 2] = _top_length(places, n, grams, frequency, before)
        else:
            counts[_DUPLICATE_5GRAM + n - 5] = _duplicate_length(places, n, grams, repeated, before)


@_compiled
def _places_left(places, repeated, limit):  # type: ignore[no-untyped-def]
    """Places below `limit` where this gram and the next are repeated; at all others `repeated` ends up False."""
    left = np.empty(len(places), np.int32)
    count = 0
    for place in places:
        if place < limit and repeated[place] and repeated[place + 1]:
            left[count] = place
            count += 1
    for place in places:
        repeated[place] = False
    return left[:count]


@_compiled
def _number_grams(places, n, grams, keys, firsts, frequency, repeated, multiplier):  # type: ignore[no-untyped-def]
    """grams[place]: the first place with the same n-gram, from the id of its first n - 1 words and its last word."""
    slots = np.zeros(_capacity(len(places)), np.int32)
    mask = len(slots) - 1
    for place in places:
        frequency[place] = 0
    for place in places:
        key = keys[place] = np.uint64(grams[place]) << np.uint64(32) | np.uint64(firsts[place + n - 1])
        mixed = key * multiplier
        slot = np.int64(mixed ^ mixed >> np.uint64(32)) & mask
        while slots[slot] and keys[slots[slot] - 1] != key:
            slot = (slot + 1) & mask
        if not slots[slot]:
            slots[slot] = place + 1
        grams[place] = slots[slot] - 1
        frequency[grams[place]] += 1
    for place in places:
        repeated[place] = frequency[grams[place]] > 1


@_compiled
def _top_length(places, n, grams, frequency, before):  # type: ignore[no-untyped-def]
    """Code points of the most frequent n-gram (the first of equals) times its count; 0 if none repeats."""
    best, most = 0, 1
    for place in places:
        if frequency[grams[place]] > most:
            best, most = place, frequency[grams[place]]
    return (before[best + n] - before[best] + n - 1) * most if most > 1 else 0


@_compiled
def _duplicate_length(places, n, grams, repeated, before):  # type: ignore[no-untyped-def]
    """Code points of n-grams seen before, read left to right, a repeated one being skipped over."""
    seen = np.zeros(len(before), np.bool_)
    length = following = 0
    for place in places:
        if repeated[place] and place >= following:
            if seen[grams[place]]:
                length += before[place + n] - before[place]
                following = place + n
            seen[grams[place]] = True
    return length
