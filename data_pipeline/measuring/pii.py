"""Personal numbers and addresses in text: found, counted, masked; never logged.

Contract: `find` gives disjoint spans in text order, `mask` puts a stable typed placeholder in the
place of each; both are pure. Digits are bounded by look-arounds for digits, never by `\\b`, since
Korean particles follow numbers without a space. A check digit may confirm a number, but it never
clears one that has the form of a resident number: those issued since October 2020 end in random
digits. Only numbers that would be everyday digits otherwise (business, account, old passport, cards,
resident numbers without a dash) need a check digit or a telling word nearby. Cost: 20 to
50 MB/s a core; the number of digits decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PLACEHOLDERS: dict[str, str] = {
    "email": "[EMAIL]",
    "ip_address": "[IP_ADDRESS]",
    "resident_number": "[RESIDENT_NUMBER]",
    "foreigner_number": "[FOREIGNER_NUMBER]",
    "business_number": "[BUSINESS_NUMBER]",
    "driver_licence": "[DRIVER_LICENCE]",
    "passport": "[PASSPORT]",
    "card": "[CARD]",
    "phone": "[PHONE]",
    "account": "[ACCOUNT]",
}
"""Type -> what stands in its place; placeholders hold nothing that `find` finds again."""

TYPES = tuple(PLACEHOLDERS)


@dataclass(frozen=True)
class Span:
    """`text[start:end]` is a `type` of `PLACEHOLDERS`."""

    start: int
    end: int
    type: str


def find(text: str) -> list[Span]:
    """Disjoint spans in text order; where two overlap, the one that starts first, then the longer."""
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

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
_PASSPORT = re.compile(r"[MSRODmsrod]\d{3}[A-Za-z]\d{4}(?!\d)|[A-Z]{1,2}\d{7,8}(?!\d)")
_NEW_PASSPORT = re.compile(r"[MSROD]\d{3}[A-Z]\d{4}")
_DIGIT_RUNS = re.compile(r"[+(]?\d(?:[ \t).(‐‑–—-]{0,3}[\d*]){6,}")
"""Every place where a number of seven digits or more can be; other numbers are looked for there only."""

_VERSION_LETTER = re.compile("[A-Za-z]")
_DASH = "[-‐‑–— ]"
_SERVICE_NUMBER = r"(?:15(?:22|33|44|66|77|88|99)|16(?:00|11|44|61|66|68|70|88)|18(?:00|11|33|55|66|77|99))-\d{4}"
"""Korean business lines; other pairs of four digits are mostly years."""
_NUMBERS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(rf"(?<![\d.])(?:{form})(?!\d)"))
    for kind, form in (
        ("ip_address", r"(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}(?!\.\d)"),
        ("resident_number", rf"\d{{6}} ?{_DASH}? ?[1-4](?:\d{{6}}|\*{{6}}|\d\*{{5}})"),
        ("foreigner_number", rf"\d{{6}} ?{_DASH}? ?[5-8](?:\d{{6}}|\*{{6}}|\d\*{{5}})"),
        ("business_number", r"\d{3}-\d{2}-\d{5}"),
        ("driver_licence", r"(?:1[1-9]|2[0-68])[- ]\d{2}[- ]\d{6}[- ]\d{2}"),
        ("card", rf"\d{{4}}(?:{_DASH}?\d{{4}}){{3}}|3[47]\d{{2}}{_DASH}?\d{{6}}{_DASH}?\d{{5}}"),
        ("phone", r"010[-. –]?\d{4}[-. –]?\d{4}|01[16789][-. –]?\d{3,4}[-. –]?\d{4}"),
        ("phone", r"\(?0(?:2|[3-6][1-5]|70|50\d?|80)(?:\) ?|[-. –])\d{3,4}[-. –]\d{4}"),
        ("phone", r"\+82\d{8,10}|\+\d{1,3}[-. ]\(?\d{1,4}\)?(?:[-. ]?\d{2,4}){2,4}"),
        ("phone", r"(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-.])[2-9]\d{2}[-.]\d{4}"),
        ("phone", _SERVICE_NUMBER),
        ("account", r"\d{11,14}|\d{2,6}(?:-\d{2,7}){2,3}"),
    )
)


def _candidates(text: str) -> Iterator[Span]:
    if "@" in text:
        yield from (Span(*match.span(), "email") for match in _EMAIL.finditer(text))
    for match in _PASSPORT.finditer(text):
        if _is_passport(text, match.start(), match.end()):
            yield Span(*match.span(), "passport")
    for run in _DIGIT_RUNS.finditer(text):
        for kind, form in _NUMBERS:
            yield from _matches(text, kind, form, run.start(), run.end())


def _matches(text: str, kind: str, form: re.Pattern[str], start: int, end: int) -> Iterator[Span]:
    """Matches that pass their check; after one that fails the search goes on one digit later."""
    while match := form.search(text, start, end):
        if _CHECKS[kind](text, match.start(), match.end()):
            yield Span(*match.span(), kind)
            start = match.end()
        else:
            start = match.start() + 1


# --- checks ------------------------------------------------------------------------------------


def _is_passport(text: str, start: int, end: int) -> bool:
    if start and text[start - 1].isascii() and text[start - 1].isalnum():
        return False
    return bool(_NEW_PASSPORT.fullmatch(text, start, end)) or _near(text, start, end, "여권", "passport")


def _is_address(text: str, start: int, end: int) -> bool:
    """A routable or documentation address: version numbers and private networks are not personal."""
    parts = [int(part) for part in text[start:end].split(".")]
    first, second = parts[0], parts[1]
    private = (
        first in (0, 10, 127)
        or first >= 224
        or (first, second) in ((192, 168), (169, 254))
        or (first == 172 and 16 <= second <= 31)
    )
    return max(parts) <= 255 and not private and not _VERSION_LETTER.match(text, max(0, start - 1))


def _is_dated(text: str, start: int, end: int) -> bool:
    """YYMMDD is a day. Thirteen bare digits need a check digit or a telling word too; a dash suffices."""
    number = text[start:end]
    if not (1 <= int(number[2:4]) <= 12 and 1 <= int(number[4:6]) <= 31):
        return False
    return not number.isdecimal() or _has_check_digit(number) or _near(text, start, end, "주민", "외국인", "등록번호")


def _has_check_digit(number: str) -> bool:
    """Resident numbers up to October 2020: (11 - sum mod 11) mod 10; foreigners': 13 in place of 11."""
    digits = _digits(number)
    total = sum(weight * digit for weight, digit in zip((2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), digits, strict=False))
    base = 13 if digits[6] >= 5 else 11
    return (base - total % 11) % 10 == digits[12]


