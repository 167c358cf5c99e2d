"""Finds, counts and masks personal numbers and addresses in text; never logs them.

Contract: `find` returns disjoint spans in text order, and `mask` replaces each with a stable, typed
placeholder; both are pure. Numbers are delimited by look-arounds for digits, never by `\\b`, because Korean
particles follow numbers without a space. Full-width digits count as digits. A check digit may confirm a number
but never clears one in the form of a resident number, since those issued after October 2020 end in random
digits. Only forms that everyday numbers share (business, account and old passport numbers, cards, resident
numbers without a dash, addresses that look like versions) need a check digit or a keyword nearby. Cost: 20 to
60 MB/s per core, depending on the number of digits.
"""

from __future__ import annotations

import ipaddress
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PLACEHOLDERS: dict[str, str] = {
    "email": "[EMAIL]",
    "ip_address": "[IP_ADDRESS]",
    "resident_number": "[RESIDENT_NUMBER]",
    "foreigner_number": "[FOREIGNER_NUMBER]",
    "business_number": "[BUSINESS_NUMBER]",
    "driver_license": "[DRIVER_LICENCE]",
    "passport": "[PASSPORT]",
    "card": "[CARD]",
    "phone": "[PHONE]",
    "account": "[ACCOUNT]",
}
"""Type -> what replaces it; `find` finds nothing in a placeholder."""

TYPES = tuple(PLACEHOLDERS)
_Check = Callable[[str, int, int], bool]


@dataclass(frozen=True)
class Span:
    """`text[start:end]` has this `type`, a key of `PLACEHOLDERS`."""

    start: int
    end: int
    type: str


def find(text: str) -> list[Span]:
    """Disjoint spans in text order; of two that overlap, the one that starts first, then the longer."""
    spans: list[Span] = []
    for span in sorted(_candidates(text), key=lambda span: (span.start, -span.end)):
        if not spans or span.start >= spans[-1].end:
            spans.append(span)
    return spans


def counts(text: str) -> dict[str, int]:
    """How many of each type."""
    found = Counter(span.type for span in find(text))
    return {kind: found[kind] for kind in TYPES}


def mask(text: str) -> str:
    """The text with a placeholder for each span."""
    parts: list[str] = []
    end = 0
    for span in find(text):
        parts += text[end : span.start], PLACEHOLDERS[span.type]
        end = span.end
    return "".join([*parts, text[end:]])


# --- forms -------------------------------------------------------------------------------------

_DASHES = "-\u2010\u2011\u2013\u2014\u2212\uff0d"
_DASH = f"[{_DASHES} ]"
_GAP = f"[{_DASHES}. ]"
"""Between the groups of a phone number."""
_WIDE = str.maketrans({0xFF10 + digit: str(digit) for digit in range(10)} | {"＠": "@", "．": ".", "＋": "+"})
"""Full-width forms -> ASCII, one code point each, so that offsets stay the same."""
_HAS_WIDE = re.compile("[\uff0b\uff0e\uff10-\uff19\uff20]")

_DOMAIN = re.compile(
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}(?!(?:png|jpe?g|gif|svg|webp|css|js|py)(?![A-Za-z]))"
    r"[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
_LOCAL_LENGTH = 64
_LOCAL_PART = re.compile(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}\Z")
_PASSPORT = re.compile(r"\d(?:\d\d[A-Za-z]\d{4}|\d{6,7})(?!\d)")
"""What follows the first letters of a passport number."""
_NEW_PASSPORT = re.compile(r"[MSROD]\d{3}[A-Z]\d{4}")
_IPV6 = re.compile(r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![0-9A-Za-z:])")
"""Global unicast only (2000::/3); other addresses identify nobody."""
_IBAN = re.compile(r"[A-U][A-Z]\d\d(?: ?[A-Z0-9]){11,30}")
_IBAN_LENGTHS = (
    "AD24 AE23 AT20 BE16 BG22 BR29 CH21 CY28 CZ24 DE22 DK18 EE20 ES24 FI18 FR27 GB22 GR27 HR21 HU28 IE22 IL23 IS26 "
    "IT27 KW30 LI21 LT20 LU20 LV21 MC27 MT31 NL18 NO15 PL28 PT25 QA29 RO24 SA24 SE24 SI19 SK24 SM27 TR26 UA29"
)
_IBAN_FORMS = {item[:2]: re.compile(rf"\w(?: ?\w){{{int(item[2:]) - 1}}}(?!\w)") for item in _IBAN_LENGTHS.split()}
_DIGIT_RUNS = re.compile(rf"\d(?:[ \t).({_DASHES}]{{0,3}}[\d*]){{6,}}")
"""Every place that can hold a number of seven digits or more; `_NUMBERS` are searched only there."""

