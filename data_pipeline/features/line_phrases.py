"""Hand-picked phrases of menus, footers, notices and bylines, as patterns for lower-cased lines.

Contract: regular expressions without line feeds and without catastrophic backtracking; line_rules.py decides
what a match means. In the lists, `/` separates phrases and spaces are optional, so that both spellings of a
Korean compound match (회원가입, 회원 가입).
"""

from __future__ import annotations

import re

from data_pipeline.features import lexicons


def _any_of(*lists: str) -> str:
    phrases = [phrase.strip() for text in lists for line in text.strip().splitlines() for phrase in line.split("/")]
    return "|".join(phrase.replace(" ", " ?") for phrase in phrases if phrase)


C4_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
ADDRESSES_READER = (
    r"\byour\b|\byou (?:agree|accept|consent|acknowledge|may|can|must)\b|\bwe (?:use|and our)\b"
    r"|\bour (?:privacy|cookie|terms|use|partners|web ?site|site)\b|\bthis (?:web ?)?(?:site|page)\b"
    r"|\bby (?:using|continuing|clicking|browsing|visiting)\b"
    r"|^\W*(?:please )?(?:read|see|view|review|accept|manage|click|check)\b"
)
"""What notices say to whoever reads the page, while a report or a story about them does not."""

# --- lines that consist of links and buttons ----------------------------------------------------

_NUMBER = r"\(?[\d,]{1,7}\)?"
_POLICIES = """
    (?:서비스 )?이용 약관 / 개인 정보 (?:취급|처리|보호) (?:방침|정책) / 쿠키 (?:정책|설정|허용|거부)
    청소년 보호 정책 / 이메일 (?:주소 )?무단 수집 거부 / 위치 기반 서비스 (?:이용 )?약관
    저작권 (?:보호 )?정책 / (?:책임의? 한계와 )?법적 고지
"""
_BUTTONS = rf"""
    공유 하기
    (?:페이스북|트위터|카카오톡|카카오스토리|밴드|네이버 블로그|라인)(?:에|으로|로)? 공유(?: 하기)?
    트윗 하기 / 퍼가기 / (?:url|링크|주소) 복사(?:하기)? / 스크랩 하기 / 인쇄 하기 / 구독 하기
    즐겨찾기 (?:추가|등록) / 신고 하기 / 기사 제보 / 댓글 {_NUMBER} 개?
    댓글 (?:쓰기|달기|남기기|등록|작성) / 답글 (?:쓰기|달기) / (?:공감|좋아요|추천|조회|조회수) :? {_NUMBER}
    (?:본문|주? 메뉴|하단|검색)(?:으로)? 바로 가기
    (?:맨|제일|페이지) (?:위|상단)(?:으?로)(?: (?:가기|이동))? / (?:이전|다음) 글 / 목록(?:으로| 보기)
    글자 크기(?: (?:조절|변경|설정))? / 관련 기사 (?:더 )?보기 / 기사 (?:목록|전체 보기|원문)
    (?:click to )?share (?:this(?: article| page| post| story)?|on \w+)(?: \(opens in new window\))?
    tweet this / pin it / (?:e-?mail|print) this(?: article| page| post)?
    (?:leave|post|add) a (?:comment|reply) / be the first to comment / no comments(?: yet)?
    {_NUMBER} comments? / comments are closed / log in to (?:comment|reply) / report this comment
    skip to (?:main )?(?:content|navigation) / (?:back|return|go) to top / jump to navigation
    toggle navigation / (?:sign up for|subscribe to) our newsletter / follow us(?: on \w+)?
    log in or (?:sign up|register) / continue reading / read more
"""
"""One of these is enough."""
_LINKS = """
    홈 / 메뉴 / 전체 메뉴 / 로그인 / 로그아웃 / 회원 가입 / 마이 페이지 / 고객 센터 / 사이트 맵 / 회사 소개
    공지 사항 / 제휴 (?:문의|안내) / 광고 (?:문의|안내) / 검색 / 목록 / 이전 / 다음 / 처음 / 닫기 / 더 보기
    인쇄 / 스크랩 / 공유 / 구독 / 댓글 / 답글 / 추천 / 신고 / 수정 / 삭제 / 페이스북 / 트위터 / 카카오톡
    카카오 스토리 / 네이버 블로그 / 밴드 / 인스타그램 / 유튜브 / home / menu / log in / log out / sign in
    sign up / register / subscribe / share / tweet / reply / comments? / next / previous / prev / print
    e-?mail / search / about(?: us)? / contact(?: us)? / site map / help / faq / rss / archives? / blog
    news / facebook / twitter / instagram / youtube / linkedin / pinterest
"""
"""One of these may be a heading; several in a line are a menu."""
_FEWEST_LINKS = 3
_BETWEEN = "[ \t\u3000" + r"|/·•:>«»‹›<\-–—,.()\[\]+#△▲▼▶◀→←↑]*+"


