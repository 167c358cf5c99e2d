"""What speaks against a document by itself: licence, address, language, rules, policies."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.data_schema import Compliance
from configs.features import FEATURES
from data_pipeline.decisions import reasons
from data_pipeline.features import pii


def refused(licenses, urls, settings) -> list[list[str]]:
    columns = reasons.compliance(licenses, urls, settings)
    return [[name for name, flags in columns.items() if flags[row]] for row in range(len(licenses))]


def one(license="CC0-1.0", url=None, **lists) -> list[str]:
    return refused([license], [url], Compliance.model_validate(lists))[0]


def measured(**columns) -> pa.Table:
    row = {
        "language": "ko",
        "license": "CC0-1.0",
        "url": None,
        "contamination_matches": 0,
        **dict.fromkeys(FEATURES, 1.0),
        **{f"pii_{kind}": 0 for kind in pii.TYPES},
        **columns,
    }
    return pa.table({name: [value] for name, value in row.items()})


def test_licences_by_name_case_apart() -> None:
    assert one("CC-BY-NC-4.0", licenses={"deny": ("cc-by-nc-4.0",)}) == ["licence_refused"]
    assert one("CC-BY-4.0", licenses={"deny": ("CC-BY-NC-4.0",)}) == []
    assert one("MIT", licenses={"allow": ("CC0-1.0",)}) == ["licence_refused"]
    assert one("cc0-1.0 ", licenses={"allow": ("CC0-1.0",)}) == []
    assert one("CC0-1.0", licenses={"allow": ("CC0-1.0",), "deny": ("CC0-1.0",)}) == ["licence_refused"]


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("https://www.spam.example/a", True),
        ("http://SPAM.example:8080/", True),
        ("https://spam.example./", True),
        ("https://notspam.example/", False),
        ("https://example.org/spam.example", False),
        (None, False),
    ],
)
def test_a_host_covers_its_subdomains(url, refused) -> None:
    assert one(url=url, hosts={"deny": ("spam.example",)}) == (["host_refused"] if refused else [])


@pytest.mark.parametrize(
    "entry", ["spam.example", "*.spam.example", " .SPAM.example", "https://spam.example/", "스팸.example"]
)
def test_an_entry_is_read_like_an_address(entry) -> None:
    host = "xn--9t4b661a.example" if "스팸" in entry else "www.spam.example"
    assert one(url=f"https://{host}/", hosts={"deny": (entry,)}) == ["host_refused"]
    assert one(url=f"{host}/x", hosts={"deny": (entry,)}) == ["host_refused"]


def test_an_allow_list_of_hosts_refuses_what_has_another_or_a_broken_one() -> None:
    allowed = {"hosts": {"allow": ("example.org",)}}
    assert one(url="https://example.org/x", **allowed) == []
    assert one(url="https://example.com/x", **allowed) == ["host_refused"]
    assert one(url="http://[broken/", **allowed) == ["host_refused"]
    assert one(url=None, **allowed) == []


def test_url_words_stand_between_separators() -> None:
    assert one(url="https://a.example/Casino-royale", url_words=("casino",)) == ["url_word"]
    assert one(url="https://a.example/occasionally", url_words=("casino",)) == []
    assert one(url="https://a.example/바카라/1", url_words=("바카라",)) == ["url_word"]


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_licence_and_address_gets_a_verdict(license: str, url: str) -> None:
    settings = Compliance.model_validate(
        {"hosts": {"allow": ("a.b",)}, "url_words": ("x",), "licenses": {"deny": ("l",)}}
    )
    (found,) = refused([license], [url], settings)
    assert set(found) <= {"licence_refused", "host_refused", "url_word"}


def test_reasons_come_in_their_order(make_recipe) -> None:
    recipe = make_recipe(
        {"s": {"path": "x", "languages": ["en"]}},
        rules={"ko": {"words": {"min": 2}, "characters": {"min": 2}}, "en": {}, "code": {}},
        compliance={"licenses": {"deny": ["CC0-1.0"]}, "url_words": ["bad"]},
        personal_information="drop",
        decontamination={"benchmarks": {"b": "x"}},
    )
    table = measured(url="http://a/bad", pii_email=2, contamination_matches=3)
    assert reasons.against(table, "s", recipe) == [
        [
            "licence_refused",
            "url_word",
            "wrong_language",
            "characters<2",
            "words<2",
            "personal_information",
            "contaminated",
        ]
    ]


def test_policies_that_only_report_drop_nothing(make_recipe) -> None:
    recipe = make_recipe(
        {"s": {"path": "x"}},
        decontamination={"benchmarks": {"b": "x"}, "policy": "report"},
        personal_information="mask",
    )
    assert reasons.against(measured(pii_email=2, contamination_matches=3), "s", recipe) == [[]]
