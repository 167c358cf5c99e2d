"""Named rules on single lines: which lines of a text are no part of what it says, and runs cut short.

Contract: `judged(text, names)` gives line number -> name of the first of `names` that the line breaks;
`shortened(line)` cuts runs. Pure; lines are those of `text.split("\\n")`, and an empty line is never judged.
A line that looks like code or mathematics (`code_like`: fences, braces, back-slashes, formulae, statements)
is never judged nor cut, and documents of kind `code` are for the caller to leave out.

    javascript               asks for JavaScript, or regrets its lack (C4 drops any line that has the word)
    policy                   terms of use, privacy, cookies: C4's phrases in lines of at most 200 code points;
                             in Korean, lines of nothing but such links, and cookie notices
    boilerplate              nothing but menus, sharing, comments, copyright, a reporter's signature
    spam                     gambling, escorts, loans, pills: lines dense in such terms, or one with a contact
    javascript_mentions      C4's own rule: the word stands in the line
    no_terminal_punctuation  C4: does not end as a sentence does (Korean endings count), or ends in an ellipsis
    few_words                C4: fewer than 3 words

Sources: C4 (Raffel et al. 2020, section 2.2); Polyglot-Ko (Ko et al. 2023, section 3) for repeated
characters, news footers and spam words. Cost: 40 to 100 MB/s a core.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from data_pipeline.measuring import lexicons

C4_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_SHORT = 200
"""A longer line is a paragraph that speaks of the thing."""
_C4_FEWEST_WORDS = 3

# --- code and mathematics inside prose ----------------------------------------------------------

_FENCES = ("```", "~~~")
_CODE_STARTS = ("#include", "import ", "from ", "using ", "//", "/*", ">>> ", "$ ", "<", "|", "    ", "\t", "@")
_CODE_ENDS = (";", "{", "}", "):", "*/", "\\", "=", "/>")
_CODE_SIGNS = re.compile(r"[\\{}`]|\$[^\s$][^$\n]*\$")


def code_like(line: str) -> bool:
    """Whether a line of prose may be code, mark-up or a formula; it errs towards yes."""
    return (
        line.startswith(_CODE_STARTS)
        or line.rstrip().endswith(_CODE_ENDS)
        or (("\\" in line or "{" in line or "}" in line or "`" in line or "$" in line) and bool(_CODE_SIGNS.search(line)))
    )


def fenced(lines: Sequence[str]) -> frozenset[int]:
    """Numbers of the lines inside Markdown's code fences, fences included; an open one runs to the end."""
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


# --- rules on lines -----------------------------------------------------------------------------

