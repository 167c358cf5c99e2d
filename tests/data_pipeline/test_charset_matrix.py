"""A matrix of made pages: encodings x what is declared x damage x length. Right text, or a refusal; never mojibake."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from data_pipeline.readers import charset

TEXTS = {
    "ko": (
        "강가의 오래된 물레방아는 가을에 멈추었고, 마을 사람들은 누가 마지막으로 바퀴를 돌렸는지 기억하지 못했다. ",
        "검색 결과가 없습니다. 로그인 후 이용해 주세요. 문의: 고객센터 ☎ 전화 «평일 9시~18시» ",
        '제3조(정의) 이 법에서 사용하는 용어의 뜻은 다음과 같다. 1. "자료"란 기록물을 말한다. ',
    ),
    "en": (
        "“Names,” she said, “are cheaper than flour.” — The miller’s daughter kept the ledger in a tin box. ",
        "The café in Orléans served crêpes to naïve tourists for £3, and nobody’s résumé mattered. ",
        "Pages 12–14: it’s done by hand… and slowly. ",
    ),
    "fr": ("L’été dernier, les élèves ont visité le château où naquit un célèbre général français. À bientôt! ",),
    "de": ("Die Mädchen fuhren über die Brücke und kauften süße Äpfel für die Großmutter. Schön! ",),
    "es": ("El niño pequeño comió una manzana por la mañana, según decía su mamá. ¿Cuándo volverá? ",),
    "ja": (
        "東京の天気は晴れです。今日は散歩に行きました。カフェでコーヒーを飲んで、本を読みました。",
        "古い水車は秋に止まり、村の人々は誰が最後に車を回したか覚えていなかった。",
    ),
    "zh": (
        "今天天气很好，我们去公园散步。孩子们在湖边玩耍，老人们坐在树下聊天。",
        "河湾边的旧磨坊在秋天停止了转动，村里没有人记得是谁转动了最后的轮子。",
    ),
    "tw": ("今天天氣很好，我們去公園散步。孩子們在湖邊玩耍，老人們坐在樹下聊天。",),
    "ru": ("Сегодня хорошая погода, и мы пошли гулять. Дети играли у озера, а старики сидели под деревьями. ",),
    "pl": ("Dziś jest piękna pogoda i poszliśmy na spacer. Łódź jest dużym miastem, a źródło płynie wąsko. ",),
    "el": ("Σήμερα ο καιρός είναι πολύ καλός και πήγαμε βόλτα στη λίμνη με τα παιδιά. ",),
}
ENCODINGS = {
    "ko": (
        "utf-8",
        "utf-8-sig",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "utf-32",
        "utf-32-le",
        "cp949",
        "johab",
        "iso2022_kr",
    ),
    "en": ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32-be", "cp1252"),
    "fr": ("utf-8", "cp1252"),
    "de": ("utf-8", "cp1252"),
    "es": ("utf-8", "cp1252"),
    "ja": ("utf-8", "cp932", "euc_jp", "iso2022_jp"),
    "zh": ("utf-8", "gb18030"),
    "tw": ("utf-8", "big5"),
    "ru": ("utf-8", "cp1251", "koi8_r"),
    "pl": ("utf-8", "cp1250"),
    "el": ("utf-8", "iso8859_7"),
}
LABELS = dict(
    [
        *(("utf-8-sig", "utf-8"), ("utf-32-le", "utf-32"), ("utf-32-be", "utf-32"), ("iso2022_kr", "iso-2022-kr")),
        *(("cp932", "Shift_JIS"), ("euc_jp", "EUC-JP"), ("iso2022_jp", "ISO-2022-JP"), ("gb18030", "gb2312")),
        *(("cp1250", "windows-1250"), ("cp1251", "windows-1251"), ("cp1252", "ISO-8859-1"), ("koi8_r", "KOI8-R")),
        *(("cp949", "euc-kr"), ("iso8859_7", "ISO-8859-7")),
    ]
)
WRONG = {"ko": ("iso-8859-1", "shift_jis"), "en": ("euc-kr",), "ja": ("iso-8859-1", "euc-kr"), "zh": ("euc-kr",)}
"""What pages of that language declare by mistake, besides UTF-8 and nonsense."""
LENGTHS = {"short": 1, "long": 40}
_SINGLE_BYTE = ("cp1250", "cp1251", "cp1252", "koi8_r", "iso8859_7")
"""Every byte is a character there, so nothing looks damaged."""
_NO_BYTE_IS_WRONG = ("utf-16", "utf-32", "iso2022")


@dataclass(frozen=True)
class Page:
    """A page's bytes, what it declares, and the text that is right."""

    language: str
    codec: str
    declared: str | None
    damage: str
    length: str
    text: str

    def data(self) -> bytes:
        """The encoded text with its damage: a byte that fits nowhere, or the end cut within a character."""
        middle = len(self.text) // 2
        if self.damage == "bad byte":
            head = self.text[:middle].encode(self.codec)
            return head + b"\xff" + self.text.encode(self.codec)[len(head) :]
        data = self.text.encode(self.codec)
        return data[:-1] if self.damage == "cut" else data

    def right(self) -> set[str]:
        """The texts that are right; a cut character may be one U+FFFD or missing."""
        if self.damage == "bad byte":
            middle = len(self.text) // 2
            return {f"{self.text[:middle]}\ufffd{self.text[middle:]}"}
        return {self.text[:-1], self.text[:-1] + "\ufffd"} if self.damage == "cut" else {self.text}


def _pages(language: str, codec: str) -> list[Page]:
    pages = []
    labels = dict.fromkeys((None, LABELS.get(codec, codec), "utf-8", "no-such-label", *WRONG.get(language, ())))
    for text, declared, (length, times) in itertools.product(TEXTS[language], labels, LENGTHS.items()):
        page = f"<html><body><p>{text * times}</p></body></html>" if length == "long" else text.strip()
        page = page.encode(codec, "ignore").decode(codec)
        last = next(place for place in range(len(page), 0, -1) if not page[place - 1].isascii())
        pages.append(Page(language, codec, declared, "none", length, page))
        if codec not in _SINGLE_BYTE and not codec.startswith(_NO_BYTE_IS_WRONG):
            pages.append(Page(language, codec, declared, "bad byte", length, page))
            pages.append(Page(language, codec, declared, "cut", length, page[:last]))
    return pages


CELLS = [(language, codec) for language, codecs in ENCODINGS.items() for codec in codecs]
MATRIX = {cell: _pages(*cell) for cell in CELLS}


def _outcome(page: Page) -> str:
    try:
        text, _ = charset.decode(page.data(), page.declared)
    except charset.UnknownEncoding:
        return "refused"
    return "right" if text in page.right() else "mojibake"


@pytest.mark.parametrize(("language", "codec"), CELLS)
def test_no_page_is_kept_as_mojibake(language: str, codec: str) -> None:
    wrong = [page for page in MATRIX[language, codec] if _outcome(page) == "mojibake"]
    assert wrong == []


def test_99_percent_of_the_matrix_is_right() -> None:
    pages = list(itertools.chain(*MATRIX.values()))
    assert len(pages) >= 300
    refused = [page for page in pages if _outcome(page) != "right"]
    assert len(refused) <= 0.01 * len(pages), refused