def _only(required: str, around: str) -> str:
    """A whole line of `around`, separated or not, that includes `required`."""
    some = rf"(?:(?:{around}){_BETWEEN}){{0,20}}"
    return rf"^{_BETWEEN}{some}?(?:{required}){_BETWEEN}{some}$"


_EVERYTHING = _any_of(_POLICIES, _BUTTONS, _LINKS)
POLICY_LINKS = _only(_any_of(_POLICIES), _EVERYTHING)
BUTTONS = _only(_any_of(_BUTTONS), _EVERYTHING)
STARTS_AS_LINKS = rf"^{_BETWEEN[:-1]}(?:{_EVERYTHING})"
"""RE2 pattern: the start of every line that consists of links and buttons."""
MENU = rf"^{_BETWEEN}(?:(?:{_any_of(_LINKS)}){_BETWEEN}){{{_FEWEST_LINKS},40}}$"

# --- notices ------------------------------------------------------------------------------------

COOKIE_NOTICE = (
    r"(?:사이트|홈페이지|서비스|페이지)[은는에가][^\n]{0,40}쿠키(?:\(cookies?\))?를?[^\n]{0,20}(?:사용|수집|저장)"
    r"|쿠키의? (?:사용|수집)에 (?:대해 )?동의"
)
JAVASCRIPT_NOTICE = (
    r"(?:enabl|activat|turn\w* on|switch\w* on|allow|requir|need|support)\w*(?: [\w']+){0,3} javascript"
    r"|javascript(?: [\w']+){0,4} (?:enabled|disabled|required|turned|activated|blocked|unsupported|unavailable)"
    r"|javascript(?: [\w']+){0,2} not supported"
    r"|(?:javascript|자바 ?스크립트)[^\n]{0,12}(?:활성화|켜|허용|필요|차단|비활성|꺼|지원(?:하지|되지|이))"
)

# --- copyright lines and bylines ----------------------------------------------------------------

_OPEN = r"[ \t<\[(【〈]*"
_CLOSE = r"[ \t>\])】〉]*"
RIGHTS = r"all rights reserved|무단 ?(?:전재|복제|배포|도용)[^\n]{0,30}금지"
COPYRIGHT = rf"^{_OPEN}(?:(?:copyrights?\b *)?(?:©|ⓒ|\(c\) *\d{{4}})|copyright +(?:\d{{4}}|by\b)|저작권자 ?[(:©ⓒ])"
_REPORTER = r"[가-힣]{2,4} ?(?:선임|수습|인턴|전문|객원|논설)? ?(?:기자|특파원)"
BYLINE = (
    rf"^{_OPEN}(?:[가-힣]{{2,6}} ?= ?[가-힣]{{2,8}}[)\]】]? +)?{_REPORTER} ?"
    rf"(?:=|[(<\[]?[\w.+-]{{1,64}}@[\w.-]{{1,64}}){_CLOSE}$"
    rf"|^[<\[(【〈][가-힣= ]{{0,12}}{_REPORTER} ?=?[>\])】〉]$"
)
"""A reporter's name with = or an address, or in brackets; a bare name with 기자 may be a heading."""

# --- advertisements -----------------------------------------------------------------------------

SPAM = (
    rf"{'|'.join(map(re.escape, lexicons.KO_SPAM_TERMS))}"
    rf"|\b(?:{'|'.join(map(re.escape, lexicons.EN_SPAM_TERMS))})s?\b"
)
CONTACT = (
    r"https?://|www\.|카톡|텔레그램|라인 ?(?:id|아이디|추가)|문의|상담|클릭|whatsapp|telegram|call now"
    r"|(?<!\d)\d{2,4}[-.) ]\d{3,4}[-. ]\d{4}(?!\d)"
)