def _is_business(text: str, start: int, end: int) -> bool:
    digits = _digits(text[start:end])
    total = sum(weight * digit for weight, digit in zip((1, 3, 7, 1, 3, 7, 1, 3, 5), digits, strict=False))
    valid = (10 - (total + 5 * digits[8] // 10) % 10) % 10 == digits[9]
    return valid or _near(text, start, end, "사업자", "등록번호")


def _is_card(text: str, start: int, end: int) -> bool:
    """Luhn, and a first digit that card networks use; bare digits need a telling word too."""
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
        return not years or _near(text, start, end, "전화", "콜센터", "고객", "문의", "상담", "☎", "tel")
    return 8 <= len(_digits(number)) <= 15


def _is_account(text: str, start: int, end: int) -> bool:
    return 11 <= len(_digits(text[start:end])) <= 14 and _near(
        text, start, end, "은행", "계좌", "농협", "신협", "우체국", "새마을", "예금주", "입금", "account", "iban"
    )


def _digits(number: str) -> list[int]:
    return [int(character) for character in number if character.isdecimal()]


def _near(text: str, start: int, end: int, *words: str) -> bool:
    """Whether one of `words` stands within 30 code points before or 15 after."""
    around = text[max(0, start - 30) : end + 15].lower()
    return any(word in around for word in words)


_CHECKS: dict[str, Callable[[str, int, int], bool]] = {
    "ip_address": _is_address,
    "resident_number": _is_dated,
    "foreigner_number": _is_dated,
    "business_number": _is_business,
    "driver_licence": lambda text, start, end: True,
    "card": _is_card,
    "phone": _is_phone,
    "account": _is_account,
}