_SEPARATOR = r"[ \t|/·•:>«»‹›<\-–—,.()\[\]+#△▲▼▶◀→←↑]*+"
_LINKS_OF_POLICY = (
    r"(?:서비스\s?)?이용\s?약관", r"개인\s?정보\s?(?:취급|처리|보호)\s?(?:방침|정책)", r"쿠키\s?(?:정책|설정|허용|거부)",
    r"청소년\s?보호\s?정책", r"이메일\s?(?:주소\s?)?무단\s?수집\s?거부", r"위치\s?기반\s?서비스\s?(?:이용\s?)?약관",
    r"저작권\s?(?:정책|보호\s?정책)", r"법적\s?고지", r"책임의?\s?한계와\s?법적\s?고지", r"운영\s?(?:정책|원칙)",
    r"회사\s?소개", r"고객\s?센터", r"사이트\s?맵", r"제휴\s?(?:문의|안내)", r"광고\s?(?:문의|안내)", r"모두\s?동의",
)  # fmt: skip
_POLICY_ONLY = "|".join(_LINKS_OF_POLICY[:10])
_NUMBER = r"\(?[\d,]{1,7}\)?"
_ALONE = (
    # Sharing.
    r"공유\s?하기", r"(?:페이스북|트위터|카카오톡|카카오스토리|밴드|네이버\s?블로그|라인)(?:에|으로|로)?\s?공유(?:\s?하기)?",
    r"트윗\s?하기", r"(?:url|링크|주소)\s?복사(?:하기)?", r"스크랩\s?하기", r"인쇄\s?하기", r"퍼가기",
    r"(?:click to )?share (?:this(?: article| page| post| story)?|on (?:facebook|twitter|x|linkedin|pinterest|whatsapp|reddit|tumblr))(?: \(opens in new window\))?",
    r"tweet this", r"pin it", r"e-?mail this(?: article| page| post)?", r"print this(?: article| page| post)?",
    # Comments.
    rf"댓글\s?{_NUMBER}\s?개?", r"댓글\s?(?:쓰기|달기|남기기|등록|작성)", r"답글\s?(?:쓰기|달기)", rf"(?:공감|좋아요|추천|조회|조회수)\s?:?\s?{_NUMBER}",
    r"신고\s?하기", r"(?:leave|post|add) a (?:comment|reply)", r"be the first to comment", r"no comments(?: yet)?",
    r"[\d,]{1,7} comments?", r"log in to (?:comment|reply)", r"comments are closed", r"report (?:abuse|this comment)",
    # Menus and navigation.
    r"(?:본문|메뉴|주\s?메뉴|하단|검색)(?:으로)?\s?바로\s?가기", r"(?:맨|제일|페이지)\s?(?:위|상단)(?:로|으로)(?:\s?(?:가기|이동))?",
    r"(?:이전|다음)\s?글", r"목록(?:으로|\s?보기)", r"글자\s?크기(?:\s?(?:조절|변경|설정))?", r"즐겨찾기\s?(?:추가|등록)",
    r"기사\s?제보", r"구독\s?하기", r"관련\s?기사\s?(?:더\s?)?보기", r"기사\s?(?:목록|전체\s?보기|원문)",
    r"skip to (?:main )?(?:content|navigation)", r"(?:back|return|go) to top", r"jump to navigation", r"toggle navigation",
    r"(?:sign up for|subscribe to) our newsletter", r"follow us(?: on (?:facebook|twitter|instagram))?",
    r"log ?in (?:or|/) (?:sign ?up|register)", r"로그인\s?[|/·]?\s?회원\s?가입", r"continue reading", r"read more",
)  # fmt: skip
_IN_MENUS = (
    "홈", "메뉴", "로그인", "로그아웃", r"회원\s?가입", r"마이\s?페이지", r"고객\s?센터", r"사이트\s?맵", "검색", "목록", "이전",
    "다음", "처음", "인쇄", "스크랩", "공유", "댓글", "답글", "추천", "신고", "수정", "삭제", r"더\s?보기", "페이스북", "트위터", "카카오톡",
    r"카카오\s?스토리", r"네이버\s?블로그", "밴드", "인스타그램", "유튜브", r"공지\s?사항", r"회사\s?소개", r"전체\s?메뉴", "닫기", "구독",
    "home", "menu", r"log ?in", r"sign ?in", r"sign ?up", "register", "subscribe", "share", "tweet", "facebook", "twitter",
    "instagram", "youtube", "linkedin", "pinterest", "reply", "comments?", "next", "previous", "prev", "print", "e-?mail",
    "search", "about(?: us)?", "contact(?: us)?", r"site ?map", "help", "faq", "rss", "login", "archives?", "blog", "news",
)  # fmt: skip
_FEWEST_IN_MENU = 3
_ANY = "|".join((*_ALONE, *_LINKS_OF_POLICY, *_IN_MENUS))
_CONTACT = re.compile(r"https?://|www\.|카톡|텔레그램|텔레|라인|문의|상담|클릭|whatsapp|telegram|call now|\d{2,4}[-.) ]\d{3,4}[-. ]\d{4}")
_SPAM_TERMS = (*lexicons.KO_SPAM_TERMS, *lexicons.EN_SPAM_TERMS)
_SPAM = re.compile(
    rf"{'|'.join(map(re.escape, lexicons.KO_SPAM_TERMS))}|\b(?:{'|'.join(map(re.escape, lexicons.EN_SPAM_TERMS))})s?\b"
)
_CHARACTERS_A_SPAM_TERM = 40


