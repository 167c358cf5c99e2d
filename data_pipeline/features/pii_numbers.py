"""Forms of personal numbers, and what tells them from the numbers of everyday texts.

Contract: `find(text)` yields a type and a place for every number of seven digits or more that has one of the forms in
`_FORMS` and passes its check; places may overlap. A check sees at most 40 code points around the number. Most forms
that everyday numbers share need a check digit or a telling word nearby; words are matched whole, so that `ip` is not
found in `ship`. A number behind the name of another kind of number (an order, a product, a company) is not personal.

Sources: ITU-T E.164 for telephone numbers, ISO 7812 for cards, and the public descriptions of Korean resident,
business and licence numbers and of the United States' social security numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

_Check = Callable[[str, int, int], bool]

DASHES = r"\-\u2010-\u2015\u2212\u3161\u30fc\uff0d"
"""Within brackets of an expression. The last but one look like dashes and are typed for them (ㅡ, ー)."""
_DASH = f"[{DASHES} ]"
_JOIN = f"[{DASHES}.]"
_GAP = rf"(?: ?{_JOIN} ?| )"
"""Between the groups of a phone number."""
_DIGIT_RUNS = re.compile(rf"\d(?:[ \t).({DASHES}]{{0,3}}[\d*]){{6,}}")
"""Every place that can hold a number of seven digits or more; the forms are searched only there."""


def find(text: str, kinds: Collection[str] = ()) -> Iterator[tuple[str, int, int]]:
    """Type, start and end of every number that passes its check; of some kinds only, if any are given."""
    forms = [form for form in _FORMS if not kinds or form[0] in kinds]
    for run in _DIGIT_RUNS.finditer(text):
        start = run.start()
        count = sum(map(str.isdecimal, run[0]))
        while start and text[start - 1] in "+(":
            start -= 1
        for kind, least, check, form in forms:
            if count < least:
                continue
            for place in _matches(text, form, check, start, run.end()):
                yield kind, *place


def _matches(text: str, form: re.Pattern[str], check: _Check, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Matches that pass their check; after one that fails, the search resumes one character later."""
    while match := form.search(text, start, end):
        if _stands_alone(text, *match.span()) and check(text, *match.span()):
            yield match.span()
            start = match.end()
        else:
            start = match.start() + 1


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether it is neither part of a longer sequence of groups, as in a product number, nor digits within a word."""
    before = text[max(0, start - 2) : start]
    if before[-1:] == "-" and before[0].isascii() and before[0].isalnum():
        return False
    beside = before[-1:] + text[end : end + 1]
    in_word = text[start:end].isdecimal() and any(c == "_" or (c.isascii() and c.isalpha()) for c in beside)
    return not in_word or near(text, start, end, PHONE_WORDS)


# --- telling words -----------------------------------------------------------------------------


def words(korean: str, latin: str) -> re.Pattern[str]:
    """Alternatives that may stand anywhere, and alternatives of Latin letters that must be whole words."""
    return re.compile(rf"(?i:{korean}|(?<![a-z])(?:{latin})(?![a-z]))")


def near(text: str, start: int, end: int, telling: re.Pattern[str]) -> bool:
    """Whether a telling word is within 30 code points before or 15 after."""
    return bool(telling.search(text, max(0, start - 30), start) or telling.search(text, end, end + 15))


def _behind(text: str, start: int, label: re.Pattern[str]) -> bool:
    """Whether `label`, an expression that ends in `\\Z`, stands directly before."""
    return bool(label.search(text, max(0, start - 40), start))


PHONE_WORDS = words(
    "전화|콜센터|고객|문의|상담|연락|팩스|휴대|핸드폰|대표번호|[☎☏📞]",
    r"tel|telephone|t[ée]l[ée]phone|telefon|fax|(?:cell|mobile )?phone|call|mobile|cell|dial|whatsapp",
)
_ADDRESS_OR_VERSION = words(
    r"(?P<address>주소|아이피|서버|접속|네임)|버전|빌드|릴리스|펌웨어|드라이버|업데이트|오라클|윈도|§",
    r"(?P<word>ip|ips|ipv4|addr|address|addresses|server|host|hostname|dns|client|gateway|proxy|ping)"
    r"|v|ver|version|versions|build|release|firmware|driver|player|kernel|database|oracle|windows|chrome|section"
    r"|sections|ec|oid|rev|revision|__version__",
)
_OTHER_NUMBER = re.compile(
    r"(?i)(?:(?:주문|상품|제품|송장|접수|법인|등기|관리|문서|사건|일련|시리얼|예약|출원|특허|모델|발주|청구)(?:등록)?"
    r" ?(?:번호|코드|no)|바코드|송장|(?<![a-z])(?:order|invoice|serial|part|model|item|tracking|case|isbn|barcode|ean)"
    r"(?: ?(?:no|number|code|id))?)[\s.:#]{0,3}\Z"
)
_RESIDENT_LABEL = words("주민|외국인", "rrn|resident registration")
_BUSINESS_LABEL = words("사업자", "business registration|brn")
_LICENSE_WORDS = words("면허", r"licen[cs]e")
_CARD_WORDS = words("카드|결제", "cards?|visa|mastercard|amex|american express")
_SOCIAL_SECURITY = words("사회보장번호", "ssn|social security")
_PASSPORT_WORDS = words("여권(?!지수)", "passport")
_BANK_WORDS = words("은행|계좌|농협|신협|우체국|새마을|예금주|입금|송금|뱅크|신한|토스", "account|acct|iban|bank")
_ACCOUNT_LABEL = re.compile(
    r"(?i)(?:계좌 ?번호|(?<![a-z])(?:account|acct|a/c)\.? ?(?:number|no|#)\.?)\W{0,3}(?:[은는] ?|is )?\Z"
)
_BANK_LABEL = re.compile(
    r"(?i)(?:계좌|예금주|입금|송금|은행|농협|신협|우체국|새마을금고|뱅크|(?<![a-z])(?:account|acct|a/c|iban))[\s:(]{0,3}\Z"
)
_AMOUNT = re.compile(r"(?i) ?(?:원|달러|엔|유로|개|건|명|주|won|krw|usd|dollars|euros?|bytes|turns|rows|ms)")


# --- checks ------------------------------------------------------------------------------------

_FORMULA = re.compile(r"[A-Za-z*^=/\\{}\[\]<>&%#_|~]")


def _digits(number: str) -> list[int]:
    return [int(character) for character in number if character.isdecimal()]


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
    if max(parts) > 255 or private or _is_word_character(text[max(0, start - 1) : start]):
        return False
    telling = list(_ADDRESS_OR_VERSION.finditer(text, max(0, start - 40), start))
    if telling:  # the nearest word decides
        return bool(telling[-1]["address"] or telling[-1]["word"])
    if text[end : end + 1] == ":" or _ADDRESS_OR_VERSION.search(text, end, end + 15):
        return True
    # One address in fifty has no part above 99, while nearly all version numbers have none.
    return max(parts) > 99


def _is_word_character(character: str) -> bool:
    return character in ("_", "-", "/") or (character.isascii() and character.isalpha())


def _is_dated(text: str, start: int, end: int) -> bool:
    """YYMMDD is a date. Thirteen bare digits need a label, or a check digit, a likely century and no barcode."""
    number = text[start:end]
    if not (1 <= int(number[2:4]) <= 12 and 1 <= int(number[4:6]) <= 31) or _behind(text, start, _OTHER_NUMBER):
        return False
    if not number.isdecimal() or near(text, start, end, _RESIDENT_LABEL):
        return True
    beside = text[max(0, start - 1) : start] + text[end : end + 1]
    is_recent = number[6] in "3478"
    likely = int(number[:2]) <= 26 if is_recent else int(number[:2]) >= 30
    return likely and _has_check_digit(number) and not _is_barcode(number) and not _FORMULA.search(beside)


def _has_check_digit(number: str) -> bool:
    """Resident numbers until October 2020: (11 - sum mod 11) mod 10; for foreigners, 13 - sum mod 11."""
    digits = _digits(number)
    total = sum(weight * digit for weight, digit in zip((2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), digits, strict=False))
    base = 13 if digits[6] >= 5 else 11
    return (base - total % 11) % 10 == digits[12]


def _is_barcode(number: str) -> bool:
    """EAN-13: weights 1 and 3 in turn give a multiple of ten."""
    digits = _digits(number)
    return (sum(digits[::2]) + 3 * sum(digits[1::2])) % 10 == 0


def _is_business(text: str, start: int, end: int) -> bool:
    """A right check digit, or the label; bare digits need the label."""
    digits = _digits(text[start:end])
    total = sum(weight * digit for weight, digit in zip((1, 3, 7, 1, 3, 7, 1, 3, 5), digits, strict=False))
    valid = (10 - (total + 5 * digits[8] // 10) % 10) % 10 == digits[9]
    if near(text, start, end, _BUSINESS_LABEL):
        return True
    return valid and not text[start:end].isdecimal() and not _behind(text, start, _OTHER_NUMBER)


def _is_driver_license(text: str, start: int, end: int) -> bool:
    """Dates and codes have this form with spaces, so it takes dashes or a keyword."""
    return " " not in text[start:end] or near(text, start, end, _LICENSE_WORDS)


def _is_card(text: str, start: int, end: int) -> bool:
    """Luhn's check and a prefix of a network; bare digits need a word, and rows of numbers are no cards."""
    number = text[start:end]
    digits = _digits(number)
    prefix = int("".join(map(str, digits[:4])))
    known = digits[0] in (4, 9) or 5100 <= prefix < 5600 or 2221 <= prefix < 2721 or 3400 <= prefix < 3900
    if not (known or digits[0] == 6) or _behind(text, start, _OTHER_NUMBER):
        return False
    if number.isdecimal() and not near(text, start, end, _CARD_WORDS):
        return False
    if re.search(r"\d \Z", text[max(0, start - 2) : start]) or re.match(r" \d", text[end : end + 2]):
        return False
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _is_phone(text: str, start: int, end: int) -> bool:
    """Eight to fifteen digits; a sign and bare digits need eleven (+2147483647), and a decimal has no one point."""
    number = text[start:end]
    if number[0] == "+" and number.count(".") == 1:
        return False
    least = 11 if number[1:].isdecimal() and number[0] == "+" else 8
    return least <= len(_digits(number)) <= 15


