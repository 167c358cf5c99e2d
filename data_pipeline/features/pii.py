"""Finds, counts and masks personal numbers and addresses in text; never logs them.

Contract: `find` returns disjoint spans in text order, and `mask` replaces each with a stable, typed
placeholder; both are pure. What is found depends only on the 80 code points around it. Numbers are delimited by
look-arounds for digits, never by `\\b`, because Korean particles follow numbers without a space. Full-width digits
count as digits. A check digit may confirm a number but never clears one in the form of a resident number, since
those issued after October 2020 end in random digits. Forms that everyday numbers share need a check digit or a
telling word nearby (`pii_numbers.py`). In code, only e-mail and IP addresses are personal: its numbers are constants
and test data, and a mask would change what a program does. Cost: 10 to 30 MB/s per core, depending on the number of
digits.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from data_pipeline.features import pii_emails, pii_numbers

PLACEHOLDERS: dict[str, str] = {
    "email": "[EMAIL]",
    "ip_address": "[IP_ADDRESS]",
    "resident_number": "[RESIDENT_NUMBER]",
    "foreigner_number": "[FOREIGNER_NUMBER]",
    "national_id": "[NATIONAL_ID]",
    "business_number": "[BUSINESS_NUMBER]",
    "driver_license": "[DRIVER_LICENCE]",
    "passport": "[PASSPORT]",
    "card": "[CARD]",
    "phone": "[PHONE]",
    "account": "[ACCOUNT]",
}
"""Type -> what replaces it; `find` finds nothing in a placeholder."""

TYPES = tuple(PLACEHOLDERS)


@dataclass(frozen=True)
class Span:
    """`text[start:end]` has this `type`, a key of `PLACEHOLDERS`."""

    start: int
    end: int
    type: str


def find(text: str, code: bool = False) -> list[Span]:
    """Disjoint spans in text order; of two that overlap, the one that starts first, then the longer."""
    spans: list[Span] = []
    candidates = _in_code(text) if code else _candidates(text)
    for span in sorted(candidates, key=lambda span: (span.start, -span.end)):
        if not spans or span.start >= spans[-1].end:
            spans.append(span)
    return spans


def counts(text: str, code: bool = False) -> dict[str, int]:
    """How many of each type."""
    found = Counter(span.type for span in find(text, code))
    return {kind: found[kind] for kind in TYPES}


def mask(text: str, code: bool = False) -> str:
    """The text with a placeholder for each span."""
    parts: list[str] = []
    end = 0
    for span in find(text, code):
        parts += text[end : span.start], PLACEHOLDERS[span.type]
        end = span.end
    return "".join([*parts, text[end:]])


# --- forms -------------------------------------------------------------------------------------

_WIDE = str.maketrans(
    {0xFF10 + digit: str(digit) for digit in range(10)}
    | {"＠": "@", "．": ".", "＋": "+", "（": "(", "）": ")", "\u2009": " ", "\u202f": " "}
)
"""Full-width forms and thin spaces -> ASCII, one code point each, so that offsets stay the same."""
_HAS_WIDE = re.compile("[\uff08\uff09\uff0b\uff0e\uff10-\uff19\uff20\u2009\u202f]")

_LETTERED = re.compile(r"\d(?:\d\d[A-Za-z]\d{4}(?!\d)|\d{6,7}(?!\d)|\d ?\d\d ?\d\d ?[A-D](?![A-Za-z0-9]))")
"""What follows the first letters of a passport or national insurance number."""
_NEW_PASSPORT = re.compile(r"[MSROD]\d{3}[A-Z]\d{4}")
_PASSPORT_WORDS = pii_numbers.words("여권(?!지수)", "passport")
_NATIONAL_INSURANCE = re.compile(
    r"(?<![A-Za-z0-9])(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
    r"( ?)\d\d\1\d\d\1\d\d\1[A-D](?![A-Za-z0-9])"
)
"""British; the compact form is shared with product codes."""
_NATIONAL_INSURANCE_WORDS = pii_numbers.words("국민보험번호", r"national insurance|nino|ni (?:no|number)")
_REGIONS = "서울|부산|경기|강원|충북|충남|전북|전남|경북|경남|제주|대구|인천|광주|대전|울산"
"""On Korean driver's licences before the numbers 11 to 28 took their place."""
_LICENSE = re.compile(
    r"(?i:driver'?s?'? licen[cs]e|driving licen[cs]e|(?<![a-z])dl (?:no|number))\W{0,3}(?i:no\.?|number|#|is)?\W{0,3}"
    r"([A-Z]\d{7,12}|[A-Z9]{5}\d{6}[A-Z9]{2}\d[A-Z]{2})(?![A-Za-z0-9])"
    rf"|면허증? ?(?:번호)?[ :]{{0,2}}((?:{_REGIONS}) ?\d\d-\d{{6}}-\d\d)"
)
_LICENSE_HINTS = ("면허", "icen", "DL ")
_IPV6 = re.compile(r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![0-9A-Za-z:])")
"""Global unicast only (2000::/3); other addresses identify nobody."""
_GROUP = re.compile(r":[0-9A-Fa-f]{0,4}:")
"""In every such address, and found faster."""
_HEX_BEFORE = re.compile(r"[0-9A-Za-z.]\Z|[0-9A-Fa-f:]:\Z")
_IBAN = re.compile(r"[A-U][A-Z]\d\d(?: ?[A-Z0-9]){11,30}")
_IBAN_LENGTHS = (
    "AD24 AE23 AT20 BE16 BG22 BR29 CH21 CY28 CZ24 DE22 DK18 EE20 ES24 FI18 FR27 GB22 GR27 HR21 HU28 IE22 IL23 IS26 "
    "IT27 KW30 LI21 LT20 LU20 LV21 MC27 MT31 NL18 NO15 PL28 PT25 QA29 RO24 SA24 SE24 SI19 SK24 SM27 TR26 UA29"
)
_IBAN_FORMS = {item[:2]: re.compile(rf"\w(?: ?\w){{{int(item[2:]) - 1}}}(?!\w)") for item in _IBAN_LENGTHS.split()}


