"""HTTP responses as crawlers keep them, with headers that are missing or lie."""

from __future__ import annotations

import gzip
import random
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.readers import http_messages
from data_pipeline.readers.archive import parse_headers

PAGE = b"<!doctype html><html><body><p>" + "가을 하늘은 높고 푸르다. ".encode() * 20 + b"</p></body></html>"
LIMIT = 100_000


def _chunked(data: bytes, size: int = 150) -> bytes:
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # names of tests must not hold the time: workers compare them


def _deflated(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


def _content(body: bytes, headers: bytes = b"") -> bytes:
    block = b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n" + body
    return http_messages.content(http_messages.parse(block, parse_headers), LIMIT)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (PAGE, b""),
        (_gzipped(PAGE), b"Content-Encoding: gzip\r\n"),
        (_gzipped(PAGE), b"Content-Encoding: x-gzip\r\n"),
        (_gzipped(PAGE), b""),
        (zlib.compress(PAGE), b"Content-Encoding: deflate\r\n"),
        (_deflated(PAGE), b"Content-Encoding: deflate\r\n"),
        (brotli.compress(PAGE), b"Content-Encoding: br\r\n"),
        (zstandard.ZstdCompressor().compress(PAGE), b"Content-Encoding: zstd\r\n"),
        (_chunked(PAGE), b"Transfer-Encoding: chunked\r\n"),
        (_chunked(PAGE), b""),
        (_chunked(PAGE)[:-7], b"Transfer-Encoding: chunked\r\n"),
        (_chunked(_gzipped(PAGE)), b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
        (_chunked(brotli.compress(PAGE)), b"content-encoding: br\r\ntransfer-encoding: Chunked\r\n"),
        (_chunked(_gzipped(PAGE)), b"Transfer-Encoding: gzip, chunked\r\n"),
        (_gzipped(_gzipped(PAGE)), b"Content-Encoding: gzip, gzip\r\n"),
        (_gzipped(_deflated(PAGE)), b"Content-Encoding: deflate, gzip\r\n"),
        (PAGE, b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
        (PAGE, b"Content-Encoding: br\r\n"),
        (PAGE, b"Content-Encoding: deflate\r\n"),
        (_gzipped(PAGE), b"Content-Encoding: br\r\n"),
        (_gzipped(PAGE)[:-8], b"Content-Encoding: gzip\r\n"),
    ],
)
def test_encodings_are_peeled_whatever_the_headers_say(body, headers):
    found = _content(body, headers)
    assert found.startswith(PAGE[:-10])
    assert len(found) <= len(PAGE)


def test_a_damaged_body_is_kept_up_to_the_damage():
    noisy = random.Random(1).randbytes(20_000)
    assert 1_000 < len(_content(gzip.compress(b"<p>" + noisy)[:15_000])) < 20_003


@pytest.mark.parametrize("compress", [gzip.compress, brotli.compress, zlib.compress])
def test_a_bomb_is_cut(compress):
    headers = b"Content-Encoding: br\r\n" if compress is brotli.compress else b"Content-Encoding: deflate\r\n"
    assert len(_content(compress(bytes(30_000_000)), headers)) == LIMIT


@pytest.mark.parametrize(
    ("block", "status", "kind", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\nx", 200, "text/html", b"x"),
        (b"HTTP/2 200\r\ncontent-type: text/html\r\n\r\nx", 200, "text/html", b"x"),
        (b"HTTP/1.0 404 Not Found\nContent-Type: text/html\n\nx", 404, "text/html", b"x"),
        (b"http/1.1 200\r\n\r\nx", 200, "", b"x"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nCONTENT-TYPE:\ttext/HTML\r\n\r\nx", 200, "text/html", b"x"),
        (b"HTTP/1.1 204 No Content\r\nA: b\r\n", 204, "", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\nx", 200, "text/html", b"x"),
        (b"<html>0.9", None, "", b"<html>0.9"),
        (b"", None, "", b""),
    ],
)
def test_status_headers_and_body(block, status, kind, body):
    found = http_messages.parse(block, parse_headers)
    assert (found.status, found.body) == (status, body)
    assert http_messages.media_type(found.headers.get("content-type"))[0] == kind


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text/html; charset=EUC-KR", ("text/html", "EUC-KR")),
        ('Text/HTML;Charset="utf-8";x=y', ("text/html", "utf-8")),
        ("text/html, text/html; charset=utf-8", ("text/html", "utf-8")),
        (None, ("", None)),
        ("*/*", ("*/*", None)),
    ],
)
def test_media_types(value, expected):
    assert http_messages.media_type(value) == expected


@pytest.mark.parametrize(
    "page", [PAGE, b"\xef\xbb\xbf \n<HTML>", b"<?xml version='1.0'?>\n<html ", b"<!-- x", "<p>".encode("utf-16")]
)
def test_pages_are_known_by_their_beginning(page):
    assert http_messages.looks_like_a_page(page)
    assert not http_messages.looks_like_a_page(b"%PDF-1.4 " + page)


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate", "br", "chunked", "zstd", "gzip, chunked", "x"]))
def test_nothing_raises(body, encoding):
    _content(body, f"Content-Encoding: {encoding}\r\nTransfer-Encoding: {encoding}\r\n".encode())