@dataclass(frozen=True)
class _Pattern:
    """A lower-cased line that holds this goes; not searched for where the text has none of `anchors`."""

    pattern: re.Pattern[str]
    anchors: tuple[str, ...] = ()
    longest: int = _SHORT
    judge: Callable[[str], bool] | None = None
    """Has the last word on a line found."""


def _pattern(pattern: str, *anchors: str, longest: int = _SHORT, judge: Callable[[str], bool] | None = None) -> _Pattern:
    return _Pattern(re.compile(pattern, re.MULTILINE), anchors, longest, judge)


def _is_spam(line: str) -> bool:
    terms = set(_SPAM.findall(line))
    dense = len(terms) >= 2 and len(line) <= _CHARACTERS_A_SPAM_TERM * len(terms)
    return dense or (len(line) <= _SHORT and bool(_CONTACT.search(line.replace(next(iter(terms)), ""))))


_PATTERNS: dict[str, tuple[_Pattern, ...]] = {
    "javascript": (
        _pattern(
            r"(?:enabl|activat|turn\w* on|switch\w* on|allow|requir|need|support)\w*(?: [\w']+){0,3} javascript"
            r"|javascript(?: [\w']+){0,4} (?:enabled|disabled|required|turned|activated|blocked|unsupported|unavailable)"
            r"|javascript(?: [\w']+){0,2} not supported",
            "javascript",
        ),
        _pattern(
            r"(?:javascript|자바\s?스크립트)[^\n]{0,12}(?:활성화|켜|허용|필요|차단|비활성|꺼|지원(?:하지|되지|이))",
            *("javascript", "자바스크립트", "자바 스크립트"),
        ),
    ),
    "policy": (
        _pattern("|".join(C4_POLICY), *C4_POLICY),
        _pattern(
            rf"^{_SEPARATOR}(?:(?:{'|'.join(_LINKS_OF_POLICY)}){_SEPARATOR})*?(?:{_POLICY_ONLY}){_SEPARATOR}"
            rf"(?:(?:{_ANY}){_SEPARATOR})*$",
            *("약관", "방침", "정책", "수집", "쿠키", "고지", "원칙"),
        ),
        _pattern(
            r"(?:사이트|홈페이지|서비스|페이지)[은는에가][^\n]{0,40}쿠키(?:\(cookies?\))?를?[^\n]{0,20}(?:사용|수집|저장)"
            r"|쿠키(?:의)? (?:사용|수집)에 (?:대해 )?동의",
            "쿠키",
        ),
    ),
    "boilerplate": (
        _pattern(rf"^{_SEPARATOR}(?:(?:{'|'.join(_IN_MENUS)}){_SEPARATOR}){{0,20}}(?:{'|'.join(_ALONE)}){_SEPARATOR}(?:(?:{_ANY}){_SEPARATOR}){{0,20}}$"),
        _pattern(rf"^{_SEPARATOR}(?:(?:{'|'.join(_IN_MENUS)}){_SEPARATOR}){{{_FEWEST_IN_MENU},40}}$"),
        _pattern(r"all rights reserved|무단\s?(?:전재|복제|배포|도용)[^\n]{0,30}금지", "rights reserved", "무단"),
        _pattern(r"^[\s<\[(【〈]*(?:copyrights?\b\s*)?(?:©|ⓒ|\(c\)\s*\d{4})", "©", "ⓒ", "(c)", longest=120),
        _pattern(r"^[\s<\[(【〈]*(?:copyright\s+(?:\d{4}|by\b)|저작권자\s?[(:©ⓒ])", "copyright", "저작권자", longest=120),
        _pattern(
            r"^[\s(\[【<]*(?:[가-힣]{2,6}\s?=\s?[가-힣]{2,8}[)\]】>]?\s+)?[가-힣]{2,4}\s?(?:선임|수습|인턴|전문|객원|논설)?\s?"
            r"(?:기자|특파원)\s*=?\s*[\w.+-]*(?:@[\w.-]+)?[\s)\]】>]*$",
            *("기자", "특파원"), longest=60, judge=lambda line: "@" in line or "=" in line or line.strip().endswith(("기자]", "기자)")),
        ),
    ),
    "spam": (_pattern(_SPAM.pattern, *lexicons.EN_SPAM_TERMS, *lexicons.KO_SPAM_TERMS, longest=10_000, judge=_is_spam),),
    "javascript_mentions": (_pattern("javascript", "javascript", longest=2**62),),
}  # fmt: skip


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


