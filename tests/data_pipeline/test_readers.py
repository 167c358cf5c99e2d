"""Files -> documents and rejects, whatever is in them."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.readers import formats, html, streams
from data_pipeline.readers.formats import Document, Reject, Settings

KOREAN = "가을 하늘은 높고 푸르다. 아이들은 운동장에서 공을 차며 논다."
PAGE = (
    "<html><head><title>t</title></head><body><nav><a href=/>menu</a></nav>"
    f"<p>{KOREAN}</p><p>둘째 문단이다.</p></body></html>"
)
MAX = 10_000


def _read(path: Path, form: str, data: bytes, max_bytes: int = MAX, **settings: Any) -> list[Document | Reject]:
    path.write_bytes(data)
    return list(formats.read(path, form, Settings(max_bytes, **settings)))


def _lines(*records: object) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def test_json_lines_keep_id_and_url(tmp_path):
    record = {"id": "a-1", "url": "https://example.com/x", "text": KOREAN, "language": "fr"}
    (document,) = _read(tmp_path / "f", "jsonl", _lines(record))
    assert document == Document(0, KOREAN, "utf-8", "a-1", "https://example.com/x")


def test_html_field_is_extracted(tmp_path):
    (document,) = _read(tmp_path / "f", "jsonl", _lines({"html": PAGE}))
    assert KOREAN in document.text
    assert "둘째 문단이다." in document.text.split("\n")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not_json"),
        (b"[1]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"id": "x"}', "no_text_field"),
        (b'{"text": 5}', "no_text_field"),
        (b'{"text": " \\n\\t"}', "empty"),
        (b"[" * 5000, "not_json"),
        (b'{"text": "' + b"x" * MAX + b'"}', "too_long"),
        (b'{"html": "' + b"<b>" * 2001 + b'"}', "too_deep"),
    ],
)
def test_each_bad_line_is_rejected_with_its_reason_between_good_ones(tmp_path, line, reason):
    good = json.dumps({"text": KOREAN}).encode()
    first, reject, last = _read(tmp_path / "f", "jsonl", good + b"\n" + line + b"\n" + good, MAX + 2)
    assert (first.index, reject.index, reject.reason, last.index) == (0, 1, reason, 2)
    assert first.text == last.text == KOREAN
    assert reason in formats.REASONS


def test_ids_that_cannot_name_a_document_are_not_used(tmp_path):
    documents = _read(
        tmp_path / "f", "jsonl", _lines(*({"id": i, "text": "x"} for i in ("", "a\nb", "y" * 201, True, 2**65)))
    )
    assert [document.raw_id for document in documents] == [None] * 5


def test_the_recipe_names_the_fields_of_a_record(tmp_path):
    records = _lines({"body": KOREAN, "number": 7, "text": "other", "id": "x"}, {"text": "other"}, {"html": PAGE})
    first, reject, last = _read(tmp_path / "f", "jsonl", records, text_field="body", id_field="number")
    assert (first.text, first.raw_id) == (KOREAN, "7")
    assert (reject.reason, reject.detail) == ("no_text_field", "text")
    assert KOREAN in last.text


def test_dotted_names_lead_into_nested_records_and_json_in_strings(tmp_path):
    nested = {"data": {"body": KOREAN}, "meta": json.dumps({"key": 5, "page": PAGE, "at": "https://x.org/"})}
    data = _lines(nested, {"data.body": "둘째"})
    first, second = _read(
        tmp_path / "f", "jsonl", data, text_field="data.body", id_field="meta.key", url_field="meta.at"
    )
    assert (first.text, first.raw_id, first.url, second.text) == (KOREAN, "5", "https://x.org/", "둘째")
    page, reject = _read(tmp_path / "f", "jsonl", data, html_field="meta.page")
    assert KOREAN in page.text
    assert (reject.reason, reject.detail) == ("no_text_field", "data.body")


@pytest.mark.parametrize(
    ("stated", "license"),
    [
        ({"license": ["CC-BY-NC-4.0"]}, "CC-BY-NC-4.0"),
        ({"licenses": ["MIT", "Apache-2.0"]}, "MIT, Apache-2.0"),
        ({"metadata": {"license": "CC-BY-NC-4.0"}}, "CC-BY-NC-4.0"),
        ({"meta": json.dumps({"licence": "CC0-1.0"})}, "CC0-1.0"),
        ({"license": "MIT", "metadata": {"license": "other"}}, "MIT"),
        ({"license": None, "title": {"license": "a novel"}}, None),
    ],
)
def test_a_license_is_found_where_records_keep_it(tmp_path, stated, license):
    (document,) = _read(tmp_path / "f", "jsonl", _lines({"text": KOREAN, **stated}))
    assert document.license == license


@pytest.mark.parametrize("text", ["", " \n", None])
def test_a_record_without_text_has_the_text_of_its_page(tmp_path, text):
    (document,) = _read(tmp_path / "f", "jsonl", _lines({"text": text, "html": PAGE}))
    assert KOREAN in document.text


def test_a_text_of_another_type_is_named(tmp_path):
    (reject,) = _read(tmp_path / "f", "jsonl", _lines({"text": ["one", "two"]}))
    assert (reject.reason, reject.detail) == ("no_text_field", "text is of type list; text")


def test_the_fields_that_were_seen_are_named(tmp_path):
    (reject,) = _read(tmp_path / "f", "jsonl", _lines({"content": "x", "meta": {"url": "y"}}))
    assert (reject.reason, reject.detail) == ("no_text_field", "content, meta, meta.url")


def test_html_in_a_text_field_is_noticed_and_read_as_html_when_asked_for(tmp_path):
    data = _lines({"text": PAGE}, {"text": "a < b, </ and </p> alone"})
    assert [document.markup for document in _read(tmp_path / "f", "jsonl", data)] == [True, False]
    page, _ = _read(tmp_path / "f", "jsonl", data, html_field="text")
    assert (KOREAN in page.text, "<p>" in page.text, page.markup) == (True, False, False)


def test_a_records_own_licence_is_kept_by_either_spelling(tmp_path):
    licences = ({"licence": "MIT"}, {"license": "CC0-1.0"}, {"licence": "", "license": "X"}, {"license": "a\nb"}, {})
    documents = _read(tmp_path / "f", "jsonl", _lines(*({"text": "x", **licence} for licence in licences)))
    assert [document.license for document in documents] == ["MIT", "CC0-1.0", "X", None, None]


def test_compatibility_forms_are_folded_only_when_asked_for(tmp_path):
    data = _lines({"text": "ＡＢＣ ｗｉｄｅ ½ ㅋㅋㅏ ﾡ 가"})
    assert _read(tmp_path / "f", "jsonl", data)[0].text == "ＡＢＣ ｗｉｄｅ ½ ㅋㅋㅏ ﾡ 가"
    assert _read(tmp_path / "f", "jsonl", data, unicode="NFKC")[0].text == "ABC wide 1⁄2 ㅋㅋㅏ ﾡ 가"


def test_lone_surrogates_become_replacement_characters(tmp_path):
    (document,) = _read(tmp_path / "f", "jsonl", b'{"text": "\\ud83d x \\udc00", "url": "\\ud800"}')
    assert (document.text, document.url) == ("� x �", None)


@pytest.mark.parametrize(
    "encode",
    [
        bytes,
        gzip.compress,
        zstandard.ZstdCompressor().compress,
        lambda data: b"".join(gzip.compress(line) for line in data.splitlines(keepends=True)),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.decode().encode("utf-16"),
        lambda data: data.replace(b"\n", b"\r\n\n")[:-3],
        lambda data: data.decode().encode("cp949"),
    ],
)
def test_compression_and_encoding_are_known_by_content(tmp_path, encode):
    documents = _read(tmp_path / "whatever.jsonl", "jsonl", encode(_lines({"text": KOREAN}, {"text": KOREAN})))
    assert [document.text for document in documents] == [KOREAN] * 2


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_a_cut_stream_gives_its_beginning_and_a_reject(tmp_path, compress):
    records = [{"text": f"{number} {random_words(number)}"} for number in range(3000)]
    data = compress(_lines(*records))
    *documents, reject = _read(tmp_path / "f", "jsonl", data[: len(data) * 2 // 3])
    assert reject.reason in ("broken_compression", "not_json")
    assert 0 < len(documents) < len(records)
    assert all(isinstance(document, Document) for document in documents)


def random_words(seed: int) -> str:
    return " ".join(str((seed * 7919 + step * 104729) % 99991) for step in range(12))


def test_a_wrong_checksum_is_reported(tmp_path):
    data = bytearray(gzip.compress(_lines({"text": KOREAN})))
    data[-6] ^= 1
    found = _read(tmp_path / "f", "jsonl", bytes(data))
    assert [item.reason for item in found if isinstance(item, Reject)] == ["broken_compression"]


@pytest.mark.parametrize("form", ["jsonl", "html", "text"])
def test_a_bomb_is_rejected_within_bounded_memory(tmp_path, form):
    path = tmp_path / "bomb"
    path.write_bytes(zstandard.ZstdCompressor().compress(b'{"text": "' + b"a" * 50_000_000 + b'"}'))
    tracemalloc.start()
    (reject,) = formats.read(path, form, Settings(1_000_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reject.reason == "too_long"
    assert peak < 8_000_000


def test_a_line_after_one_that_is_too_long_is_read(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 200_000 + b"\nshort\n" + b"y" * 200_000)
    kinds = [line if isinstance(line, bytes) else "long" for line in streams.lines(path, 100_000)]
    assert kinds == ["long", b"short", "long"]


@pytest.mark.parametrize("form", sorted(formats.FORMATS))
def test_lost_file_is_a_reject(tmp_path, form):
    (reject,) = formats.read(tmp_path / "gone", form, Settings(MAX))
    assert reject.reason == "unreadable_file"


def test_text_file_keeps_indentation(tmp_path):
    code = "def f():\n    return 1\n"
    (document,) = _read(tmp_path / "f.py", "text", code.encode())
    assert document.text == code.rstrip("\n")


def test_mojibake_is_repaired_in_prose_and_left_in_code(tmp_path):
    broken = KOREAN.encode().decode("latin-1")
    path = tmp_path / "f"
    path.write_text(broken, encoding="utf-8")
    assert next(formats.read(path, "text", Settings(MAX))).text == KOREAN
    assert "ê" in next(formats.read(path, "text", Settings(MAX, code=True))).text


def test_undecodable_file_is_rejected(tmp_path):
    (reject,) = _read(tmp_path / "f", "text", bytes(range(128, 256)) * 40 + b"\x00\x01\x02" * 50)
    assert reject.reason == "unknown_encoding"


# --- HTML --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "declared"), [("utf-8", ""), ("euc-kr", "EUC-KR"), ("euc-kr", ""), ("euc-kr", "utf-8")]
)
def test_html_file_in_any_korean_encoding(tmp_path, codec, declared):
    page = PAGE.replace("<head>", f'<head><meta charset="{declared}">') if declared else PAGE
    (document,) = _read(tmp_path / "f.html", "html", page.encode(codec))
    assert KOREAN in document.text


def test_page_without_body_text_is_empty(tmp_path):
    (reject,) = _read(tmp_path / "f.html", "html", b"<html><script>var x = 1;</script><style>p{}</style></html>")
    assert reject.reason == "empty"


def test_unclosed_paragraphs_are_all_kept():
    text = html.main_text("<html><body>" + "".join(f"<p>문단 {n}번이다." for n in range(3000)) + "</body>")
    assert all(f"문단 {n}번이다." in text for n in (0, 1500, 2999))


def test_trafilatura_takes_the_article_when_asked_for():
    filler = "<p>" + KOREAN * 5 + "</p>"
    page = f"<html><body><nav><a href=/>홈으로</a></nav><article>{filler}{filler}</article></body></html>"
    text = html.main_text(page, "trafilatura")
    assert KOREAN in text
    assert "홈으로" not in text
    assert html.main_text("<html><script>1</script></html>", "trafilatura") == ""


TAGS = [
    "<div>",
    "</div>",
    "<p>",
    "<table>",
    "<tr><td>",
    "<script>",
    "</script>",
    "<!--",
    "-->",
    "<![CDATA[",
    "<svg>",
    "</p>",
    "&#xD800;",
    "&#0;",
    "<template>",
    "<frameset>",
    "<style>",
    "\x00",
    "\ud800",
    "가",
    '<a href="',
    '">',
    "<pre>",
]


@pytest.mark.parametrize("extractor", ["combined", "resiliparse", "trafilatura"])
@given(tags=st.lists(st.sampled_from(TAGS), max_size=60))
@settings(max_examples=60)
def test_no_markup_raises(extractor, tags):
    assert isinstance(html.main_text("".join(tags), extractor), str)
