"""Features against slow, obvious references."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.features import FEATURES
from data_pipeline.measuring import lexicons
from data_pipeline.measuring.features import MODEL_FEATURES, TEXT_FEATURES, features
from data_pipeline.reading import characters

words = st.lists(st.sampled_from(["가", "나다", "the", "cat", "sat.", "12", "…", "#", "ㅋㅋ", "x"]), max_size=120)
texts = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="가나다라ab ,.?!\n\n#…ㅋ•\ud800\x00☆", max_size=300),
    st.builds(lambda items, gaps: "".join(map("".join, zip(items, gaps * len(items), strict=False))), words,
              st.lists(st.sampled_from([" ", "\n", "\n\n", "  "]), min_size=1, max_size=7)),
)  # fmt: skip
languages = st.sampled_from(["ko", "en", "other", "code"])


# --- the reference -----------------------------------------------------------------------------


def top_n_gram(text: str, n: int) -> float:
    parts = text.split()
    grams = [" ".join(parts[i : i + n]) for i in range(len(parts) - n + 1)]
    if not grams:
        return 0.0
    gram, count = Counter(grams).most_common(1)[0]
    return min(1.0, len(gram) * count / len(text)) if count > 1 else 0.0


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
    return length / len(text) if text else 0.0


def reference(text: str) -> dict[str, float]:
    parts = text.split()
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    visible = [c for c in text if not c.isspace()]
    is_letter = lambda c: unicodedata.category(c)[0] in "LM"  # noqa: E731
    seen: set[str] = set()
    repeated = [line for line in lines if line in seen or seen.add(line)]  # type: ignore[func-returns-value]
    share = lambda part, whole: part / whole if whole else 0.0  # noqa: E731
    return {
        "characters": len(text),
        "words": len(parts),
        "sentences": len(re.findall(r"[.?!…。！？](?=[\"'”’»」』)）]|\s|\Z)", text)),
        "mean_word_length": share(len("".join(parts)), len(parts)),
        "letter_word_share": share(sum(any(map(is_letter, word)) for word in parts), len(parts)),
        "hash_per_word": share(text.count("#"), len(parts)),
        "ellipsis_per_word": share(text.count("...") + text.count("…"), len(parts)),
        "bullet_line_share": share(sum(line[0] in lexicons.BULLETS for line in lines), len(lines)),
        "ellipsis_line_share": share(sum(line.endswith(("...", "…")) for line in lines), len(lines)),
        "short_line_share": share(sum(len(line) <= 30 for line in lines), len(lines)),
        "line_breaks_per_word": share(text.count("\n"), len(parts)),
        "duplicate_line_share": share(len(repeated), len(lines)),
        "duplicate_line_char_share": share(len("".join(repeated)), len(text)),
        **{f"top_{n}gram_char_share": top_n_gram(text, n) for n in (2, 3, 4)},
        **{f"duplicate_{n}gram_char_share": duplicate_n_gram(text, n) for n in (5, 10)},
        "hangul_share": share(sum("가" <= c <= "힣" for c in visible), len(visible)),
        "lone_jamo_share": share(sum(is_jamo(c) for c in visible), len(visible)),
        "symbol_share": share(sum(unicodedata.category(c)[0] not in "LMNP" for c in visible), len(text)),
    }


def is_jamo(c: str) -> bool:
    return "ㄱ" <= c <= "ㆎ" or "\u1100" <= c <= "\u11ff" or "\ua960" <= c <= "\ua97f" or "\ud7b0" <= c <= "\ud7ff"


# --- tests -------------------------------------------------------------------------------------


def test_names_are_those_of_the_foundation():
    assert set(features("x", "en")) == set(TEXT_FEATURES)
    assert {*TEXT_FEATURES, *MODEL_FEATURES} == set(FEATURES)


@given(texts)
def test_equals_the_reference(text):
    found = features(text, "en")
    for name, expected in reference(text).items():
        assert found[name] == pytest.approx(expected, abs=1e-12), name


@given(texts, languages)
def test_finite_and_shares_within_one(text, language):
    for name, value in features(text, language).items():
        assert math.isfinite(value)
        assert value >= 0
        if name.endswith("_share"):
            assert value <= 1, name


def test_empty_text_has_nothing():
    assert set(features("", "ko").values()) == {0.0}


@given(st.text(max_size=200))
def test_words_by_flags_are_words_by_split(text):
    flags = characters.flags_of(text)
    assert [bool(flag & characters.SPACE) for flag in flags] == [c.isspace() for c in text]


@pytest.mark.parametrize(("name", "language", "text", "expected"), [
    ("stop_words", "en", "The cat, and THE dog (of that) house", 4),
    ("stop_words", "ko", "학교에서 친구를 만났다. 밥은 맛있었다", 5),
    ("stop_words", "ko", "서울 부산 대구 광주 대전", 0),
    ("stop_words", "other", "the be to of", 0),
    ("punctuated_line_share", "ko", "제목\n문장을 썼어요\n끝났습니다\n정말?", 0.75),
    ("punctuated_line_share", "en", "제목\n문장을 썼어요\n끝났습니다\n정말?", 0.25),
    ("duplicate_paragraph_share", "en", "a\n\nb\n\n\na\n\nc", 0.25),
    ("spam_terms_per_1000_words", "en", "Casino JACKPOTS for the specialist", 400),
    ("spam_terms_per_1000_words", "ko", "온라인카지노추천 바카라사이트 안내", 2000 / 3),
    ("broken_character_share", "en", "ab�\x81", 0.5),
    ("broken_character_share", "en", "cafÃ© ok ", 2 / 9),
    ("broken_character_share", "ko", "뚯꽕", 1),
    ("broken_character_share", "ko", "똠양꿍 大韓民國 설렁탕", 0),
    ("lone_jamo_share", "ko", "웃겨 ㅋㅋ", 0.5),
    ("top_2gram_char_share", "en", "a b c d e f", 0),
])  # fmt: skip
def test_hand_counted(name, language, text, expected):
    assert features(text, language)[name] == pytest.approx(expected)
