"""Features and the compiled kernel against slow, obvious references: equal, not nearly equal."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from itertools import groupby

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.common import records
from configs.features import COUNTS, FEATURES
from data_pipeline.features import counts as kernel
from data_pipeline.features import formulas as measuring
from data_pipeline.features import lexicons, repetition, terms
from data_pipeline.features.formulas import MODEL_FEATURES, TEXT_FEATURES, counts_of, features, features_of
from data_pipeline.readers import characters
from data_pipeline.readers.normalize import mojibake_pairs

PIECES = [
    *("가", "나다", "the", "The.", "cat", "sat.", "12", "…", "...", "#"),
    *("ㅋㅋ", "ㅋ", "x", "(of)", "{", "☆", "😀", "大"),
    *("http://a.kr", "www.b.kr", "했다.", "\ud800", "\x00", "\u1112\u1161", "Ã©", "°¡³ª", "뚯", "꽕", "\x85", "_"),
    *("--", "well-to-do", "and/or", "it's", "(it’s)", "'tis", "1-a", "a--b", '"', "x)).", "{a}", "e.g."),
    *("casino", "Casinos", "casinoss", "100% FREE", "카지노", "카톡", "문의", "Lorem", "ipsum", "use", "cookies", "s"),
]
GAPS = [" ", " ", " ", "\n", "\n\n", "\n \n", "  ", "\t", ". ", ".\n", "", "\u3000"]
words = st.lists(st.sampled_from(PIECES), max_size=120)


def joined(items: list[str], gaps: list[str]) -> str:
    return "".join(map("".join, zip(items, gaps * len(items), strict=False)))


texts = st.one_of(
    st.text(max_size=300),
    st.text(alphabet=st.characters(codec="utf-8", max_codepoint=0xFF), max_size=200),
    st.text(alphabet="가나다라ab ,.?!\n\n#…ㅋ•\ud800\x00☆", max_size=300),
    st.builds(joined, words, st.lists(st.sampled_from(GAPS), min_size=1, max_size=7)),
)
languages = st.sampled_from(["ko", "en", "other", "code"])

HOSTILE = {
    "nothing": "",
    "one letter": "a",
    "one space": " ",
    "lone surrogates": "\ud800\udfff \udc00" * 40,
    "nul bytes": "\x00 \x00\x00\n" * 40,
    "no spaces": "가나다라" * 75_000,
    "one letter, repeated": "a " * 20_000,
    "decomposed": unicodedata.normalize("NFD", "한글을 분해한 문장이다. " * 30),
    "line feeds": "\n" * 5_000,
    "full stops": "." * 5_000,
    "beyond the basic plane": "😀👩‍👩‍👧‍👦 𝔘𝔫𝔦 " * 40,
    "mojibake": "í•œêµ­ì–´ÇÑ±¹¾î" * 20,
    "terms, run together": "casinocasino casinos" + "카지노토토" * 30,
}


# --- the reference -----------------------------------------------------------------------------


def share(part: float, whole: float) -> float:
    return min(1.0, part / whole) if whole else 0.0


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def top_n_gram(text: str, n: int) -> float:
    parts = text.split()
    grams = [" ".join(parts[i : i + n]) for i in range(len(parts) - n + 1)]
    if not grams:
        return 0.0
    gram, count = Counter(grams).most_common(1)[0]
    return share(len(gram) * count, len(text)) if count > 1 else 0.0


def duplicate_n_gram(text: str, n: int) -> float:
    parts = text.split()
    seen: set[tuple[str, ...]] = set()
    length = start = 0
    while start < len(parts) - n + 1:
        gram = tuple(parts[start : start + n])
        if gram in seen:
            length += len("".join(gram))
            start += n
        else:
            seen.add(gram)
            start += 1
    return share(length, len(text))


def repeated(parts: list[str]) -> list[str]:
    seen: set[str] = set()
    return [part for part in parts if part in seen or seen.add(part)]  # type: ignore[func-returns-value]


def sentence_ends(text: str) -> int:
    return len(re.findall(r"[.?!…。！？](?=[\"'”’»」』)）]|\s|\Z)", text))


def stop_words(parts: list[str], language: str) -> int:
    edges = "".join(lexicons.EDGE_PUNCTUATION)
    if language == "en":
        folded = {"".join(c.lower() if c.isascii() else c for c in part.strip(edges)) for part in parts}
        return len(lexicons.EN_STOP_WORDS & folded)
    bare = {part.rstrip(edges) for part in parts} if language == "ko" else set()
    return sum(any(part.endswith(ending) and len(part) > 1 for part in bare) for ending in lexicons.KO_ENDINGS)


KO_SPAM = re.compile("|".join(map(re.escape, lexicons.KO_SPAM_TERMS)))
EN_SPAM = re.compile(rf"\b(?:{'|'.join(map(re.escape, lexicons.EN_SPAM_TERMS))})s?\b", re.ASCII | re.IGNORECASE)
LOREM_IPSUM = re.compile(r"\blorem ipsum", re.ASCII | re.IGNORECASE)
NOTICE = re.compile("|".join(rf"\b{term}" if term.isascii() else term for term in lexicons.NOTICES), re.ASCII | re.I)


def is_prose(line: str, ends: tuple[str, ...]) -> bool:
    parts = line.split()
    plain = (
        line.endswith(ends + lexicons.QUOTE_ENDS) and not line.endswith(lexicons.ELLIPSES) and not NOTICE.search(line)
    )
    return plain and len(parts) >= 3 and max(map(len, parts)) <= 1000


def holds_function_word(word: str, language: str) -> bool:
    edges = "".join(lexicons.EDGE_PUNCTUATION)
    if language == "en":
        return "".join(c.lower() if c.isascii() else c for c in word.strip(edges)) in lexicons.EN_STOP_WORDS
    bare = word.rstrip(edges)
    return language == "ko" and len(bare) > 1 and bare.endswith(tuple(lexicons.KO_ENDINGS))


def is_running(line: str, language: str, ends: tuple[str, ...]) -> bool:
    parts = line.split()
    if max(map(len, parts), default=0) > 1000:
        return False
    fewest, every, long_line = (2, 6, 5) if language == "ko" else (3, 8, 7)
    if len(parts) >= fewest and line.endswith(ends + lexicons.QUOTE_ENDS) and not line.endswith(lexicons.ELLIPSES):
        return True
    functional = sum(holds_function_word(part, language) for part in parts)
    return functional * every >= len(parts) and functional >= (1 if len(parts) >= long_line else 2)


def is_menu(line: str, language: str, ends: tuple[str, ...]) -> bool:
    digits = any(unicodedata.category(c)[0] == "N" or c in lexicons.CODE_SIGNS for c in line)
    return has_letter(line) and len(line) > 4 and not digits and not is_running(line, language, ends)


def tokens(word: str) -> list[str]:
    """Marks at the edges, one by one or runs of . or -; then the rest, cut at what joins letters."""

    def kind(c: str) -> str:
        category = unicodedata.category(c)[0]
        return "a" if category in "LM" else "0" if category == "N" else c if c in ".-" else "#"

    kinds = "".join(map(kind, word))
    bare = re.match(r"[^a0]*", kinds)
    start = bare.end() if bare else 0
    end = len(kinds) if start == len(kinds) else max(kinds.rfind("a"), kinds.rfind("0")) + 1
    marks = [run for edge in (kinds[:start], kinds[end:]) for run in re.findall(r"\.+|-+|#", edge)]
    core = word[start:end]
    cuts = [i for i in range(1, len(core) - 1) if kinds[start + i - 1] == kinds[start + i + 1] == "a"]
    for i in reversed(cuts):
        if core[i] in "-/–—":
            core = f"{core[:i]} {core[i]} {core[i + 1 :]}"
        elif core[i] in "'’":
            core = f"{core[:i]} {core[i:]}"
    return marks + core.split(" ") * bool(core)


def has_letter(token: str) -> bool:
    return any(unicodedata.category(c)[0] in "LM" for c in token)


def misread_syllables(text: str) -> int:
    def rare(c: str) -> bool:
        try:
            return "가" <= c <= "힣" and len(c.encode("euc-kr")) != 2
        except UnicodeEncodeError:
            return True

    odd = [rare(c) or flag for c, flag in zip(text, characters.flags_of(text) & characters.HAN > 0, strict=True)]
    near = zip([False, *odd], [*odd[1:], False], strict=False)
    return sum(rare(c) and (before or after) for c, (before, after) in zip(text, near, strict=False))


def reference(text: str, language: str) -> dict[str, float]:
    parts = text.split()
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs = re.split(r"\n{2,}", text.strip()) if text.strip() else []
    visible = [c for c in text if not c.isspace()]
    category = {c: unicodedata.category(c) for c in text}
    letters = [c for c in text if category[c][0] in "LM"]
    flags = dict(zip(text, characters.flags_of(text).tolist(), strict=True))
    jamo_runs = re.findall("[ㄱ-ㆎ\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff]+", text)
    ends = lexicons.KO_LINE_ENDS if language == "ko" else lexicons.LINE_ENDS
    urls = [part for part in parts if "://" in part or "www." in part]
    pieces = [token for part in parts for token in tokens(part)]
    prose = [line for line in lines if is_prose(line, ends)]
    running = [line for line in lines if is_running(line, language, ends)]
    rows = [list(row) for bare, row in groupby(lines, lambda line: is_menu(line, language, ends)) if bare]
    menu = [line for row in rows if len(row) >= 4 for line in row]
    hangul = sum("가" <= c <= "힣" for c in visible)
    korean_lines = [line for line in lines if line in running or any("가" <= c <= "힣" for c in line)]
    broken = sum(c == "\ufffd" or "\x80" <= c <= "\x9f" for c in text) + mojibake_pairs(text) + misread_syllables(text)
    spam = len(KO_SPAM.findall(text)) + len(EN_SPAM.findall(text))
    return {
        "characters": len(text),
        "words": len(parts),
        "lines": len(lines),
        "paragraphs": len(paragraphs),
        "sentences": sentence_ends(text),
        "mean_word_length": ratio(len("".join(parts)), len(parts)),
        "longest_word": max(map(len, parts), default=0),
        "longest_line": max(map(len, lines), default=0),
        "stop_words": stop_words(parts, language),
        "alpha_word_ratio": share(sum(map(has_letter, parts)), len(parts)),
        "alpha_token_ratio": share(sum(map(has_letter, pieces)), len(pieces)),
        "hash_to_word_ratio": ratio(text.count("#"), len(parts)),
        "ellipsis_to_word_ratio": ratio(text.count("...") + text.count("…"), len(parts)),
        "bullet_line_frac": share(sum(line[0] in lexicons.BULLETS for line in lines), len(lines)),
        "ellipsis_line_frac": share(sum(line.endswith(lexicons.ELLIPSES) for line in lines), max(10, len(lines))),
        "punctuated_line_frac": share(sum(line.endswith(ends) for line in lines), len(lines)),
        "short_line_frac": share(sum(len(line) <= 30 for line in lines), len(lines)),
        "notice_line_frac": share(sum(bool(NOTICE.search(line)) for line in lines), len(lines)),
        "prose_sentences": sum(max(1, sentence_ends(line)) for line in prose),
        "running_text_frac": share(len("".join(running)), len(text)),
        "menu_char_frac": share(len("".join(menu)), len(text)),
        "menu_line_frac": share(len(menu), len(lines)),
        "letters_per_word": ratio(len(letters), sum(map(has_letter, parts))),
        "syllables_per_word": ratio(hangul, sum(any("가" <= c <= "힣" for c in part) for part in parts)),
        "new_line_ratio": ratio(text.count("\n"), len(parts)),
        "dup_line_frac": share(len(repeated(lines)), len(lines)),
        "dup_line_char_frac": share(len("".join(repeated(lines))), len(text)),
        "dup_para_frac": share(len(repeated(paragraphs)), len(paragraphs)),
        "dup_para_char_frac": share(len("".join(repeated(paragraphs))), len(text)),
        **{f"top_{n}gram_char_frac": top_n_gram(text, n) for n in (2, 3, 4)},
        **{f"dup_{n}gram_char_frac": duplicate_n_gram(text, n) for n in range(5, 11)},
        "hangul_frac": share(hangul, len("".join("".join(korean_lines).split()))),
        "latin_frac": share(sum(flags[c] & characters.LATIN > 0 for c in visible), len(visible)),
        "han_frac": share(sum(flags[c] & characters.HAN > 0 for c in visible), len(visible)),
        "digit_frac": share(sum(category[c][0] == "N" for c in visible), len(visible)),
        "punctuation_frac": share(sum(category[c][0] == "P" for c in visible), len(visible)),
        "uppercase_frac": share(sum(category[c] in ("Lu", "Lt") for c in letters), len(letters)),
        "lone_jamo_frac": share(len("".join(jamo_runs)), len(visible)),
        "jamo_run_frac": share(len("".join(run for run in jamo_runs if len(run) >= 3)), len(visible)),
        "emoji_frac": share(len(re.findall("[\u2600-\u27bf\U0001f000-\U0001faff]", text)), len(visible)),
        "symbol_frac": share(sum(category[c][0] not in "LMNP" for c in visible), len(text)),
        "broken_character_frac": share(broken, len(text)),
        "url_char_frac": share(len("".join(urls)), len(visible)),
        "curly_brackets": "".join(prose).count("{"),
        "lorem_ipsum": len(LOREM_IPSUM.findall(text)),
        "spam_terms_per_1000_words": ratio(1000 * spam, len(parts)),
    }


# --- tests -------------------------------------------------------------------------------------


def test_names_are_those_of_the_registry():
    assert tuple(features("x", "en")) == TEXT_FEATURES == tuple(reference("x", "en"))
    assert (*TEXT_FEATURES, *MODEL_FEATURES) == tuple(FEATURES)
    assert MODEL_FEATURES == ("language_score", "quality_score", "toxicity_score")


def test_the_kernel_fills_every_count():
    """A count that only the registry knows would be 0 in every text."""
    counts = counts_of([EVERYTHING], ["en"])[0]
    assert {name for name, count in zip(COUNTS, counts.tolist(), strict=True) if not count} == set()


EVERYTHING = """- A cat sat on the mat with {a} dog and that was that.
- A cat sat on the mat with {a} dog and that was that.
Lorem ipsum at https://a.kr # 1 casino...
We use cookies here.

