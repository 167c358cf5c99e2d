"""E-mail addresses, plain and as people hide them from robots.

Contract: `find(text)` yields start and end of every address: a local part, `@` and a domain whose last label is a top
level domain in use, so that `q@k.transpose` and `lodash@4.17.21.tgz` are none; nor are targets of ssh and scp
(`git@github.com:org/repo`), credentials in a URL and calls (`x@y.to(device)`). Hidden addresses are `a (at) b.com`,
`a [at] b [dot] com`, `a at b dot com`, `a @ b.com` and `a골뱅이b.com`. In code, one-letter names around `@` are
operands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_COUNTRIES = (
    "ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc cd "
    "cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gd ge "
    "gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh "
    "ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw "
    "mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw qa re ro rs ru rw sa sb sc "
    "sd se sg sh si sk sl sm sn so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk us "
    "uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw"
)
"""ISO 3166 and `ac eu su uk`; without `py`, the ending of Python's files."""
_OTHERS = (
    "com net org edu gov mil int info biz name pro aero coop museum jobs mobi travel tel asia cat post app dev cloud "
    "online shop site store tech xyz club blog email company agency academy center digital group life live media news "
    "one page space studio systems team today tools top vip website work works world zone design art bank care church "
    "city community consulting education finance foundation game games global guru health help homes hospital hosting "
    "institute international kim law legal link ltd market marketing network ngo ong partners photo press school "
    "science services social software solutions support university ventures wiki win example test seoul 한국"
)
_TOP_LEVEL = frozenset(f"{_COUNTRIES} {_OTHERS}".split())

_LOCAL_LENGTH = 64
_LOCAL = re.compile(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}\Z")
_LABELS = re.compile(r"(?:[A-Za-z0-9가-힣](?:[A-Za-z0-9가-힣-]{0,61}[A-Za-z0-9가-힣])?\.){1,8}(?=[A-Za-z한])")
_LAST = re.compile(r"[A-Za-z]{2,24}(?![A-Za-z0-9-])|한국")
_IN_URL = re.compile(r"://[^\s/]*\Z")
_CALL_OR_PATH = re.compile(r"\(|:[~/]|:[^\s/]{1,60}/")
_PIXEL_RATIO = re.compile(r"\d(?:\.\d)?x\.")
_HIDDEN = re.compile(
    r"(?i)(?:(?<=\w) ?[\[({<] ?at ?[\])}>] ?|(?<=\w) ?골뱅이 ?|(?<=\w) @ )(?=\w)"
    r"|(?<=\w) at (?=[a-z0-9-]{2,40} dot )"
)
_HINTS = ("(at)", "[at]", "{at}", " dot ", " DOT ", "골뱅이")
"""Substrings are found many times faster than the expression."""
_HIDDEN_DOMAIN = re.compile(
    r"(?i)((?:[a-z0-9가-힣][a-z0-9가-힣-]{0,62}(?:\.| ?[\[({<] ?dot ?[\])}>] ?| dot )){1,4})"
    r"([a-z]{2,24}(?![a-z0-9-])|한국)"
)


def find(text: str, code: bool = False) -> Iterator[tuple[int, int]]:
    """Start and end of every address; the places do not overlap."""
    at = text.find("@")
    while at >= 0:
        local = _LOCAL.search(text, max(0, at - _LOCAL_LENGTH), at)
        end = _domain_end(text, at + 1) if local else None
        if local and end and _is_address(text, local.start(), at, end, code):
            yield local.start(), end
        at = text.find("@", at + 1)
    if not code:
        yield from _hidden(text)


def _domain_end(text: str, start: int) -> int | None:
    """The end of the longest domain at `start`; a sentence may go on behind its point (`a@b.com.Then`)."""
    labels = _LABELS.match(text, start)
    end = labels.end() if labels else 0
    while end > start:
        last = _LAST.match(text, end)
        if last and last[0].lower() in _TOP_LEVEL:
            return last.end()
        end = text.rfind(".", start, end - 1) + 1
    return None


def _is_address(text: str, start: int, at: int, end: int, code: bool) -> bool:
    if code and (at - start < 2 or text.find(".", at) - at < 3):
        return False
    if _CALL_OR_PATH.match(text, end) or _PIXEL_RATIO.match(text, at + 1):
        return False
    return not _IN_URL.search(text, max(0, start - 80), start) and text[start:at] != "git"


def _hidden(text: str) -> Iterator[tuple[int, int]]:
    if not (("@" in text and " @ " in text) or any(hint in text for hint in _HINTS)):
        return
    for mark in _HIDDEN.finditer(text):
        domain = _HIDDEN_DOMAIN.match(text, mark.end())
        local = _LOCAL.search(text, max(0, mark.start() - _LOCAL_LENGTH), mark.start())
        if domain and local and domain[2].lower() in _TOP_LEVEL:
            yield local.start(), domain.end()
