"""Our rule chain against datatrove's stock filters: speed on one core, and agreement of decisions.

Contract: `python -m benchmarks.rules --corpus DIR [--json OUT]`. English documents go through datatrove's
GopherRepetitionFilter, GopherQualityFilter, FineWebQualityFilter and C4QualityFilter with their defaults (spaCy
words), and through our features and rules with the same thresholds (whitespace words). Three results:

- throughput, interleaved in one process on the same documents. datatrove stops at the first filter that fails;
  we compute every feature and apply every rule. Also datatrove with `str.split` words, and Korean with the
  shipped rules.
- `same_verdict_share`: documents that both keep or both drop, each with its own words, without spaces at line
  ends; `same_verdict_share_as_read`: with them (datatrove counts a line of spaces as a line, and "end. " as
  unpunctuated; our lines are stripped).
- `same_reason_share`: documents with the same decision and reason, in both forms, if our kernel gets datatrove's
  words, lines and sentences (benchmarks/stock_rules.py), so that only the counting is compared.
"""

from __future__ import annotations

import operator
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import common, stock_rules
from configs.data_schema import RuleProfiles
from configs.recipe import load_recipe
from data_pipeline.decisions import rules
from data_pipeline.features.formulas import MODEL_FEATURES, features_of

ENGLISH = ("general/en-text", "domain/medicine/medquad", "domain/finance/enwiki-finance", "domain/math/enwiki-math")
KOREAN = ("general/ko-text/kowiki", "general/ko-text/petitions")
_SPACES_AT_LINE_ENDS = re.compile(r"[^\S\n]+\n")
RECIPE = Path(__file__).resolve().parent.parent / "configs" / "smoke.yaml"

