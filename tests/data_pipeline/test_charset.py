"""Bytes -> text, and back from mojibake."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.readers import charset, charset_labels, normalize

KOREAN = "가을 하늘은 높고 푸르다. 아이들은 운동장에서 공을 차며 논다. 저녁이 되자 모두 집으로 돌아갔다."
MIXED = f"<p>{KOREAN}</p><p>The harbour was quiet that night.</p>"


CODECS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp949", "euc-kr"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("declared", [None, "UTF-8", "euc-kr", "no-such-charset"])
def test_decodes_korean_whatever_is_declared(codec, declared):
    text, _ = charset.decode(MIXED.encode(codec), declared)
    assert text == MIXED


@pytest.mark.parametrize(
    ("codec", "declared", "text"),
    [
        ("cp932", "Shift_JIS", "東京の天気は晴れです。今日は散歩に行きました。"),
        ("cp1251", "windows-1251", "Сегодня хорошая погода, и мы пошли гулять."),
        ("cp1252", "ISO-8859-1", "Der Weg führt über die Brücke – und zurück."),
        ("gb18030", "gb2312", "今天天气很好，我们去公园散步。"),
    ],
)
def test_decodes_what_is_declared(codec, declared, text):
    assert charset.decode(text.encode(codec), declared)[0] == text


@pytest.mark.parametrize(
    ("data", "declared", "text"),
    [
        # Bytes refute what a page declares.
        ("It’s the miller’s".encode("cp1252"), "euc-kr", "It’s the miller’s"),
        ("서울의 물레방아는 멈추었다".encode("cp949"), "gb2312", "서울의 물레방아는 멈추었다"),
        ("서울의 물레방아는 멈추었다".encode("johab"), "euc-kr", "서울의 물레방아는 멈추었다"),
        ("Caf\xe9, cr\xeapes".encode("latin-1"), "utf-8", "Café, crêpes"),
        # A symbol, a syllable or a name in an English page is as declared.
        ("Price: 5,000원".encode("cp949"), "euc-kr", "Price: 5,000원"),
        ("Menu · Help".encode("cp949"), "euc-kr", "Menu · Help"),
        ("She said ‘Lolita’".encode("cp949"), None, "She said ‘Lolita’"),
        ("Kim (김철수)".encode("cp949"), None, "Kim (김철수)"),
        ("ㅋㅋㅋㅋㅋ".encode("cp949"), None, "ㅋㅋㅋㅋㅋ"),
        # Quotes, spaces and accents of Western text; what uchardet takes for Central European is not.
        ("Pages\xa012\x9614, by\xa0hand".encode("latin-1"), None, "Pages\xa012–14, by\xa0hand"),
        ("Fare: \xa32.".encode("latin-1"), None, "Fare: £2."),
        # One bad sequence does not change the choice.
        (b"Fare: \xa32.", "utf-8", "Fare: \ufffd2."),
        ("“Both,” he said. Fare: ".encode() + b"\xa32.", "utf-8", "“Both,” he said. Fare: \ufffd2."),
        ("“Both,” he said. Fare: ".encode() + b"\xa32.", None, "“Both,” he said. Fare: \ufffd2."),
        # What another program has lost is text.
        ("\ufffd\ufffd 가 \ufffd".encode(), None, "\ufffd\ufffd 가 \ufffd"),
        # A mark of UTF-8 before another character set; escape sequences without and with their announcement.
        (b"\xef\xbb\xbf" + KOREAN.encode("cp949"), "euc-kr", KOREAN),
        (KOREAN.encode("iso2022_kr")[4:], "iso-2022-kr", KOREAN),
        ("今天天气".encode("hz"), "hz-gb-2312", "今天天气"),
        ("<p>plain ASCII</p>".encode("utf-16-be"), None, "<p>plain ASCII</p>"),
        (b"\x1b[0mcolours of a terminal", None, "\x1b[0mcolours of a terminal"),
    ],
)
def test_kinds_of_pages(data, declared, text):
    assert charset.decode(data, declared)[0] == text


def test_a_character_set_of_two_bytes_is_not_read_as_words_of_western_letters():
    """Without a declaration and without common syllables: refused, not mojibake."""
    with pytest.raises(charset.UnknownEncoding):
        charset.decode(("뷁쀍쀏쁁쁂쁃 " * 20).encode("cp949"))


def test_double_encoding_is_undone_where_it_can_be_reversed():
    once = KOREAN.encode().decode("latin-1")
    text, encoding = charset.decode(once.encode())
    assert (text, encoding) == (once, "utf-8")
    assert normalize.repair(text) == KOREAN


def test_a_few_damaged_bytes_become_replacement_characters():
    data = (KOREAN * 10).encode()
    damaged = data[:30] + b"\xff" + data[33:]
    text, encoding = charset.decode(damaged)
    assert encoding == "utf-8"
    assert text.count("�") == 1


def test_binary_is_refused():
    with pytest.raises(charset.UnknownEncoding):
        charset.decode(bytes(range(128, 256)) * 40 + b"\x00\x01\x02" * 50)


@given(st.binary(max_size=300), st.sampled_from([None, "euc-kr", "utf-16", "latin1", "x"]))
def test_any_bytes_give_text_or_the_one_error(data, declared):
    try:
        text, encoding = charset.decode(data, declared)
    except charset.UnknownEncoding:
        return
    assert isinstance(text, str)
    assert encoding


@given(st.text(st.characters(exclude_characters="\0\x1b"), max_size=200))
def test_utf8_is_never_misread(text):
    data = text.encode("utf-8", "ignore")
    if charset.byte_order_mark(data) is None:
        assert charset.decode(data, "euc-kr") == (data.decode(), "utf-8")


@pytest.mark.parametrize(
    "page",
    [
        b'<html><meta charset="EUC-KR">',
        b"<META http-equiv=Content-Type content='text/html; charset=EUC-KR'>",
        b'<?xml version="1.0" encoding="EUC-KR"?><html>',
    ],
)
def test_finds_declared_charset(page):
    assert charset.declared_in_html(page) == "EUC-KR"


@pytest.mark.parametrize(
    ("page", "label"),
    [
        (b'<!-- <meta charset="big5"> --><meta charset=euc-kr>', "euc-kr"),
        (b'<meta name="description" content="all about charset=big5"><meta charset="euc-kr">', "euc-kr"),
        (b'<meta content="text/html;charset=euc-kr" http-equiv="content-type">', "euc-kr"),
        (b"<meta name=viewport><meta http-equiv='Content-Type' content='text/html; charset=EUC-KR'>", "EUC-KR"),
    ],
)
def test_only_a_declaration_declares(page, label):
    assert charset.declared_in_html(page) == label


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("UTF-8", "utf-8"),
        ("ks_c_5601-1987", "cp949"),
        ("x-windows-949", "cp949"),
        (" MS949 ", "cp949"),
        ("iso_8859-1", "cp1252"),
        ("x-cp1251", "cp1251"),
        ("x-sjis", "cp932"),
        ("x-mac-cyrillic", "mac_cyrillic"),
        ("rot13", None),
        ("", None),
        (None, None),
    ],
)
def test_labels_mean_what_browsers_take_them_for(label, codec):
    assert charset_labels.codec_of(label) == codec


def test_every_codec_exists():
    for codec in set(charset_labels._CODECS.values()):
        codecs.lookup(codec)


def test_no_declared_charset():
    assert charset.declared_in_html(b"<html><body>charset=nothing</body>") is None


# --- normalise ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["latin-1", "cp1252"])
def test_repairs_utf8_read_as_latin(wrong):
    text = "한국어 문장입니다"
    broken = "".join(chr(b) if wrong == "latin-1" else _cp1252(b) for b in text.encode())
    assert normalize.repair(broken) == text


def _cp1252(byte: int) -> str:
    try:
        return bytes((byte,)).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)


def test_repairs_euckr_read_as_latin():
    assert normalize.repair(KOREAN.encode("euc-kr").decode("latin-1")) == KOREAN


@pytest.mark.parametrize("text", ["베네치아", "경상북도", "공산주의", "만들기도 30분에 메모리얼 받으면서"])
def test_repairs_utf8_read_as_cp949_where_nothing_was_lost(text):
    assert normalize.repair(text.encode().decode("cp949")) == text


def test_repairs_only_the_damaged_lines():
    broken = "한국어".encode().decode("latin-1")
    assert normalize.repair(f"멀쩡한 줄\n{broken}\nplain") == "멀쩡한 줄\n한국어\nplain"


@pytest.mark.parametrize(
    "text",
    [
        "Información y educação über façade naïve",
        "Ünïcödé",
        "Ãrea",
        "東京大学 서울大學校",
        "café — “quoted” £5",
        KOREAN,
        "어린 왕자는 바오밥나무를 뽑았다",
        "大韓民國 憲法 第一條",
    ],
)
def test_sound_text_is_left_alone(text):
    assert normalize.repair(text) == text


def test_normalises_form_lines_and_controls():
    assert normalize.normalise("가\r\n나\rx\u2028y\x00\u200b\ufeff\u202e\xa0z\n\n") == "가\n나\nx\ny z"
    assert normalize.normalise("\x81 \ud800") == "� �"


def test_keeps_code_and_mathematics():
    text = "def f(x):\n\treturn x² + ½  # ｗｉｄｅ ﬁ ℝ ∑"
    assert normalize.normalise(text) == text


@given(st.text(max_size=200))
def test_normalise_is_idempotent_and_encodable(text):
    once = normalize.normalise(text)
    assert normalize.normalise(once) == once
    once.encode()


@given(st.text(max_size=200))
def test_repair_survives_anything(text):
    assert isinstance(normalize.repair(text), str)