가나 大 ㅋㅋㅋ 😀 + \ufffd

About
Contact
Sign in
Help us

Twice.

Twice."""


@given(texts, languages)
@example("\x00the and", "en")  # packed letters must not be shifted out by a NUL
@example("casinos, casino's casinoss", "en")
def test_equals_the_reference(text, language):
    assert features(text, language) == reference(text, language)


@pytest.mark.parametrize("name", HOSTILE)
def test_equals_the_reference_on_hostile_text(name):
    assert features(HOSTILE[name], "ko") == reference(HOSTILE[name], "ko")


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("folder", "language"),
    [
        ("general/ko-text/nsmc-review-pages", "ko"),
        ("general/ko-text/ms-cpp-docs-ko", "ko"),
        ("general/en-text/enwiki", "en"),
        ("general/en-text/peps", "en"),
        ("domain/math/stacks-project", "en"),
        ("domain/code/lodash-js", "code"),
    ],
)
def test_equals_the_reference_on_the_corpus(folder, language, corpus_dir):
    found = [record["text"] for record in records(corpus_dir / folder, 400_000)]
    columns = features_of(found, [language] * len(found))
    for row, text in enumerate(found):
        assert {name: column[row] for name, column in columns.items()} == reference(text, language)


@given(st.lists(st.tuples(texts, languages), max_size=6))
def test_a_batch_is_its_documents(documents):
    columns = features_of([text for text, _ in documents], [language for _, language in documents])
    for row, (text, language) in enumerate(documents):
        assert {name: column[row] for name, column in columns.items()} == features(text, language)


def test_long_batches_are_cut_between_documents(monkeypatch):
    monkeypatch.setattr(measuring, "_BATCH", 10)
    found = ["a b", "c d e f g h i j", "", "k", "l m n"]
    assert features_of(found, ["en"] * 5)["words"].tolist() == [2, 8, 0, 1, 3]


@given(texts, languages, st.sampled_from([0, 1, 2**63, 2**64 - 1, 0x9E3779B97F4A7C15]))
def test_the_hash_decides_nothing(text, language, multiplier):
    """With the factor 0 all spans and all n-grams collide."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "_multiplier", lambda: np.uint64(multiplier))
        found = features(text, language)
    assert found == features(text, language)