THRESHOLDS: dict[str, dict[str, float]] = {
    "words": {"min": 50, "max": 100_000},
    "mean_word_length": {"min": 3, "max": 10},
    "stop_words": {"min": 2},
    "alpha_token_ratio": {"min": 0.8},
    "hash_to_word_ratio": {"max": 0.1},
    "ellipsis_to_word_ratio": {"max": 0.1},
    "bullet_line_frac": {"max": 0.9},
    "ellipsis_line_frac": {"max": 0.3},
    "punctuated_line_frac": {"min": 0.12},
    "short_line_frac": {"max": 0.67},
    "new_line_ratio": {"max": 0.3},
    "dup_line_frac": {"max": 0.3},
    "dup_line_char_frac": {"max": 0.01},
    "dup_para_frac": {"max": 0.3},
    "dup_para_char_frac": {"max": 0.2},
    "top_2gram_char_frac": {"max": 0.2},
    "top_3gram_char_frac": {"max": 0.18},
    "top_4gram_char_frac": {"max": 0.16},
    **{f"dup_{n}gram_char_frac": {"max": (20 - n) / 100} for n in range(5, 11)},
    "prose_sentences": {"min": 5},
    "curly_brackets": {"max": 0},
    "lorem_ipsum": {"max": 0},
}
"""datatrove's defaults on our features; FineWeb's 0.01 of duplicated lines is stricter than Gopher's 0.2."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = common.parser("rules", "Our rules against datatrove's stock filters.")
    options.add_argument("--megabytes", type=float, default=12, help="English text to compare verdicts on")
    options.add_argument("--timed-megabytes", type=float, default=1.5, help="part of it that is timed")
    chosen = options.parse_args(arguments)
    english = _sample(chosen.corpus, ENGLISH, chosen.megabytes)
    timed = _first(english, chosen.timed_megabytes)
    korean = _first(_sample(chosen.corpus, KOREAN, 2 * chosen.timed_megabytes), chosen.timed_megabytes)
    stock = stock_rules.Stock()
    profiles = RuleProfiles.model_validate({"ko": {}, "en": THRESHOLDS, "code": {}})
    shipped = load_recipe(RECIPE).data.rules
    seconds = common.interleaved(
        {
            "ours": lambda: judge(timed, "en", profiles),
            "datatrove": lambda: [stock.reason(text) for text in timed],
            "korean": lambda: judge(korean, "ko", shipped),
        },
        chosen.repetitions,
    )
    with stock_rules.split_words():
        seconds |= common.interleaved({"split": lambda: [stock.reason(text) for text in timed]}, chosen.repetitions)
    speed = {name: _megabytes(korean if name == "korean" else timed) / taken for name, taken in seconds.items()}
    common.report(
        "rules",
        {
            "ours": {"english_mb_per_s": speed["ours"], "korean_mb_per_s": speed["korean"]},
            "peers": {"datatrove_mb_per_s": speed["datatrove"], "datatrove_split_words_mb_per_s": speed["split"]},
            "ratio": speed["ours"] / speed["datatrove"],
            "ratio_to_split_words": speed["ours"] / speed["split"],
            **agreement(english, stock, profiles),
            "documents": len(english),
            "english_mb": _megabytes(english),
            "timed_mb": _megabytes(timed),
            "repetitions": chosen.repetitions,
        },
        chosen.json,
    )


def judge(texts: Sequence[str], language: str, profiles: RuleProfiles) -> list[list[str]]:
    """The rules that each text fails: the whole chain, from text to decisions."""
    languages = [language] * len(texts)
    columns = features_of(texts, languages)
    # Models are not compared; 1 passes every bound that a recipe sets on their scores.
    columns |= dict.fromkeys(MODEL_FEATURES, columns["words"] * 0 + 1)
    return rules.judge(columns, languages, rules.bounds(profiles))


def agreement(texts: Sequence[str], stock: stock_rules.Stock, profiles: RuleProfiles) -> dict[str, Any]:
    """Shares of documents on which we agree with datatrove, and the reasons for the others."""
    tidy = [_SPACES_AT_LINE_ENDS.sub("\n", text.strip()) for text in texts]
    theirs, theirs_as_read = ([stock.reason(text) for text in form] for form in (tidy, texts))
    ours, ours_as_read = (judge(form, "en", profiles) for form in (tidy, texts))
    same_words = [stock.reason_by_kernel(text) for text in [*tidy, *texts]]
    differing = Counter(
        f"datatrove {their or 'keeps'}, ours {our[0] if our else 'keeps'}"
        for their, our in zip(theirs, ours, strict=True)
        if bool(their) != bool(our)
    )
    return {
        "same_verdict_share": 1 - differing.total() / len(texts),
        "same_verdict_share_as_read": _same_verdicts(theirs_as_read, ours_as_read),
        "same_reason_share": _share([*map(operator.eq, [*theirs, *theirs_as_read], same_words)]),
        "dropped_share": {"datatrove": _share([*map(bool, theirs)]), "ours": _share([*map(bool, ours)])},
        "differing": dict(differing.most_common()),
        "reasons": dict(Counter(reason or "kept" for reason in theirs).most_common()),
    }


def _same_verdicts(theirs: Sequence[str | None], ours: Sequence[list[str]]) -> float:
    return _share([bool(their) == bool(our) for their, our in zip(theirs, ours, strict=True)])


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found)


def _sample(corpus: Path, folders: Sequence[str], megabytes: float) -> list[str]:
    """Texts of each folder's sources in equal parts, shuffled by a fixed seed."""
    sources = [
        path for folder in folders for path in sorted({file.parent for file in (corpus / folder).rglob("*.zst")})
    ]
    limit = int(megabytes * 1e6 / len(sources))
    texts = [record["text"] for source in sources for record in common.records(source, limit)]
    random.Random(0).shuffle(texts)
    return texts


def _first(texts: Sequence[str], megabytes: float) -> list[str]:
    chosen, size = [], 0
    for text in texts:
        size += len(text.encode())
        if chosen and size > megabytes * 1e6:
            break
        chosen.append(text)
    return chosen


def _megabytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


if __name__ == "__main__":
    main()