_SERVICE_NUMBER = r"(?:15(?:22|33|44|66|77|88|99)|16(?:00|11|44|61|66|68|70|88)|18(?:00|11|33|55|66|77|99))-\d{4}"
"""Korean business lines; other pairs of four digits are mostly years."""
_COUNTRY = (
    r"(?:1|7|2[07]|2[1-69]\d|3[0-469]|3[578]\d|4[013-9]|42\d|5[1-8]|5[09]\d|6[0-6]|6[7-9]\d|8[1246]|8[58]\d|9[0-58]"
    r"|9[679]\d)"
)
"""Country codes in use (ITU-T E.164)."""


def _candidates(text: str) -> Iterator[Span]:
    if _HAS_WIDE.search(text):
        text = text.translate(_WIDE)
    if "@" in text:
        yield from _emails(text)
    for match in _PASSPORT.finditer(text):
        yield from _passports(text, match.start(), match.end())
    if ":" in text:
        yield from (
            Span(*match.span(), "ip_address") for match in _IPV6.finditer(text) if _is_ipv6(text, *match.span())
        )
    yield from _ibans(text)
    for run in _DIGIT_RUNS.finditer(text):
        start = run.start()
        while start and text[start - 1] in "+(":
            start -= 1
        for kind, check, form in _NUMBERS:
            yield from (Span(*place, kind) for place in _matches(text, form, check, start, run.end()))


def _emails(text: str) -> Iterator[Span]:
    for domain in _DOMAIN.finditer(text):
        local = _LOCAL_PART.search(text, max(0, domain.start() - _LOCAL_LENGTH), domain.start())
        if local:
            yield Span(local.start(), domain.end(), "email")


def _ibans(text: str) -> Iterator[Span]:
    """The country has IBANs, and the length is that of its IBANs."""
    place = 0
    while match := _IBAN.search(text, place):
        start = match.start()
        place = start + 2
        form = _IBAN_FORMS.get(text[start : start + 2])
        beside = text[max(0, start - 1) : start]
        exact = form.match(text, start, match.end()) if form and not (beside.isascii() and beside.isalnum()) else None
        if exact and _is_iban(exact.group()):
            yield Span(*exact.span(), "account")
            place = exact.end()


def _passports(text: str, digits: int, end: int) -> Iterator[Span]:
    """One letter, or two if only digits follow; no other letter or digit before them."""
    for start in (digits - 1, digits - 2):
        letters = text[max(0, start) : digits]
        if start >= 0 and letters.isascii() and letters.isalpha() and _is_passport(text, start, end):
            yield Span(start, end, "passport")