@given(texts, languages)
def test_finite_and_shares_within_one(text, language):
    for name, value in features(text, language).items():
        assert math.isfinite(value)
        assert value >= 0
        if name.endswith("_frac") or name.startswith("alpha_"):
            assert value <= 1, name


def test_empty_text_has_nothing():
    assert set(features("", "ko").values()) == {0.0}
    assert features_of([], [])["words"].tolist() == []


@given(st.text(max_size=200))
def test_words_by_flags_are_words_by_split(text):
    flags = characters.flags_of(text)
    assert [bool(flag & characters.SPACE) for flag in flags] == [c.isspace() for c in text]


def spans(*pairs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    starts, ends = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(starts, dtype=np.int32), np.array(ends, dtype=np.int32)


def test_given_spans_are_counted_as_given():
    """Words that punctuation splits, lines with their spaces, an empty line: as another tokenizer cuts them."""
    text = "a, b, \n\na, b, "
    counts = np.zeros(len(COUNTS), dtype=np.int64)
    words = spans((0, 1), (1, 2), (3, 4), (4, 5), (8, 9), (9, 10), (11, 12), (12, 13))
    lines, paragraphs = spans((0, 6), (7, 7), (8, 14)), spans((0, 6), (8, 14))
    codes = characters.codes_of(text)
    kernel.count_spans(codes, words, lines, paragraphs, kernel.OTHER, terms.lexicon(), np.uint64(3), counts)
    found = dict(zip(COUNTS, counts.tolist(), strict=True))
    assert (found["words"], found["lines"], found["repeated_lines"], found["repeated_line_characters"]) == (8, 3, 1, 6)
    assert (found["top_2gram"], found["repeated_paragraphs"], found["short_lines"]) == (6, 1, 3)


@pytest.mark.parametrize(
    ("name", "language", "text", "expected"),
    [
        ("stop_words", "en", "The cat, and THE dog (of that) house", 4),
        ("stop_words", "ko", "학교에서 친구를 만났다. 밥은 맛있었다", 5),
        ("stop_words", "ko", "서울 부산 대구 광주 대전", 0),
        ("stop_words", "other", "the be to of", 0),
        ("punctuated_line_frac", "ko", "제목\n문장을 썼어요\n끝났습니다\n정말?", 0.75),
        ("punctuated_line_frac", "en", "제목\n문장을 썼어요\n끝났습니다\n정말?", 0.25),
        ("prose_sentences", "en", 'Title.\nOne is here. Two is here.\nWe use cookies here.\n"So it is"', 3),
        ("dup_para_frac", "en", "a\n\nb\n\n\na\n\nc", 0.25),
        ("spam_terms_per_1000_words", "en", "Casino JACKPOTS for the specialist", 400),
        ("spam_terms_per_1000_words", "ko", "온라인카지노추천 바카라사이트 안내", 2000 / 3),
        ("spam_terms_per_1000_words", "ko", "casino에서", 1000),
        ("broken_character_frac", "en", "ab\ufffd\x81", 0.5),
        ("broken_character_frac", "en", "caf\u00c3\u00a9 ok ", 2 / 9),
        ("broken_character_frac", "ko", "뚯꽕", 1),
        ("broken_character_frac", "ko", "똠양꿍 大韓民國 설렁탕", 0),
        ("lone_jamo_frac", "ko", "웃겨 ㅋㅋ", 0.5),
        ("jamo_run_frac", "ko", "ㅋㅋ ㅋㅋㅎㅎ", 4 / 6),
        ("alpha_token_ratio", "en", '"It\'s a well-known (x)..." 1', 6 / 13),
        ("curly_brackets", "en", "if {x} {\nIt is {so}.", 1),
        ("url_char_frac", "ko", "주소 (https://a.kr)", 14 / 16),
        ("top_2gram_char_frac", "en", "a b c d e f", 0),
        ("top_2gram_char_frac", "en", "a b a b c", 6 / 9),
        ("dup_5gram_char_frac", "en", "a b c d e a b c d e", 5 / 19),
    ],
)
def test_hand_counted(name, language, text, expected):
    assert features(text, language)[name] == pytest.approx(expected)


def test_n_grams_are_counted_to_ten():
    assert (repetition.LONGEST_TOP, repetition.LONGEST_GRAM) == (4, 10)
    assert {f"dup_{n}gram_char_frac" for n in range(5, 11)} < set(FEATURES)
