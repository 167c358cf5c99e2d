"""Features and the compiled kernel against slow, obvious references: equal, not nearly equal."""

from __future__ import annotations

import math
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.common import records
from configs.features import COUNTS, FEATURES
from data_pipeline.features import counts as kernel
from data_pipeline.features import formulas as measuring
from data_pipeline.features import repetition, terms
from data_pipeline.features.formulas import MODEL_FEATURES, TEXT_FEATURES, counts_of, features, features_of
from data_pipeline.readers import characters
from tests.data_pipeline.features_reference import reference

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