def _is_announced_phone(text: str, start: int, end: int) -> bool:
    return near(text, start, end, PHONE_WORDS) and _is_phone(text, start, end)


def _is_landline(text: str, start: int, end: int) -> bool:
    """Groups of digits with nothing but spaces between them need a word."""
    number = text[start:end]
    return not number.replace(" ", "").isdecimal() or near(text, start, end, PHONE_WORDS)


def _is_service_number(text: str, start: int, end: int) -> bool:
    """Two years have this form too, and so do prices."""
    first, second = int(text[start : start + 4]), int(text[end - 4 : end])
    is_plain = text[start + 4] == "-" and not first <= second <= 2100 and not _AMOUNT.match(text, end)
    return is_plain or near(text, start, end, PHONE_WORDS)


def _is_social_security(text: str, start: int, end: int) -> bool:
    """No area 000, 666 or 900 and above, no group 00, no serial 0000; without dashes it needs the name."""
    number = text[start:end]
    digits = "".join(map(str, _digits(number)))
    possible = digits[:3] not in ("000", "666") and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"
    dashed = not number.replace(" ", "").isdecimal() and not _behind(text, start, _OTHER_NUMBER)
    return possible and (dashed or near(text, start, end, _SOCIAL_SECURITY))


def _is_passport(text: str, start: int, end: int) -> bool:
    return near(text, start, end, _PASSPORT_WORDS)


