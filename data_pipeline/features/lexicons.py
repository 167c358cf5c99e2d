"""Word lists of the rules, chosen by hand for this project.

Korean words carry particles, so a list of whole words would miss most of them. `KO_ENDINGS` are the particles
and endings that close an eojeol instead: a few sentences of prose have many different ones, while lists of
names, menus and keywords have few.
"""

from __future__ import annotations

_EN_STOP_WORDS = (
    "the be to of and that have with is are was were in for on as by it this from at not or an a which "
    "he she we they you i his her their its my your our him them me us who what when where how if but so than then "
    "there these those has had do did does can could will would should may might must no into about been all any"
)
EN_STOP_WORDS = frozenset(_EN_STOP_WORDS.split())

_KO_ENDINGS = (
    "은 는 이 가 을 를 의 에 도 로 와 과 만 며 고 다 서 면 지 한 할 된 될 인 "
    "에서 으로 에게 부터 까지 이다 한다 했다 된다 하는 되는 있는 없는 하고 하여 해서 하며 이며 "
    "있다 없다 였다 이나 처럼 보다 습니다 합니다 입니다 됩니다 에는 에도 으며 지만 는데"
)
KO_ENDINGS = frozenset(_KO_ENDINGS.split())
"""One to three syllables each."""

KO_SPAM_TERMS: tuple[str, ...] = (
    *("카지노", "바카라", "토토", "먹튀", "슬롯머신", "홀덤", "파워볼", "릴게임", "경마사이트", "사설놀이터", "배팅"),
    *("출장안마", "출장마사지", "출장샵", "오피걸", "룸살롱", "조건만남", "성인용품", "애인대행", "유흥업소"),
    *("무직자대출", "당일대출", "급전대출", "소액결제 현금화", "신용카드 현금화", "비아그라", "시알리스", "최음제"),
    *("선착순 할인", "무료 상담 문의", "카톡 문의", "최저가 보장", "후불제", "지금 바로 신청", "클릭하세요"),
)
EN_SPAM_TERMS: tuple[str, ...] = (
    *("casino", "jackpot", "free spins", "sportsbook", "slot machine", "betting site"),
    *("escort service", "call girls", "porn", "xxx video", "sex cam"),
    *("payday loan", "viagra", "cialis", "buy cheap", "click here to buy", "limited time offer", "100% free"),
)
"""Gambling; escort and adult; loans, pills and sales pressure. Korean terms match anywhere, since compounds run
together; English ones match whole words in any case, with or without a plural s."""

BULLETS = tuple("•‣⁃⁌⁍∙○●◦◘▪▫■□▶►▸◆◇★☆※·-–—*")
ELLIPSES = ("...", "…")
LINE_ENDS = tuple(".?!…。！？")
"""A line that ends in one of these is punctuated."""
QUOTE_ENDS = tuple("\"'”’」』")
"""A line that ends in one of these may be prose as well: direct speech (C4)."""
KO_LINE_ENDS = (*LINE_ENDS, "다", "요", "까", "죠")
"""In Korean, also the ends of sentences: informal writing often omits the full stop."""
EDGE_PUNCTUATION = tuple(".,;:!?\"'()[]“”‘’…")
"""Stripped from words before stop words and endings are looked up."""
CODE_SIGNS = tuple("{}<=;\\_")
"""A line with one of these is code or a formula rather than a menu."""
LOREM_IPSUM = "lorem ipsum"
NOTICES = (
    *("javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"),
    *("자바스크립트", "개인정보처리방침", "개인정보 처리방침", "이용약관", "쿠키를 사용"),
    *("무단전재", "무단 전재", "재배포 금지"),
)
"""Phrases of cookie banners and footers: C4's and Korean ones, lower-case. English ones match where a word begins."""