def _matches(text: str, form: re.Pattern[str], check: _Check, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Matches that pass their check; after one that fails, the search resumes one character later."""
    while match := form.search(text, start, end):
        if _stands_alone(text, match.start()) and check(text, *match.span()):
            yield match.span()
            start = match.end()
        else:
            start = match.start() + 1


def _stands_alone(text: str, start: int) -> bool:
    """Whether it is not part of a longer sequence of groups, as in an ISBN or a product number; 1-800-… is allowed."""
    before = text[max(0, start - 3) : start]
    if len(before) < 2 or before[-1] != "-" or not (before[-2].isascii() and before[-2].isalnum()):
        return True
    return before[-2] == "1" and not before[:-2].isalnum() and before[:-2] != "-"


# --- checks ------------------------------------------------------------------------------------

_HEX_BEFORE = re.compile(r"[0-9A-Za-z.]\Z|[0-9A-Fa-f:]:\Z")
_VERSION_MARKS = frozenset(f"{string.ascii_letters}_-/")
_FORMULA = re.compile(r"[A-Za-z*^=/\\{}\[\]<>&%#_|~]")
_PHONE_WORDS = (
    *("전화", "콜센터", "고객", "문의", "상담", "연락", "팩스", "휴대"),
    *("☎", "☏", "📞", "tel", "fax", "phone", "call"),
)


def _is_passport(text: str, start: int, end: int) -> bool:
    if start and text[start - 1].isascii() and text[start - 1].isalnum():
        return False
    return bool(_NEW_PASSPORT.fullmatch(text, start, end)) or _near(text, start, end, "여권", "passport")


def _is_address(text: str, start: int, end: int) -> bool:
    """A public or documentation address: version numbers and private networks are not personal."""
    parts = [int(part) for part in text[start:end].split(".")]
    first, second = parts[0], parts[1]
    private = (
        first in (0, 10, 127)
        or first >= 224
        or (first, second) in ((192, 168), (169, 254))
        or (first == 172 and 16 <= second <= 31)
    )
    if max(parts) > 255 or private or (start and text[start - 1] in _VERSION_MARKS):
        return False
    # One address in fifty has no part above 99, while nearly all version numbers have none.
    return max(parts) > 99 or _near(text, start, end, "ip", "주소", "address", "서버", "server", "host", "dns", "접속")


def _is_ipv6(text: str, start: int, end: int) -> bool:
    if _HEX_BEFORE.search(text, max(0, start - 2), start):
        return False
    try:
        ipaddress.IPv6Address(text[start:end])
    except ValueError:
        return False
    return True


def _is_iban(number: str) -> bool:
    """The check of ISO 7064 (mod 97)."""
    compact = number.replace(" ", "")
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1


def _is_dated(text: str, start: int, end: int) -> bool:
    """YYMMDD is a date. Thirteen bare digits need a keyword, or a check digit and no formula around them."""
    number = text[start:end]
    if not (1 <= int(number[2:4]) <= 12 and 1 <= int(number[4:6]) <= 31):
        return False
    if not number.isdecimal() or _near(text, start, end, "주민", "외국인", "등록번호"):
        return True
    beside = text[max(0, start - 1) : start] + text[end : end + 1]
    return _has_check_digit(number) and not _FORMULA.search(beside)


def _has_check_digit(number: str) -> bool:
    """Resident numbers until October 2020: (11 - sum mod 11) mod 10; for foreigners, 13 - sum mod 11."""
    digits = _digits(number)
    total = sum(weight * digit for weight, digit in zip((2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), digits, strict=False))
    base = 13 if digits[6] >= 5 else 11
    return (base - total % 11) % 10 == digits[12]


def _is_business(text: str, start: int, end: int) -> bool:
    digits = _digits(text[start:end])
    total = sum(weight * digit for weight, digit in zip((1, 3, 7, 1, 3, 7, 1, 3, 5), digits, strict=False))
    valid = (10 - (total + 5 * digits[8] // 10) % 10) % 10 == digits[9]
    return valid or _near(text, start, end, "사업자", "등록번호")


def _is_driver_license(text: str, start: int, end: int) -> bool:
    """Dates and codes have this form with spaces, so it takes dashes or a keyword."""
    return " " not in text[start:end] or _near(text, start, end, "면허", "licence", "license")


def _is_card(text: str, start: int, end: int) -> bool:
    """Luhn's check and a first digit that card networks use; bare digits need a keyword too."""
    if text[start:end].isdecimal() and not _near(text, start, end, "카드", "card", "visa", "결제"):
        return False
    digits = _digits(text[start:end])
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return digits[0] in (2, 3, 4, 5, 6, 9) and (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _is_phone(text: str, start: int, end: int) -> bool:
    number = text[start:end]
    if re.fullmatch(_SERVICE_NUMBER, number):
        first, second = map(int, number.split("-"))
        years = first <= second <= 2100
        return not years or _near(text, start, end, *_PHONE_WORDS)
    if number[0] in "08" and not number.startswith("01") and number.replace(" ", "").isdecimal():
        return _near(text, start, end, *_PHONE_WORDS)
    if number[0] == "+" and number.count(".") == 1:
        return False  # +1.4142135623731
    least = 11 if number[1:].isdecimal() and number[0] == "+" else 8  # +2147483647
    return least <= len(_digits(number)) <= 15


def _is_account(text: str, start: int, end: int) -> bool:
    return 11 <= len(_digits(text[start:end])) <= 14 and _near(
        text, start, end, "은행", "계좌", "농협", "신협", "우체국", "새마을", "예금주", "입금", "account", "iban"
    )


def _digits(number: str) -> list[int]:
    return [int(character) for character in number if character.isdecimal()]


def _near(text: str, start: int, end: int, *words: str) -> bool:
    """Whether one of `words` is within 30 code points before or 15 after."""
    around = text[max(0, start - 30) : end + 15].lower()
    return any(word in around for word in words)


_NUMBERS: tuple[tuple[str, _Check, re.Pattern[str]], ...] = tuple(
    (kind, check, re.compile(rf"(?<![\d.])(?:{form})(?!\d|-\d\d)"))
    for kind, check, form in (
        ("ip_address", _is_address, r"(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}(?!\.\d)"),
        ("resident_number", _is_dated, rf"\d{{6}} ?{_DASH}? ?[1-4](?:\d{{6}}|\*{{6}}|\d\*{{5}})"),
        ("foreigner_number", _is_dated, rf"\d{{6}} ?{_DASH}? ?[5-8](?:\d{{6}}|\*{{6}}|\d\*{{5}})"),
        ("business_number", _is_business, rf"\d{{3}}{_DASH}\d{{2}}{_DASH}\d{{5}}"),
        ("driver_license", _is_driver_license, rf"(?:1[1-9]|2[0-68]){_DASH}\d{{2}}{_DASH}\d{{6}}{_DASH}\d{{2}}"),
        ("card", _is_card, rf"\d{{4}}(?:{_DASH}?\d{{4}}){{3}}|3[47]\d{{2}}{_DASH}?\d{{6}}{_DASH}?\d{{5}}"),
        ("phone", _is_phone, rf"010{_GAP}?\d{{4}}{_GAP}?\d{{4}}|01[16789]{_GAP}?\d{{3,4}}{_GAP}?\d{{4}}"),
        ("phone", _is_phone, rf"\(?0(?:2|[3-6][1-5]|70|50\d?|80)(?:\) ?|{_GAP})\d{{3,4}}{_GAP}\d{{4}}"),
        ("phone", _is_phone, r"0(?:2|[3-6][1-5]|70)\d{7,8}"),
        ("phone", _is_phone, rf"\+?82{_GAP}(?:\(0\){_GAP}?)?\d{{1,2}}{_GAP}\d{{3,4}}{_GAP}\d{{4}}|\+82\d{{8,10}}"),
        ("phone", _is_phone, rf"\+{_COUNTRY}{_GAP}?(?:\(0\) ?)?\(?\d{{1,4}}\)?(?:{_GAP}?\d{{2,4}}){{2,4}}"),
        ("phone", _is_phone, rf"(?:\([2-9]\d{{2}}\) ?|[2-9]\d{{2}}[{_DASHES}.])[2-9]\d{{2}}[{_DASHES}.]\d{{4}}"),
        ("phone", _is_phone, _SERVICE_NUMBER),
        ("account", _is_account, rf"\d{{11,14}}|\d{{2,6}}(?:[{_DASHES}]\d{{2,7}}){{2,3}}"),
    )
)
"""Type, check and form of every kind of number that is searched in runs of digits."""