def _is_account(text: str, start: int, end: int) -> bool:
    """Groups need the name of a bank or an account nearby; bare digits need it directly before, and are no amount."""
    number = text[start:end]
    count = len(_digits(number))
    if _AMOUNT.match(text, end) or _behind(text, start, _OTHER_NUMBER):
        return False
    if number.isdecimal():
        return _behind(text, start, _ACCOUNT_LABEL) or (count >= 10 and _behind(text, start, _BANK_LABEL))
    years = all(re.fullmatch(r"(?:19|20)\d\d", group) for group in re.split(f"[{DASHES}]", number))
    return 10 <= count <= 16 and not years and near(text, start, end, _BANK_WORDS)


# --- forms -------------------------------------------------------------------------------------

_COUNTRY = (
    r"(?:1|7|2[07]|2[1-69]\d|3[0-469]|3[578]\d|4[013-9]|42\d|5[1-8]|5[09]\d|6[0-6]|6[7-9]\d|8[1246]|8[58]\d|9[0-58]"
    r"|9[679]\d)"
)
"""Country codes in use (ITU-T E.164)."""
_AREA = r"0(?:2|[3-6][1-5]|70|50\d?|80)"
_SERVICE = r"(?:15(?:22|33|44|66|77|88|99)|16(?:00|11|44|61|66|68|70|88)|18(?:00|11|33|55|66|77|99))"

