"""Named rules that remove boilerplate lines from a text, and the shortening of repeated characters.

Contract: `suspects(column)` finds candidate lines, `judged(text, numbers, names)` says which of them are removed
and by which rule, and `shortened(line)` cuts runs. All are pure; lines are those of `text.split("\\n")`. Lines
that look like code or mathematics (`code_like`, `fenced`: statements, braces, backslashes, formulas) are never
removed or cut; the caller leaves out documents of kind `code`. The rules:

    javascript               asks for JavaScript or reports that it is missing (C4 drops any line with the word)
    policy                   terms of use, privacy, cookies: C4's phrases in lines of at most 200 code points that are
                             links or speak to the reader; in Korean, cookie notices and lines of such links
    boilerplate              consists of menus, sharing, comments, copyright or a reporter's byline
    spam                     gambling, escorts, loans, pills: dense in such terms, or one term with a contact
    javascript_mentions      C4's own rule: contains the word
    no_terminal_punctuation  C4: does not end as a sentence (Korean endings count), or ends in an ellipsis
    few_words                C4: fewer than 3 words

Sources: C4 (Raffel et al. 2020, section 2.2); Polyglot-Ko (Ko et al. 2023, section 3) for repeated characters,
news footers and spam words. Cost per core: 200 MB/s for `suspects`, a few microseconds per suspect.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.features import lexicons
from data_pipeline.features import line_phrases as phrases

_SHORT = 200
"""Longer lines are paragraphs about the topic."""
_C4_FEWEST_WORDS = 3

# --- code and mathematics inside prose ----------------------------------------------------------

_FENCES = ("```", "~~~")
_CODE_STARTS = ("#include", "import ", "from ", "using ", "//", "/*", ">>> ", "$ ", "|", "    ", "\t", "@")
_CODE_ENDS = (";", "{", "}", "):", "*/", "\\", "/>")
_CODE_SIGN = re.compile(r"[\\{}`$<]")
_CODE = re.compile(r"[\\{}`]|\$[^\s$][^$\n]*\$|</?[a-zA-Z][\w-]*[ />]")


def code_like(line: str) -> bool:
    """Whether a line may be code, markup or a formula; errs towards yes."""
    if line.startswith(_CODE_STARTS) or line.rstrip().endswith(_CODE_ENDS):
        return True
    return _CODE_SIGN.search(line) is not None and _CODE.search(line) is not None


def fenced(lines: Sequence[str]) -> frozenset[int]:
    """Numbers of the lines in Markdown code fences, fences included; an unclosed fence runs to the end."""
    if not any(line.lstrip().startswith(_FENCES) for line in lines):
        return frozenset()
    inside: set[int] = set()
    fence = ""
    for number, line in enumerate(lines):
        start = line.lstrip()
        if not fence and start.startswith(_FENCES):
            fence = start[:3]
            inside.add(number)
        elif fence:
            inside.add(number)
            fence = "" if start.startswith(fence) else fence
    return frozenset(inside)


_ENUMERATOR = re.compile(
    r"[\s*#>-]*(?:제 ?\d+(?:조|항|호|목|장|절|관|편)|[①-⑳㉑-㉟]|§"
    r"|[(\[]?(?:\d{1,3}|[가나다라마바사아자차카타파하]|[a-z]|[ivx]{2,5})[.)\]]\s"
    r"|(?:section|sec\.|article|art\.|clause|rule|chapter) +\d)",
    re.IGNORECASE,
)


def enumerated(line: str) -> bool:
    """Whether a line begins with a number as articles, paragraphs and items do; page frames are not numbered."""
    return _ENUMERATOR.match(line) is not None


# --- rules on lines -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pattern:
    """Lower-cased lines that match are removed."""

    pattern: re.Pattern[str]
    screen: str
    """RE2 pattern, matched in any case, that finds at least every line that `pattern` does."""
    longest: int
    """Code points; longer lines stay."""
    judge: Callable[[str], bool]
    """Has the last word on a match."""


def _pattern(
    pattern: str, *anchors: str, longest: int = _SHORT, judge: Callable[[str], bool] = lambda line: True
) -> _Pattern:
    """`anchors`: plain strings, one of which is in every line that `pattern` matches; default: the pattern."""
    return _Pattern(re.compile(pattern), "|".join(map(re.escape, anchors)) or pattern, longest, judge)


_SPAM = re.compile(phrases.SPAM)
_CONTACT = re.compile(phrases.CONTACT)
_CHARACTERS_A_SPAM_TERM = 40


def _advertises(line: str) -> bool:
    """Whether a line with a spam term is dense in different ones, or is short and names a contact."""
    terms = set(_SPAM.findall(line))
    if len(terms) > 1 and len(line) <= _CHARACTERS_A_SPAM_TERM * len(terms):
        return True
    return len(line) <= _SHORT and bool(_CONTACT.search(_SPAM.sub("", line)))


_ADDRESSES_READER = re.compile(phrases.ADDRESSES_READER)
_LINK = 40
"""Code points: a shorter line that names a policy is a link to it."""


def _is_notice(line: str) -> bool:
    return len(line) <= _LINK or _ADDRESSES_READER.search(line) is not None


_PATTERNS: dict[str, tuple[_Pattern, ...]] = {
    "javascript": (_pattern(phrases.JAVASCRIPT_NOTICE, "javascript", "자바스크립트", "자바 스크립트"),),
    "policy": (
        _pattern("|".join(phrases.C4_POLICY), *phrases.C4_POLICY, judge=_is_notice),
        _pattern(phrases.POLICY_LINKS, "약관", "방침", "정책", "수집", "쿠키", "고지"),
        _pattern(phrases.COOKIE_NOTICE, "쿠키"),
    ),
    "boilerplate": (
        replace(_pattern(phrases.BUTTONS), screen=phrases.STARTS_AS_LINKS),
        replace(_pattern(phrases.MENU), screen=phrases.STARTS_AS_LINKS),
        _pattern(phrases.RIGHTS, "all rights reserved", "무단"),
        _pattern(phrases.COPYRIGHT, "©", "ⓒ", "(c)", "copyright", "저작권자", longest=120),
        _pattern(phrases.BYLINE, "기자", "특파원", longest=80),
    ),
    "spam": (_pattern(phrases.SPAM, longest=2 * _SHORT, judge=_advertises),),
    "javascript_mentions": (_pattern("javascript", "javascript", longest=2**62),),
}


def _lacks_punctuation(line: str) -> bool:
    stripped = line.rstrip()
    return not stripped.endswith(lexicons.KO_LINE_ENDS) or stripped.endswith(lexicons.ELLIPSES)


def _has_few_words(line: str) -> bool:
    return len(line.split(maxsplit=_C4_FEWEST_WORDS)) < _C4_FEWEST_WORDS


_OF_EACH_LINE: dict[str, Callable[[str], bool]] = {
    "no_terminal_punctuation": _lacks_punctuation,
    "few_words": _has_few_words,
}
NAMES = (*_PATTERNS, *_OF_EACH_LINE)
_SCREENS = {name: "|".join(dict.fromkeys(rule.screen for rule in rules)) for name, rules in _PATTERNS.items()}


def first_broken(line: str, names: Collection[str]) -> str | None:
    """The first of the rules `names`, in the order above, that a line breaks, even if it looks like code."""
    lowered = line.lower().strip(" \t\u3000")
    if not lowered:
        return None
    return next((name for name in NAMES if name in names and _breaks(lowered, name)), None)


def _breaks(lowered: str, name: str) -> bool:
    if name in _OF_EACH_LINE:
        return _OF_EACH_LINE[name](lowered)
    return any(
        len(lowered) <= rule.longest and rule.pattern.search(lowered) is not None and rule.judge(lowered)
        for rule in _PATTERNS[name]
    )


def judged(text: str, numbers: Iterable[int], names: Collection[str]) -> dict[int, str]:
    """Line number (from 0; one of `numbers`) -> the rule that removes it."""
    lines = text.split("\n")
    found = {number: first_broken(lines[number], names) for number in numbers}
    code = fenced(lines) if any(found.values()) else frozenset()
    return {n: name for n, name in found.items() if name and n not in code and not code_like(lines[n])}


def suspects(texts: pa.Array, names: Collection[str]) -> dict[int, list[int]]:
    """Text -> numbers of the lines that may break one of the rules `names`; screens a whole column quickly."""
    screens = ["" if name in _OF_EACH_LINE else _SCREENS[name] for name in NAMES if name in names]
    if not screens:
        return {}
    lines = pc.split_pattern(texts, "\n")
    pattern = "" if "" in screens else "|".join(screens)
    places = np.flatnonzero(pc.match_substring_regex(lines.values, pattern, ignore_case=True).to_numpy(False))
    starts = lines.offsets.to_numpy()
    found: dict[int, list[int]] = {}
    rows = np.searchsorted(starts, places, side="right") - 1
    for row, number in zip(rows.tolist(), (places - starts[rows]).tolist(), strict=True):
        found.setdefault(row, []).append(number)
    return found


# --- runs ---------------------------------------------------------------------------------------

_PICTOGRAPH = "[\u2660-\u2667\u266a-\u266d\u2763-\u2767\u2728\U0001f300-\U0001f3fa\U0001f400-\U0001faff]"
"""Hearts, notes and emoji; not stars (ratings), chess, cards or dominoes (positions)."""
_EMOJI = f"{_PICTOGRAPH}[\ufe0f\U0001f3fb-\U0001f3ff]?(?:\u200d{_PICTOGRAPH}\ufe0f?)*|[\U0001f1e6-\U0001f1ff]{{2}}"
_AFTER_WORD = r"(?:(?<=[^\W\d_])|(?<=[^\W\d_][?!]))"
"""`0.???` is a number format, `~~~~` a ruler, `!!!` perhaps an operator."""
_RUN = re.compile(
    "([\u3131-\u3163])\\1{2,}"  # lone jamo: ㅋㅋㅋ, ㅠㅠㅠ, ㄷㄷㄷ; not ㆍ, which is typed for a middle dot
    f"|{_AFTER_WORD}([!?！？~])\\2{{2,}}"
    f"|({_EMOJI})\\3{{2,}}"
)
_SAME = re.compile("([\u3131-\u3163!?！？~])\\1\\1")
_PICTOGRAPHS = re.compile("[\u2660-\u2767\U0001f1e6-\U0001faff]")


def lines_with_runs(text: str) -> list[int]:
    """Numbers of the lines that `shortened` may change; a quick screen."""
    places = [match.start() for match in _SAME.finditer(text)]
    if not text.isascii():
        places += [match.start() for match in _PICTOGRAPHS.finditer(text)]
    if not places:
        return []
    ends = list(accumulate(len(line) + 1 for line in text.split("\n")))
    return sorted({bisect_right(ends, place) for place in places})


def shortened(line: str) -> str:
    """The line with runs of three or more of one lone jamo, ! ? ~ or emoji cut to two."""
    return line if code_like(line) else _RUN.sub(_twice, line)


def _twice(run: re.Match[str]) -> str:
    return 2 * next(group for group in run.groups() if group is not None)
