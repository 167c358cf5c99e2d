"""The registry of features: the measured properties of a document that a rule may bound.

A recipe's rule is a bound on one feature (`words: {min: 50, max: 100_000}`). The recipe schema, the columns
of the attributes, the formulas, the kernel's counts and the reports all read their names from here.

How to add a rule:

1. Add an entry to `FEATURES` below: name, description, and the counts that it is computed from.
2. If it needs a count that the kernel does not have yet, write that count in data_pipeline/features/counts.py,
   as `counts[AT.my_count] = ...`. The entry alone reserves the column.
3. Bound it under `data.rules` in a recipe. Thresholds alone never cause documents to be read again.
4. Add the slow, obvious computation to `reference` in tests/data_pipeline/test_features.py.

Attributes are rebuilt when names or formulas change. Bump `CODE_VERSION` in data_pipeline/stages/score.py
only if an existing count changes its meaning.

Words are runs of non-space characters (eojeols in Korean, not morphemes), lines are stripped and not empty,
and n-grams are of words. Fractions lie between 0 and 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Feature:
    """The value is `min(limit, scale * count / max(per, least))`, and 0 where `per` is 0."""

    description: str
    count: str | None = None
    """None: a model measures it."""
    per: str = "one"
    """The count `one` is always 1."""
    scale: int = 1
    least: int = 1
    """A share of fewer lines than this says little about a document."""
    limit: float = math.inf


def fraction(description: str, count: str, per: str) -> Feature:
    """At most 1, even where `count` counts overlapping parts twice."""
    return Feature(description, count, per, limit=1.0)


FEATURES: dict[str, Feature] = {
    "characters": Feature("code points after normalization", "characters"),
    "words": Feature("whitespace-separated words", "words"),
    "lines": Feature("non-empty lines", "lines"),
    "paragraphs": Feature("blocks separated by empty lines", "paragraphs"),
    "sentences": Feature("sentence ends: . ? ! … 。 followed by a space, a quote or the end of a line", "sentences"),
    "mean_word_length": Feature("code points per word", "visible", "words"),
    "longest_word": Feature("code points of the longest word", "longest_word"),
    "longest_line": Feature("code points of the longest line", "longest_line"),
    "stop_words": Feature("distinct stop words of the document's language", "stop_words"),
    "alpha_word_ratio": fraction("words with at least one letter", "letter_words", "words"),
    "alpha_token_ratio": fraction(
        "tokens with a letter: words, with the marks at their edges and inner dashes as tokens of their own",
        "letter_tokens",
        "tokens",
    ),
    "hash_to_word_ratio": Feature("# signs per word", "hashes", "words"),
    "ellipsis_to_word_ratio": Feature("... or … per word", "ellipses", "words"),
    "bullet_line_frac": fraction("non-empty lines that begin with a bullet", "bullet_lines", "lines"),
    "ellipsis_line_frac": Feature(
        "lines that end with an ellipsis among 10 non-empty lines or more", "ellipsis_lines", "lines", least=10
    ),
    "punctuated_line_frac": fraction(
        "non-empty lines that end in terminal punctuation (Korean: or in 다 요 까 죠)", "punctuated_lines", "lines"
    ),
    "short_line_frac": fraction("non-empty lines of at most 30 code points", "short_lines", "lines"),
    "notice_line_frac": fraction(
        "non-empty lines that mention javascript, cookies, terms of use or the like (C4)", "notice_lines", "lines"
    ),
    "prose_sentences": Feature(
        "sentences in lines of 3 words or more that end as prose or speech and are not notices (C4)", "prose_sentences"
    ),
    "running_text_frac": fraction(
        "code points in lines of running text: they end as prose or speech and have 3 words or more (Korean: 2), or "
        "every eighth word is a stop word (Korean: every sixth closes with an ending), and two are or the line is long",
        "running_characters",
        "characters",
    ),
    "menu_char_frac": fraction(
        "code points in 4 or more lines of bare words in a row, as menus, tags and names are: not running text, more "
        "than 4 code points, no digit, no sign of code",
        "menu_characters",
        "characters",
    ),
    "menu_line_frac": fraction("non-empty lines of such rows", "menu_lines", "lines"),
    "letters_per_word": Feature("letters per word that holds some", "letters", "letter_words"),
    "syllables_per_word": Feature("Hangul syllables per word that holds some", "hangul", "hangul_words"),
    "new_line_ratio": Feature("line breaks per word", "newlines", "words"),
    "dup_line_frac": fraction("non-empty lines that repeat an earlier line", "repeated_lines", "lines"),
    "dup_line_char_frac": fraction(
        "code points in lines that repeat an earlier line", "repeated_line_characters", "characters"
    ),
    "dup_para_frac": fraction("paragraphs that repeat an earlier paragraph", "repeated_paragraphs", "paragraphs"),
    "dup_para_char_frac": fraction(
        "code points in paragraphs that repeat an earlier paragraph", "repeated_paragraph_characters", "characters"
    ),
    **{
        f"top_{n}gram_char_frac": fraction(
            f"code points in the most frequent word {n}-gram", f"top_{n}gram", "characters"
        )
        for n in range(2, 5)
    },
    **{
        f"dup_{n}gram_char_frac": fraction(
            f"code points in word {n}-grams seen before", f"duplicate_{n}gram", "characters"
        )
        for n in range(5, 11)
    },
    "hangul_frac": fraction(
        "Hangul syllables among non-space code points in lines that hold some or are running text, so not in code",
        "hangul",
        "text_visible",
    ),
    "latin_frac": fraction("Latin letters among non-space code points", "latin", "visible"),
    "han_frac": fraction("Hanja and other Han characters among non-space code points", "han", "visible"),
    "digit_frac": fraction("digits and other numerals among non-space code points", "digits", "visible"),
    "punctuation_frac": fraction("punctuation among non-space code points", "punctuation", "visible"),
    "uppercase_frac": fraction("capitals among letters", "upper", "letters"),
    "lone_jamo_frac": fraction("lone jamo (ㅋㅋ, ㅠㅠ) among non-space code points", "jamo", "visible"),
    "jamo_run_frac": fraction(
        "lone jamo in runs of 3 or more (ㅋㅋㅋ) among non-space code points", "jamo_runs", "visible"
    ),
    "emoji_frac": fraction("emoji and pictographs among non-space code points", "emoji", "visible"),
    "symbol_frac": fraction(
        "code points that are neither letters, digits, spaces nor common punctuation", "symbols", "characters"
    ),
    "broken_character_frac": fraction(
        "U+FFFD, C1 controls and mojibake pairs among code points", "broken", "characters"
    ),
    "url_char_frac": fraction("non-space code points in words with :// or www.", "url_characters", "visible"),
    "curly_brackets": Feature("{ signs in the lines of prose_sentences; C4 allows none", "curly_brackets"),
    "lorem_ipsum": Feature("occurrences of lorem ipsum", "lorem_ipsum"),
    "spam_terms_per_1000_words": Feature(
        "gambling, escort and advertising terms per 1,000 words", "spam_terms", "words", scale=1000
    ),
    "language_score": Feature("probability of the detected language"),
    "quality_score": Feature("quality classifier's probability of `good`; 1 if no classifier is configured"),
    "toxicity_score": Feature("toxicity classifier's probability of `toxic`; 0 if no classifier is configured"),
}

COUNTS = tuple(
    dict.fromkeys(name for feature in FEATURES.values() if feature.count for name in (feature.count, feature.per))
)
"""Every count that a formula names, in order: the columns that the kernel fills."""


def formula_table() -> dict[str, list[object]]:
    """The registry without its descriptions, as JSON: it is part of what identifies attributes."""
    return {
        name: [
            feature.count,
            feature.per,
            feature.scale,
            feature.least,
            None if math.isinf(feature.limit) else feature.limit,
        ]
        for name, feature in FEATURES.items()
    }