def _in_code(text: str) -> Iterator[Span]:
    """Addresses only."""
    if "@" in text:
        yield from (Span(*place, "email") for place in pii_emails.find(text, code=True))
    yield from _ipv6(text)
    yield from (Span(start, end, kind) for kind, start, end in pii_numbers.find(text, ("ip_address",)))


def _candidates(text: str) -> Iterator[Span]:
    if not text.isascii() and _HAS_WIDE.search(text):
        text = text.translate(_WIDE)
    yield from (Span(*place, "email") for place in pii_emails.find(text))
    for match in _LETTERED.finditer(text):
        yield from _passports(text, match.start(), match.end())
        yield from _national_insurance(text, match.start())
    yield from _ipv6(text)
    yield from _ibans(text)
    if any(hint in text for hint in _LICENSE_HINTS):
        for match in _LICENSE.finditer(text):
            yield Span(*match.span(match.lastindex or 0), "driver_license")
    yield from (Span(start, end, kind) for kind, start, end in pii_numbers.find(text))


def _ipv6(text: str) -> Iterator[Span]:
    if _GROUP.search(text):
        for match in _IPV6.finditer(text):
            if _is_ipv6(text, *match.span()):
                yield Span(*match.span(), "ip_address")


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


def _national_insurance(text: str, digits: int) -> Iterator[Span]:
    """Two letters are before the digits; without spaces, a product code needs the name to be one."""
    start = digits - 3 if text[digits - 1 : digits] == " " else digits - 2
    match = _NATIONAL_INSURANCE.match(text, max(0, start))
    if match and (match[1] or pii_numbers.near(text, *match.span(), _NATIONAL_INSURANCE_WORDS)):
        yield Span(*match.span(), "national_id")


def _is_passport(text: str, start: int, end: int) -> bool:
    if start and text[start - 1].isascii() and text[start - 1].isalnum():
        return False
    return bool(_NEW_PASSPORT.fullmatch(text, start, end)) or pii_numbers.near(text, start, end, _PASSPORT_WORDS)


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
