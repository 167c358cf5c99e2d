"""Where records keep their address, and spellings of one host."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.readers import addresses

URL = "https://denied.example/a"


@pytest.mark.parametrize(
    "record",
    [
        {"url": URL},
        {"URL": URL},
        {"text": "x", "metadata": {"url": URL}},
        {"meta": json.dumps({"url": URL})},
        {"metadata": {"source": {"url": URL}}},
        {"warc-target-uri": URL},
        {"warc_headers": {"WARC-Target-URI": f"<{URL}>"}},
        {"metadata": json.dumps({"warc": json.dumps({"uri": URL})})},
        {"metadata": [("url", URL)]},
        {"source_url": URL},
        {"url": None, "link": URL},
        {"url": "page 3", "id": URL},
        {"url": b"https://denied.example/a"},
        {"url": "https://denied.example\u200b/\na"},
        {"source": URL},
        {"sourceUrl": URL},
        {"url": [URL, "https://other.example"]},
        {"metadata": [{"WARC-Target-URI": URL}]},
    ],
)
def test_an_address_is_found_wherever_a_record_keeps_it(record):
    assert addresses.find(record) == URL


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"url": ""},
        {"url": 5},
        {"url": "\ud800"},
        {"source": "wiki.en"},
        {"id": "a.b/c"},
        {"text": URL},
        {"meta": "{no json"},
        {"images": {"url": URL}},
        {"url": "urn:uuid:1"},
    ],
)
def test_what_is_no_address_of_the_record(record):
    assert addresses.find(record) is None


def test_the_outermost_address_counts():
    assert addresses.find({"metadata": {"url": "https://inner.example"}, "url": URL}) == URL


@pytest.mark.parametrize(
    "spelling",
    [
        "https://denied.example/x",
        "HTTP://DENIED.EXAMPLE",
        "denied.example/x",
        "denied.example:8080/x",
        "//denied.example/x",
        "http:denied.example",
        "https:\\\\denied.example\\x",
        "https://user:p@ss@denied.example:443?q",
        "https://denied.example./x",
        "https://den\u200bied.exam\u00adple/x",
        " \thttps://denied\n.example#part ",
        "https://denied%2Eexample/",
        "https://ｄｅｎｉｅｄ．example/",
        "<https://denied.example/x>",
        "ftp://denied.example/x",
    ],
)
def test_spellings_of_one_host(spelling):
    assert addresses.host(spelling) == "denied.example"


def test_hosts_of_any_script_are_compared_as_name_servers_do():
    assert addresses.host("http://한국.kr/") == addresses.host("XN--3E0B707E.kr") == "xn--3e0b707e.kr"
    assert addresses.host("http://한국。kr/") == "xn--3e0b707e.kr"
    assert addresses.host("http://[2001:DB8::1]:80/") == "2001:db8::1"


@pytest.mark.parametrize(
    "text", ["", "   ", "no address", "ko-text/17", "urn:uuid:5", "http://", "https:///?x", "a b.c"]
)
def test_no_host(text):
    assert addresses.host(text) == ""


@given(st.text(max_size=60))
def test_the_host_of_a_host_is_itself_and_nothing_raises(text):
    found = addresses.host(text)
    assert found == "" or addresses.host(f"http://{found}" if ":" not in found else f"http://[{found}]") == found