def judged(text: str, names: Sequence[str]) -> dict[int, str]:
    """Line number (from 0) -> the first of `names` that the line breaks, in the order of lines."""
    lowered = text.lower()
    found: dict[int, str] = {}
    for name in names:
        for number in _broken(lowered, name):
            found.setdefault(number, name)
    if not found:
        return found
    lines = text.split("\n")
    code = fenced(lines) if any(fence in text for fence in _FENCES) else frozenset()
    return {n: found[n] for n in sorted(found) if n not in code and lines[n].strip() and not code_like(lines[n])}


def _broken(lowered: str, name: str) -> Iterator[int]:
    """Numbers of the lines that break a rule, some perhaps more than once."""
    if name in _OF_EACH_LINE:
        breaks = _OF_EACH_LINE[name]
        yield from (number for number, line in enumerate(lowered.split("\n")) if breaks(line))
        return
    for rule in _PATTERNS[name]:
        if rule.anchors and not any(anchor in lowered for anchor in rule.anchors):
            continue
        places = [match.start() for match in rule.pattern.finditer(lowered)]
        if not places:
            continue
        lines = lowered.split("\n")
        starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
        for number in sorted({bisect_right(starts, place) - 1 for place in places}):
            line = lines[number].strip()
            if len(line) <= rule.longest and (rule.judge is None or rule.judge(line)):
                yield number


# --- runs ---------------------------------------------------------------------------------------

_PICTOGRAPH = "[\u2660-\u2667\u266a-\u266d\u2763-\u2767\u2728\U0001f300-\U0001f3fa\U0001f400-\U0001faff]"
"""Hearts, notes, emoji; not stars, which are ratings, nor chess, cards and dominoes, which are positions."""
_EMOJI = (
    f"{_PICTOGRAPH}[\ufe0f\U0001f3fb-\U0001f3ff]?(?:\u200d{_PICTOGRAPH}\ufe0f?)*|[\U0001f1e6-\U0001f1ff]{{2}}"
)
_RUN = re.compile(
    "([\u3131-\u318e])\\1{2,}"  # lone jamo: ㅋㅋㅋ, ㅠㅠㅠ, ㄷㄷㄷ
    "|([!?！？♡♥])\\2{2,}"
    "|(?<=[^\\s~])(~)\\3{2,}"  # a line of tildes is a ruler
    f"|({_EMOJI})\\4{{2,}}"
)
_HAS_RUN = re.compile("([\u3131-\u318e!?！？~♡-\u2767\U0001f000-\U0001faff]\ufe0f?)\\1")


def may_have_runs(text: str) -> bool:
    """False only where no line of the text can be shortened; a quick look."""
    return bool(_HAS_RUN.search(text)) or "\u200d" in text or "\U0001f1e6" <= max(text, default="")


def shortened(line: str) -> str:
    """The line with runs of three or more of one lone jamo, ! ? ~ or emoji cut to two."""
    return line if code_like(line) else _RUN.sub(_twice, line)


def _twice(run: re.Match[str]) -> str:
    return 2 * next(group for group in run.groups() if group is not None)