_FORMS: tuple[tuple[str, int, _Check, re.Pattern[str]], ...] = tuple(
    (kind, least, check, re.compile(rf"(?<!\d)(?<!\d\.)(?:{form})(?!\d|-\d\d)"))
    for kind, least, check, form in (
        ("ip_address", 4, _is_address, r"(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}(?!\.\d)"),
        ("resident_number", 7, _is_dated, rf"\d{{6}} ?{_DASH}? ?[1-4](?:\d{{6}}|\*{{6}}|\d\*{{5}})"),
        ("foreigner_number", 7, _is_dated, rf"\d{{6}} ?{_DASH}? ?[5-8](?:\d{{6}}|\*{{6}}|\d\*{{5}})"),
        ("business_number", 10, _is_business, rf"\d{{3}}{_DASH}\d{{2}}{_DASH}\d{{5}}|\d{{10}}"),
        ("national_id", 9, _is_social_security, rf"\d{{3}}{_DASH}\d\d{_DASH}\d{{4}}|\d{{9}}"),
        ("passport", 9, _is_passport, r"\d{9}"),
        ("driver_license", 12, _is_driver_license, rf"(?:1[1-9]|2[0-68]){_DASH}\d{{2}}{_DASH}\d{{6}}{_DASH}\d{{2}}"),
        ("card", 15, _is_card, rf"\d{{4}}(?:{_DASH}?\d{{4}}){{3}}|3[47]\d{{2}}{_DASH}?\d{{6}}{_DASH}?\d{{5}}"),
        ("phone", 10, _is_phone, rf"01(?:0(?:\) ?|{_GAP})?\d{{4}}|[16789](?:\) ?|{_GAP})?\d{{3,4}}){_GAP}?\d{{4}}"),
        ("phone", 9, _is_landline, rf"\(?{_AREA}(?:\) ?|{_GAP})\d{{3,4}}{_GAP}\d{{4}}"),
        ("phone", 9, _is_announced_phone, r"0(?:2|[3-6][1-5]|70)\d{7,8}"),
        (
            "phone",
            10,
            _is_landline,
            rf"(?:\+|00)?82(?:\) ?|{_GAP})(?:\(0\){_GAP}?)?\d{{1,2}}{_GAP}\d{{3,4}}{_GAP}\d{{4}}",
        ),
        ("phone", 7, _is_phone, rf"\+{_COUNTRY}\d{{6,13}}"),
        (
            "phone",
            7,
            _is_phone,
            rf"\+(?!1\D|82){_COUNTRY}(?:{_GAP}|(?=\())(?:\(0\) ?)?\(?\d{{1,5}}\)?(?:{_GAP}?\d{{2,8}}){{1,5}}",
        ),
        ("phone", 9, _is_announced_phone, rf"00 ?{_COUNTRY} ?\d{{1,5}}(?: ?\d{{2,8}}){{1,4}}"),
        ("phone", 10, _is_phone, rf"(?:\+?1 ?{_JOIN}? ?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d{_JOIN})[2-9]\d\d{_JOIN}\d{{4}}"),
        ("phone", 11, _is_phone, rf"\+1{_GAP}\(?[2-9]\d\d\)?{_GAP}\d{{3}}{_GAP}\d{{4}}"),
        ("phone", 10, _is_announced_phone, r"[2-9]\d\d ?[2-9]\d\d ?\d{4}|0[1-9](?:[ .]\d\d){4}"),
        ("phone", 9, _is_landline, r"\(0\d{2,4}\) ?\d{3,4} ?\d{3,4}"),
        ("phone", 9, _is_announced_phone, r"0\d{2,4} ?\d{3,4} ?\d{3,4}|07\d{3} ?\d{6}"),
        ("phone", 10, _is_phone, r"0[1-9]\d?-\d{4}-\d{4}"),
        ("phone", 8, _is_service_number, rf"{_SERVICE}{_GAP}\d{{4}}"),
        ("account", 8, _is_account, rf"\d{{8,16}}|\d{{2,6}}(?:[{DASHES}]\d{{2,7}}){{2,3}}"),
    )
)
"""Type, least number of digits, check and form of every kind of number that is searched in runs of digits."""
