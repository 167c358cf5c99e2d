"""Given datatrove's words the kernel gives datatrove's verdict and reason; the benchmark's figures are there."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("spacy", reason="datatrove's stock filters split English with spaCy")

from benchmarks import rules, stock_rules
from configs.data_schema import RuleProfiles

PROSE = (
    "The harbour was built of stone in the spring, and people have walked to it ever since. "
    "It has two lamps of iron. That is what visitors come to see! Do they stay? They do, with pleasure. "
)


def unique(count: int) -> list[str]:
    """Words of five letters, none twice, the last three of them stop words."""
    letters = random.Random(0).sample(range(26**4), count - 3)
    words = ["b" + "".join(chr(97 + number // 26**i % 26) for i in range(4)) for number in letters]
    return [*words, "of", "that", "have"]


def lines_of(words: list[str], size: int, start: str = "", end: str = "") -> str:
    return "\n".join(start + " ".join(words[i : i + size]) + end for i in range(0, len(words), size))


TEXTS = {
    "gopher_short_doc": PROSE,
    "dup_para_frac": "\n\n".join([PROSE] * 3),
    "dup_line_frac": "\n".join([lines_of(unique(60), 30), *["Read it."] * 4]),
    "top_2_gram": "the cat " * 60,
    "duplicated_5_n_grams": " ".join([*unique(60), *unique(60)[:20]]),
    "gopher_below_avg_threshold": " ".join(word[:2] for word in unique(90)) + " of that have",
    "gopher_above_avg_threshold": " ".join(word * 3 for word in unique(90)) + " of that have",
    "gopher_too_many_hashes": lines_of(unique(60), 3, start="#"),
    "gopher_too_many_ellipsis": " ".join(f"{word}…" if i % 5 == 0 else word for i, word in enumerate(unique(90))),
    "gopher_too_many_bullets": lines_of(unique(90), 9, start="• "),
    "gopher_too_many_end_ellipsis": lines_of(unique(120), 20, end="..."),
    "gopher_below_alpha_threshold": " ".join(f"{word} {i * 7919 + 1000}" for i, word in enumerate(unique(90))),
    "gopher_enough_stop_words": " ".join(unique(90)[:-3]),
    "line_punct_ratio": lines_of(unique(120), 20),
    "short_line_ratio": lines_of(unique(120), 4, end="."),
    "char_dup_ratio": "\n".join([lines_of(unique(120), 20, end="."), *[" ".join(unique(60)[:4]) + "."] * 2]),
    "too_few_sentences": lines_of(unique(90), 30, end="."),
    "curly_bracket": lines_of(unique(90), 30, end=" {x}."),
    "lorem_ipsum": lines_of(unique(90), 30, end=" lorem ipsum."),
}


@pytest.fixture(scope="module")
def stock() -> stock_rules.Stock:
    return stock_rules.Stock()


@pytest.mark.parametrize("reason", TEXTS)
def test_a_planted_text_has_its_reason_by_both(reason, stock):
    assert (stock.reason(TEXTS[reason]), stock.reason_by_kernel(TEXTS[reason])) == (reason, reason)


PIECES = ["The ", "cat ", "sat. ", '"so" ', "it's ", "\n", "\n\n", " \n", "• ", "-", "... ", "…\n", "{x} ", "[1] ",
          "# ", "lorem ipsum ", "JavaScript. ", "use cookies. ", "가나다 ", "12 ", "That have? ", PROSE]  # fmt: skip


@settings(max_examples=40)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=150).map("".join))
def test_any_text_has_the_same_reason_by_both(stock, text):
    assert stock.reason_by_kernel(text) == stock.reason(text)


def test_thresholds_are_those_of_the_stock_filters(stock):
    bounds = rules.THRESHOLDS
    assert {n: bounds[f"top_{n}gram_char_frac"]["max"] for n in (2, 3, 4)} == dict(stock.repetition.top_n_grams)
    assert {n: bounds[f"dup_{n}gram_char_frac"]["max"] for n in range(5, 11)} == dict(stock.repetition.dup_n_grams)
    assert bounds["words"] == {"min": stock.quality.min_doc_words, "max": stock.quality.max_doc_words}
    assert bounds["punctuated_line_frac"]["min"] == stock.fineweb.line_punct_thr
    assert bounds["dup_line_char_frac"]["max"] == stock.fineweb.char_duplicates_ratio
    assert bounds["prose_sentences"]["min"] == stock.c4.min_num_sentences


def test_agreement_counts_verdicts_and_reasons(stock):
    profiles = RuleProfiles.model_validate({"ko": {}, "en": rules.THRESHOLDS, "code": {}})
    found = rules.agreement([PROSE, TEXTS["top_2_gram"]], stock, profiles)
    assert (found["same_verdict_share"], found["same_reason_share"]) == (1.0, 1.0)
    assert found["reasons"] == {"gopher_short_doc": 1, "top_2_gram": 1}


def test_split_words_is_undone(stock):
    with stock_rules.split_words():
        assert stock.reason("cat, " * 60) == "top_2_gram"
    assert stock.reason_by_kernel(TEXTS["top_2_gram"]) == stock.reason(TEXTS["top_2_gram"])
