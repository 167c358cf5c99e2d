"""Texts with personal information at known places, and with everyday numbers that look like it.

Contract: a pure function of seed and index. Numbers and their check digits are generated here from public
definitions, not by the code under test, and belong to nobody. A positive has one number in a Korean or English
sentence, a negative has a look-alike.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_KO = (
    "{}",
    "본문에는 {} 라고 적혀 있다.",
    "담당자에게 {}로 알려 주세요.",
    "기재 내용은 {}이며 변경될 수 있다.",
    "({})",
    "홍보팀:{},",
    "{}입니다",
    "값은{}이고 바뀌지 않았다.",
)
_EN = ("{}", "Please use {} from now on.", "It was recorded as {}, then forgotten.", "({})", "Reference: {}.", '"{}"')
_TELLING = {
    "account": (("국민은행 {} 예금주 김철수", "계좌번호는 {}입니다", "입금: {}"), ("pay into account {} today",)),
    "passport_old": (("여권번호 {}", "여권 {} 소지"), ("passport {} expired",)),
    "card_bare": (("카드번호 {}", "결제 {} 승인"), ("my card {} was stolen", "VISA {}")),
    "resident_bare": (("주민등록번호 {}", "주민번호는 {}로"), ("주민번호 {} (resident)",)),
    "phone_bare": (("전화 {}", "☎{}", "팩스 {}번"), ("tel {}", "Call {} now")),
}


@dataclass(frozen=True)
class Example:
    """`text[start:end]` is a number of `type`; a negative has type ""."""

    text: str
    start: int
    end: int
    type: str
    made_by: str


def positives(seed: int, count_each: int) -> Iterator[Example]:
    """`count_each` of every maker below."""
    for name, (kind, make) in _MAKERS.items():
        for index in range(count_each):
            generator = random.Random(f"{seed}:{name}:{index}")
            number = make(generator)
            korean, english = _TELLING.get(name, (_KO, _EN))
            before, after = generator.choice(generator.choice((korean, english))).split("{}")
            yield Example(f"{before}{number}{after}", len(before), len(before) + len(number), kind, name)


def negatives(seed: int, count_each: int) -> Iterator[Example]:
    """`count_each` of every kind of look-alike."""
    for name, make in _LOOK_ALIKES.items():
        for index in range(count_each):
            generator = random.Random(f"{seed}:{name}:{index}")
            number = make(generator)
            before, after = generator.choice(generator.choice((_KO, _EN))).split("{}")
            yield Example(f"{before}{number}{after}", len(before), len(before) + len(number), "", name)


def _n(generator: random.Random, count: int) -> str:
    return "".join(generator.choices(string.digits, k=count))


def _mod(weights: str, digits: str, base: int) -> int:
    return (base - sum(int(w) * int(d) for w, d in zip(weights, digits, strict=True)) % 11) % 10


def _resident(generator: random.Random, sevenths: str, base: int, gap: str) -> str:
    birth = f"{generator.randrange(100):02}{generator.randint(1, 12):02}{generator.randint(1, 28):02}"
    stem = birth + generator.choice(sevenths) + _n(generator, 5)
    # Half as before October 2020 with a check digit, half as since then without.
    last = str(_mod("234567892345", stem, base)) if generator.random() < 0.5 or not gap else _n(generator, 1)
    return f"{stem[:6]}{gap}{stem[6:]}{last}"


def _business(generator: random.Random) -> str:
    stem = str(generator.randint(101, 999)) + _n(generator, 6)
    total = sum(int(w) * int(d) for w, d in zip("137137135", stem, strict=True)) + int(stem[8]) * 5 // 10
    return f"{stem[:3]}-{stem[3:5]}-{stem[5:]}{(10 - total % 10) % 10}"


def _luhn(generator: random.Random, first: str, length: int) -> str:
    stem = first + _n(generator, length - 1 - len(first))
    total = 0
    for place, digit in enumerate(reversed(stem)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return stem + str(-total % 10)


def _card(generator: random.Random) -> str:
    number = _luhn(generator, generator.choice(("4", "51", "55", "9", "62")), 16)
    return generator.choice("- ").join(number[place : place + 4] for place in range(0, 16, 4))


def _iban(generator: random.Random) -> str:
    country, length = generator.choice((("DE", 22), ("FR", 27), ("GB", 22), ("NL", 18), ("ES", 24)))
    body = _n(generator, length - 4)
    check = 98 - int(body + "".join(str(int(letter, 36)) for letter in country) + "00") % 97
    number = f"{country}{check:02}{body}"
    spaced = " ".join(number[place : place + 4] for place in range(0, length, 4))
    return generator.choice((number, spaced))


def _mobile(generator: random.Random) -> str:
    gap = generator.choice(("-", "-", "-", ".", " ", ""))
    return gap.join(("010", _n(generator, 4), _n(generator, 4)))


def _landline(generator: random.Random) -> str:
    area = generator.choice(("02", "031", "032", "042", "051", "053", "062", "064", "070"))
    number = f"{generator.randint(200, 9999)}-{_n(generator, 4)}"
    return generator.choice((f"{area}-{number}", f"{area}) {number}", f"{area}){number}", f"({area}) {number}"))


def _abroad(generator: random.Random) -> str:
    forms = (
        "+82-10-####-####",
        "+82 10 #### ####",
        "+82-2-###-####",
        "+8210########",
        "+44 20 7### ####",
        "+4420########",
        "+1-2#2-5##-####",
        "+1 (2#2) 5##-####",
        "+12025######",
        "+49 30 ########",
        "+81-3-####-####",
        "+86 138 #### ####",
    )
    return "".join(_n(generator, 1) if sign == "#" else sign for sign in generator.choice(forms))


def _american(generator: random.Random) -> str:
    area, office, rest = generator.randint(201, 989), generator.randint(200, 999), _n(generator, 4)
    return generator.choice((f"({area}) {office}-{rest}", f"{area}-{office}-{rest}", f"{area}.{office}.{rest}"))


def _email(generator: random.Random) -> str:
    name = "".join(generator.choices(string.ascii_lowercase, k=generator.randint(2, 9)))
    tail = generator.choice(("", ".kim", "+news", "_99", f"{generator.randint(1, 99)}"))
    return f"{name}{tail}@{generator.choice(('naver.com', 'mail.example.org', 'uni-x.ac.kr', 'a.io', 'sub.co.uk'))}"


def _driver_license(generator: random.Random) -> str:
    region = generator.choice((*range(11, 27), 28))
    return f"{region}-{_n(generator, 2)}-{_n(generator, 6)}-{_n(generator, 2)}"


def _account(generator: random.Random) -> str:
    groups = generator.choice(((3, 3, 6), (6, 2, 6), (12,)))
    return "-".join(_n(generator, count) for count in groups)


def _ipv4(generator: random.Random) -> str:
    while True:
        parts = [generator.randint(1, 223), *(generator.randint(0, 255) for _ in range(3))]
        if parts[0] not in (10, 127, 169, 172, 192):
            return ".".join(map(str, parts))


def _ipv6(generator: random.Random) -> str:
    groups = [f"2{generator.randrange(0x1000):03x}", *(f"{generator.randrange(1, 0x10000):x}" for _ in range(7))]
    return ":".join(groups) if generator.random() < 0.5 else ":".join(groups[:3]) + "::" + ":".join(groups[6:])


_MAKERS: dict[str, tuple[str, Callable[[random.Random], str]]] = {
    "email": ("email", _email),
    "ipv4": ("ip_address", _ipv4),
    "ipv6": ("ip_address", _ipv6),
    "resident": ("resident_number", lambda g: _resident(g, "1234", 11, g.choice(("-", " - ", "–")))),
    "resident_bare": ("resident_number", lambda g: _resident(g, "1234", 11, "")),
    "foreigner": ("foreigner_number", lambda g: _resident(g, "5678", 13, "-")),
    "business": ("business_number", _business),
    "social_security": ("national_id", lambda g: f"{g.randint(100, 665)}-{g.randint(10, 99)}-{g.randint(1000, 9999)}"),
    "driver_licence": ("driver_license", _driver_license),  # the key seeds the examples
    "passport_new": ("passport", lambda g: f"{g.choice('MSROD')}{_n(g, 3)}{g.choice('ABCXYZ')}{_n(g, 4)}"),
    "passport_old": ("passport", lambda g: f"{g.choice('MS')}{_n(g, 8)}"),
    "card": ("card", _card),
    "card_bare": ("card", lambda g: _luhn(g, "4", 16)),
    "mobile": ("phone", _mobile),
    "landline": ("phone", _landline),
    "phone_bare": ("phone", lambda g: g.choice(("02", "031", "051")) + g.choice("2345678") + _n(g, 7)),
    "service_number": ("phone", lambda g: f"{g.choice(('1544', '1588', '1644', '1899'))}-{g.randint(2101, 9999)}"),
    "abroad": ("phone", _abroad),
    "american": ("phone", _american),
    "account": ("account", _account),
    "iban": ("account", _iban),
}

_LOOK_ALIKES: dict[str, Callable[[random.Random], str]] = {
    "date": lambda g: g.choice(("{}-{:02}-{:02}", "{}.{:02}.{:02}", "{}/{:02}/{:02}")).format(
        g.randint(1900, 2030), g.randint(1, 12), g.randint(1, 28)
    ),
    "time": lambda g: (
        f"2024-0{g.randint(1, 9)}-1{_n(g, 1)} {g.randint(10, 23)}:{g.randint(10, 59)}:{g.randint(10, 59)}.{_n(g, 6)}"
    ),
    "years": lambda g: f"{g.randint(1500, 1899)}-{g.randint(1900, 2024)}",
    "version": lambda g: g.choice("v ").strip() + ".".join(str(g.randint(0, 30)) for _ in range(4)),
    "private_address": lambda g: f"192.168.{g.randint(0, 255)}.{g.randint(0, 255)}",
    "amount": lambda g: f"{g.randint(1, 999)},{_n(g, 3)},{_n(g, 3)}원",
    "isbn": lambda g: g.choice(("978{0}{1}", "978-{0:.2}-{0}-{1:.3}-1")).format(_n(g, 5), _n(g, 5)),
    "statute": lambda g: f"제{g.randint(1, 400)}조의{g.randint(2, 9)}제{g.randint(1, 9)}항",
    "case_number": lambda g: f"{g.randint(1990, 2024)}다{_n(g, 6)}",
    "bill_number": lambda g: f"의안번호 {g.randint(16, 22)}{_n(g, 5)}",
    "decimal": lambda g: f"{g.randint(0, 99)}.{_n(g, 14)}",
    "timestamp": lambda g: f"17{_n(g, 11)}",
    "order_id": lambda g: f"{g.randint(2015, 2025)}{_n(g, 12)}",
    "hex": lambda g: "".join(g.choices("0123456789abcdef", k=40)),
    "zip_code": lambda g: f"{_n(g, 5)}-{_n(g, 4)}",
    "product": lambda g: f"{''.join(g.choices(string.ascii_uppercase, k=3))}-{_n(g, 4)}-{_n(g, 4)}",
    "business_wrong": lambda g: _wrong(_business(g)),
    "card_wrong": lambda g: _wrong(_card(g)),
    "iban_wrong": lambda g: _wrong(_iban(g)),
    "hyphen_groups": lambda g: f"{_n(g, 3)}-{_n(g, 3)}-{_n(g, 6)}",
    "coordinates": lambda g: f"{g.randint(33, 38)}.{_n(g, 6)}, {g.randint(124, 131)}.{_n(g, 6)}",
    "decorator": lambda g: f"@{''.join(g.choices(string.ascii_lowercase, k=6))}.setter",
    "image": lambda g: f"icon{_n(g, 1)}@2x.png",
}


def _wrong(number: str) -> str:
    """The same number with its last digit changed, so that its check fails."""
    return number[:-1] + str((int(number[-1]) + 1) % 10)
