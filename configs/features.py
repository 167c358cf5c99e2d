"""The features that rules may bound: one name, one meaning, shared by schema, scorer and report.

`data_pipeline.score` computes each of these once for every document; a rule in a recipe is a bound
on one of them (`words: {min: 50, max: 100_000}`), so thresholds change without reading text again.
Shares lie in 0..1. "Words" are runs of non-space characters (eojeols in Korean, not morphemes).
"""

FEATURES: dict[str, str] = {
    "characters": "code points after normalisation",
    "words": "whitespace-separated words",
    "sentences": "sentence ends: . ? ! … 。 followed by space, quote or end of line",
    "mean_word_length": "code points a word",
    "stop_words": "distinct stop words of the document's language",
    "letter_word_share": "words that hold at least one letter",
    "hash_per_word": "# signs a word",
    "ellipsis_per_word": "... or … a word",
    "bullet_line_share": "non-empty lines that begin with a bullet",
    "ellipsis_line_share": "non-empty lines that end with an ellipsis",
    "punctuated_line_share": "non-empty lines that end in terminal punctuation (Korean: or in 다 요 까 죠)",
    "short_line_share": "non-empty lines of at most 30 code points",
    "line_breaks_per_word": "line breaks a word",
    "duplicate_line_share": "non-empty lines that repeat an earlier line",
    "duplicate_line_char_share": "code points in lines that repeat an earlier line",
    "duplicate_paragraph_share": "paragraphs that repeat an earlier paragraph",
    "top_2gram_char_share": "code points in the most frequent word 2-gram",
    "top_3gram_char_share": "code points in the most frequent word 3-gram",
    "top_4gram_char_share": "code points in the most frequent word 4-gram",
    "duplicate_5gram_char_share": "code points in word 5-grams seen before",
    "duplicate_10gram_char_share": "code points in word 10-grams seen before",
    "hangul_share": "Hangul syllables among non-space code points",
    "lone_jamo_share": "lone jamo (ㅋㅋ, ㅠㅠ) among non-space code points",
    "symbol_share": "code points that are neither letter, digit, space nor common punctuation",
    "broken_character_share": "U+FFFD, C1 controls and mojibake pairs among code points",
    "spam_terms_per_1000_words": "gambling, escort and advertising terms for 1,000 words",
    "language_score": "probability of the detected language",
    "quality_score": "quality classifier's probability of `good`; 1 where no classifier is configured",
    "toxicity_score": "toxicity classifier's probability of `toxic`; 0 where no classifier is configured",
}
