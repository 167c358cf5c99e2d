"""Spellings of one address, and addresses that only look alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.features import urls


@pytest.mark.parametrize(
    "spelling",
    [
        "http://example.org/a/b",
        "https://EXAMPLE.org/a/b/",
        "http://www.example.org:80/a/b#top",
        "https://user:secret@example.org:443/a/b?utm_source=x&fbclid=1",
        "http://example.org/%61/b;jsessionid=1A",
        " http://example.org./a/b?PHPSESSID=3 ",
        "http://example.org/a/b#",
        "http://example.org/a/b#utm_source=feed",
        "http://example.org/a/b#xtor=RSS-4",
        "http://example.org/a/b#.Xy12-_",
        "http://example.org/a/b#:~:text=brown%20fox",
        "http://example.org/a/b#Comments",
    ],
)
def test_spellings_of_one_address(spelling: str) -> None:
    assert urls.canonical(spelling) == "example.org/a/b"
    assert urls.url_hash(spelling) == urls.url_hash("http://example.org/a/b")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://한국.kr/문서", "http://xn--3e0b707e.kr/%eb%ac%b8%ec%84%9c"),
        ("http://a.org/?b=2&a=1", "http://a.org?a=1&b=2&gclid=9"),
        ("http://a.org/%2f%7e", "http://a.org/%2F~"),
        ("http://law.kr/7#제1조", "http://law.kr/7#%EC%A0%9C1%EC%A1%B0:~:text=x"),
    ],
)
def test_equal(one: str, other: str) -> None:
    assert urls.canonical(one) == urls.canonical(other) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a.org/A", "http://a.org/a"),
        ("http://a.org/x?a=1", "http://a.org/x?a=2"),
        ("http://a.org:8080/", "http://a.org/"),
        ("http://a.org/%2F", "http://a.org/"),
        ("http://a.org/#!/one", "http://a.org/#!/two"),
        ("http://law.kr/7#제1조", "http://law.kr/7#제2조"),
        ("http://a.org/x#topology", "http://a.org/x"),
        ("http://www.kr/", "http://kr/"),
        ("http://a.org/x?utm=1", "http://a.org/x"),
        ("http://m.a.org/", "http://a.org/"),
    ],
)
def test_different(one: str, other: str) -> None:
    assert urls.canonical(one) != urls.canonical(other)


@pytest.mark.parametrize("text", ["", "ko-text/17", "file:///etc/passwd", "http://", "http://[::1", "http://a:b/"])
def test_no_address(text: str) -> None:
    assert urls.canonical(text) is None
    assert urls.url_hash(text) is None
    assert urls.url_hash(None) is None


@given(st.text(max_size=60))
def test_any_text_has_a_spelling_that_is_its_own(text: str) -> None:
    found = urls.canonical(f"http://host.kr/{text}")
    if found is not None:
        assert found.isascii()
        assert urls.canonical(f"http://{found}") == found
