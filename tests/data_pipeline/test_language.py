"""Language by script, then by model."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.features.language import identify
from data_pipeline.readers import html, streams

KOREAN = "가을 하늘은 높고 푸르다. 아이들은 운동장에서 공을 차며 논다. "
ENGLISH = "The harbour was quiet that night, and nobody heard the boats come in from the open sea. "
GERMAN = "Der Hafen war in jener Nacht ruhig, und niemand hörte die Boote von der offenen See hereinkommen. "
FRENCH = "Le port était calme cette nuit-là, et personne n'entendit les bateaux rentrer du large. "


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (KOREAN, "ko"),
        (ENGLISH, "en"),
        (GERMAN, "other"),
        (FRENCH, "other"),
        ("東京の天気は晴れです。今日は散歩に行きました。", "other"),
        ("Сегодня хорошая погода, и мы пошли гулять.", "other"),
        (ENGLISH * 5 + "서울", "en"),
        (KOREAN + "std::vector<int> values = make_vector(10);", "ko"),
        ("ㅋㅋㅋㅋㅋ ㅠㅠ", "ko"),
    ],
)
def test_identifies(text, language):
    found, probability = identify(text * 3)
    assert found == language
    assert probability >= 0.65


@pytest.mark.parametrize("text", ["", "1234 5678", "!!! ???", "\n"])
def test_no_letters_no_language(text):
    assert identify(text) == ("other", 0.0)


def test_half_korean_is_surer_than_a_quarter():
    word = "international"
    quarter, half = (identify("한국" * n + " " + word * 2) for n in (3, 8))
    assert quarter[0] == half[0] == "ko"
    assert quarter[1] < half[1] == 1.0


CODE = "let resolved = registry.lookup(identifier)?.as_reference();\n"


def test_code_does_not_hide_the_language_of_the_text_around_it():
    language, probability = identify((KOREAN + "\n" + CODE * 4) * 5)
    assert (language, probability) == ("ko", 1.0)
    assert identify((ENGLISH + "\n") * 5 + "서울, 부산\n" + CODE * 4)[0] == "en"
    assert identify((GERMAN + "\n") * 5 + "서울, 부산, 대구, 인천, 광주, 대전\n")[0] == "other"


@given(st.text(max_size=200))
def test_any_text_gives_a_language_and_a_probability(text):
    language, probability = identify(text)
    assert language in ("ko", "en", "other")
    assert 0 <= probability <= 1


def test_long_texts_are_sampled_from_beginning_middle_and_end():
    assert identify(ENGLISH * 500)[0] == "en"
    assert identify(ENGLISH + GERMAN * 500 + ENGLISH)[0] == "other"


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("folder", "labelled", "expected", "least"),
    [
        ("general/ko-text/kowiki", {"ko"}, "ko", 0.99),
        ("general/en-text/enwiki", {"en"}, "en", 0.99),
        ("general/web-html/trafilatura-pages", {"de", "fr"}, "other", 1),
        ("general/web-html/trafilatura-pages", {"en"}, "en", 0.95),  # six of its 176 labels are wrong: German pages
    ],
)
def test_on_the_corpus(corpus_dir, folder, labelled, expected, least):
    found = []
    for path in sorted((corpus_dir / folder).iterdir())[:4]:
        for line in islice(streams.lines(path, 8_000_000), 200):
            record = json.loads(line)
            text = record.get("text") or html.main_text(record.get("html", ""))
            if record["lang"] in labelled and len(text) >= 200:
                found.append(identify(text)[0])
    assert len(found) > 50
    assert found.count(expected) >= least * len(found)
