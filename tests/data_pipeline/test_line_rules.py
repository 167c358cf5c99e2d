"""Rules on single lines: what goes, what stays, and what looks like code or mathematics."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.features import line_rules

DEFAULT = ("javascript", "policy", "boilerplate", "spam")

GOES = {
    "javascript": [
        "Please enable JavaScript to view this page.",
        "JavaScript is disabled in your browser.",
        "This site requires JavaScript",
        "이 페이지를 보려면 자바스크립트를 활성화해 주세요.",
    ],
    "policy": [
        "By using this site you agree to our Terms of Use.",
        "This website uses cookies to improve your experience.",
        "We use cookies and similar techniques.",
        "Please read the Terms of Use before you go on.",
        "Privacy Policy",
        "개인정보처리방침",
        "이용약관 | 개인정보 처리방침 | 청소년보호정책 | 고객센터",
        "이 사이트는 더 나은 서비스를 위해 쿠키를 사용합니다.",
        "쿠키 허용",
    ],
    "boilerplate": [
        "홈 > 공지사항 > 로그인",
        "Home | About | Contact",
        "공유하기",
        "페이스북 공유하기 · 트위터 · 카카오톡",
        "댓글 12개",
        "좋아요 1,024",
        "Leave a Reply",
        "Share on Facebook",
        "본문 바로가기",
        "ⓒ 한여울신문",
        "<저작권자 ⓒ 한여울신문, 무단 전재 및 재배포 금지>",
        "Copyright 2020 Sallow Press. All rights reserved.",
        "홍길동 기자 hong@news.example",
        "(서울=한여울뉴스) 홍길동 기자 =",
        "[홍길동 기자]",
    ],
    "spam": [
        "카지노 바카라 토토 먹튀 없는 곳",
        "출장안마 문의 카톡 abc",
        "Best casino and sportsbook bonus",
        "무직자대출 010-1234-5678",
    ],
    "javascript_mentions": ["We learned JavaScript last summer."],
    "no_terminal_punctuation": ["A heading", "The story goes on...", "목차"],
    "few_words": ["Two words.", "그렇다."],
}
STAYS = [
    "JavaScript를 배우면 웹 페이지를 만들 수 있다.",
    "She wrote JavaScript for a living, and liked it.",
    "제28조(이용약관의 신고 등)",
    "전기통신사업자는 이용약관을 정하여 신고하여야 한다.",
    "할머니가 구운 쿠키를 나누어 먹었다.",
    "로그인",
    "Home",
    "검색",
    "그 기자는 어제 마을을 떠났다.",
    "홍길동 기자",
    "저작권자는 공표권을 가진다.",
    "그는 카지노에서 일하며 소설을 썼다고 한다. 그 소설은 훗날 마을 사람들이 모두 아는 이야기가 되었다.",
    "The casino closed in 1932 and became a library.",
    "We share what we read, and print what we like.",
    "The hospital rewrote its privacy policy after the theft, but nobody read the new one.",
    "Her thesis asks how terms of use became contracts that no reader signs.",
    "A shop that uses cookies must say so, the court held in its second ruling.",
]
CODE = [
    'document.write("Please enable JavaScript");',
    "    Leave a Reply",
    r"\textbf{Copyright 2020}. All rights reserved",
    "$x$ all rights reserved $y$",
    "`ⓒ` all rights reserved",
    "<noscript>Please enable JavaScript</noscript>",
]


@pytest.mark.parametrize(("rule", "line"), [(rule, line) for rule, lines in GOES.items() for line in lines])
def test_a_line_goes_by_its_rule(rule: str, line: str) -> None:
    assert line_rules.judged(f"앞 문장이다.\n{line}\n뒤 문장이다.", [1], [rule]) == {1: rule}
    assert line_rules.suspects(pa.array([f"앞\n{line}"], pa.large_string()), [rule])[0][-1] == 1


@pytest.mark.parametrize("line", STAYS)
def test_prose_headings_and_law_stay(line: str) -> None:
    assert line_rules.first_broken(line, DEFAULT) is None


@pytest.mark.parametrize("line", CODE)
def test_what_looks_like_code_or_mathematics_is_never_touched(line: str) -> None:
    assert line_rules.first_broken(line, DEFAULT) is not None, "only that it is code saves it"
    assert line_rules.judged(line, [0], DEFAULT) == {}


@pytest.mark.parametrize("line", ["    재미ㅋㅋㅋㅋ", "`ㅋㅋㅋㅋ`", "<b>ㅋㅋㅋㅋ</b>", "$x!!!! = y$"])
def test_runs_in_code_or_mathematics_stay(line: str) -> None:
    assert line_rules.shortened(line) == line


def test_fenced_lines_are_never_judged() -> None:
    text = "Read more\n```\nRead more\n~~~\nRead more\n```\nRead more\n~~~\nRead more"
    assert line_rules.judged(text, range(9), DEFAULT) == {0: "boilerplate", 6: "boilerplate"}


def test_a_long_line_is_a_paragraph_about_the_thing() -> None:
    line = "Our privacy policy was the talk of the town. "
    assert line_rules.first_broken(line, DEFAULT) == "policy"
    assert line_rules.first_broken(line * 6, DEFAULT) is None


def test_the_first_rule_in_the_documented_order_is_named() -> None:
    line = "javascript is disabled, see our privacy policy"
    assert line_rules.first_broken(line, ["few_words", "policy", "javascript"]) == "javascript"
    assert line_rules.first_broken(line, ["policy"]) == "policy"
    assert line_rules.first_broken("", line_rules.NAMES) is None


FRAGMENTS = (
    [line for lines in GOES.values() for line in lines] + STAYS + CODE + ["|", " ", "\u3000", "1", "가", "\n", "a"]
)


@given(
    st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=6).map("".join), max_size=5),
    st.sets(st.sampled_from(DEFAULT)),
)
def test_the_quick_look_misses_no_line(texts: list[str], names: set[str]) -> None:
    found = line_rules.suspects(pa.array(texts, pa.large_string()), names)
    for row, text in enumerate(texts):
        for number, line in enumerate(text.split("\n")):
            if line_rules.first_broken(line, names):
                assert number in found[row], line


@pytest.mark.parametrize("longest", [30_000])
@pytest.mark.parametrize(
    "unit", ["홈", "로그인 ", "이용약관 |", "댓글 1", "a@", "javascript ", "[(", "기자 = ", "쿠키를 서비스는 "]
)
def test_a_hostile_line_takes_no_long_time(unit: str, longest: int) -> None:
    """Patterns are cheap on any line, of any length; a catastrophic one would not end."""
    line_rules.first_broken((unit * longest)[:190] + "!", line_rules.NAMES)
    line_rules.first_broken((unit * longest)[:longest] + "!", line_rules.NAMES)


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("ㅋㅋㅋㅋㅋ 웃겨", "ㅋㅋ 웃겨"),
        ("슬퍼ㅠㅠㅠㅜㅜㅜㅜ", "슬퍼ㅠㅠㅜㅜ"),
        ("ㅋㅋ", "ㅋㅋ"),
        ("정말!!!!! 뭐???", "정말!! 뭐??"),
        ("뭐?!!!!", "뭐?!!"),
        ("최고야~~~~", "최고야~~"),
        ("좋아❤️❤️❤️❤️", "좋아❤️❤️"),
        ("👍🏽👍🏽👍🏽 👨‍👩‍👧👨‍👩‍👧👨‍👩‍👧", "👍🏽👍🏽 👨‍👩‍👧👨‍👩‍👧"),
        ("🇰🇷🇰🇷🇰🇷", "🇰🇷🇰🇷"),
        ("그리고...... 끝", "그리고...... 끝"),
        ("★★★★★ 별 다섯", "★★★★★ 별 다섯"),
        ("ㆍㆍㆍ<생략>ㆍㆍㆍ", "ㆍㆍㆍ<생략>ㆍㆍㆍ"),
        ("0.??? ~~~~~", "0.??? ~~~~~"),
        ("aaa 111 ===", "aaa 111 ==="),
    ],
)
def test_runs_are_cut_to_two(line: str, cut: str) -> None:
    assert line_rules.shortened(line) == cut
    assert line_rules.shortened(cut) == cut


@given(st.text(st.sampled_from("ㅋㅠ!?~👍❤\ufe0f\u200d🇰a가 \n.ㆍ"), max_size=40))
def test_the_quick_look_for_runs_misses_no_line(text: str) -> None:
    changed = [n for n, line in enumerate(text.split("\n")) if line_rules.shortened(line) != line]
    assert set(changed) <= set(line_rules.lines_with_runs(text))
