"""Main text of pages: what the extractors lose is put into a form that they keep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.readers import html

FILLER = (
    "The old mill at the bend of the river stopped grinding in the autumn of 1931, and nobody in the village "
    "remembered afterwards who had turned the last wheel. Every spring she copied out the names of the farmers. "
)
EXTRACTORS = ("combined", "resiliparse", "trafilatura")


def _text(inner: str, extractor: html.Extractor = "combined") -> str:
    page = f"<!doctype html><meta charset=utf-8><body><article><p>{FILLER * 3}</p>{inner}<p>{FILLER}</p></article>"
    return html.main_text(page, extractor)


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_lone_characters_are_kept(extractor):
    inner = (
        "<p><a href=/a>서울</a>은 <a href=/b>한국</a>의 수도이고 <b>한강</b>이 <i>동서</i>로 흐른다. 제<b>1</b>조의 "
        "<em>값</em>은 <code>x</code>와 <code>y</code>를 더한 수 <b>이</b>다.</p>"
    )
    assert "서울은 한국의 수도이고 한강이 동서로 흐른다. 제1조의 값은 x와 y를 더한 수 이다." in _text(inner, extractor)


_LONE = st.characters(
    min_codepoint=0xA1, exclude_categories=("Cc", "Cf", "Cn", "Co", "Cs", "Mn", "Me", "Zs", "Zl", "Zp")
)


@given(_LONE.filter(lambda character: character != "¶"), st.sampled_from(["b", "i", "span", "em", "a", "code", "u"]))
def test_any_lone_character_in_any_inline_element_is_kept(character, tag):
    for written in (character, f"&#{ord(character)};", f"&#x{ord(character):x};", f"q{character}"):
        text = _text(f"<p>left<{tag}>{written}</{tag}>right, <{tag}>before</{tag}>{written}<{tag}>after</{tag}</p>")
        kept = written if written.endswith(character) else character
        assert f"left{kept}right, before{kept}after" in text


def test_icons_and_anchor_signs_are_still_dropped():
    assert "Title\n" in _text("<h2>Title<a href=#t>¶</a></h2><p>\ue001</p>")


@pytest.mark.parametrize("depth", range(6))
@pytest.mark.parametrize("kind", ["ul", "ol", "dl"])
def test_lists_are_kept_at_any_depth(kind, depth):
    item = "<dt>Glue</dt><dd>A glue that is safe for food.</dd>" if kind == "dl" else "<li>A glue that is safe.</li>"
    inner = f"<p>{FILLER * 3}</p><{kind}>{item}{item}</{kind}>"
    page = f"<body>{'<div>' * depth}{inner}{'</div>' * depth}"
    assert html.main_text(page).count("A glue that is safe") == 2


@pytest.mark.parametrize(
    "around",
    [
        "<ul>{}</ul>",
        "<div id=footer><ul>{}</ul></div>",
        "<nav><ul>{}</ul></nav>",
        "<div class='top-menu'><ul>{}</ul></div>",
    ],
)
def test_lists_of_the_frame_are_left_to_the_extractor(around):
    items = "<li><a href=/>Terms and privacy</a></li><li><a href=/>All of our shops</a></li>"
    text = html.main_text(f"<body>{around.format(items)}<article><p>{FILLER * 3}</p></article>")
    assert text == (FILLER * 3).strip()


ARTICLE = "".join(f"<p>In {1900 + year}, {FILLER}</p>" for year in range(9))
MENU = "<nav>" + "".join(f"<a href=/{n}>Section {n} of the paper</a> " for n in range(60)) + "</nav>"
CARDS = "".join(f"<h3>Story {n}</h3><div>Read how {n} people crossed the river in one day.</div>" for n in range(20))


def test_text_beside_the_main_part_is_left_out_where_the_page_has_a_frame():
    page = f"<body><div><div>{ARTICLE}</div></div><div>{CARDS}</div>{MENU}"
    assert "Story 7" in html.main_text(page, "resiliparse")
    text = html.main_text(page)
    assert (text.count(FILLER.strip()), "Story 7" in text, "Section 7" in text) == (9, False, False)


def test_trafilatura_decides_where_resiliparse_finds_nothing():
    page = f"<body><div class=modal>{ARTICLE}</div>{MENU}"
    assert html.main_text(page, "resiliparse") == ""
    text = html.main_text(page)
    assert (text.count(FILLER.strip()), "Section 7" in text) == (9, False)


def test_what_resiliparse_drops_within_a_paragraph_is_put_back():
    line = "Write to the list <code>&lt;debian-boot@lists.debian.org&gt;</code> or <span class=menu>File</span> a bug."
    assert "list <debian-boot@lists.debian.org> or File a bug." in _text(f"<p>{line}</p>")


TEX = r"\frac{1}{n^{2}}"
NOTE = f"<annotation encoding='application/x-tex'>{TEX}</annotation>"
DRAWN = "<mfrac><mn>1</mn><msup><mi>n</mi><mn>2</mn></msup></mfrac>"
FORMULAS = {
    "annotated": f"<math><semantics>{DRAWN}{NOTE}</semantics></math>",
    "alternative text": f"<math alttext='{TEX}'>{DRAWN}</math>",
    "plain MathML": f"<math><mrow>{DRAWN}</mrow></math>",
    "MathJax 2": f"<span class=MathJax_Preview>1/n</span><span class=MathJax><nobr>1n2</nobr></span>"
    f"<script type='math/tex'>{TEX}</script>",
    "MathJax 3": "<mjx-container><svg></svg>"
    f"<mjx-assistive-mml><math>{DRAWN}</math></mjx-assistive-mml></mjx-container>",
    "KaTeX": f"<span class=katex><span class=katex-mathml><math><semantics>{DRAWN}{NOTE}</semantics></math></span>"
    "<span class=katex-html aria-hidden=true>1n2</span></span>",
    "MediaWiki": f"<span class=mwe-math-element><span style='display: none'><math alttext='{{\\displaystyle {TEX}}}'>"
    f"{DRAWN}</math></span><img class=mwe-math-fallback-image-inline alt='{{\\displaystyle {TEX}}}'></span>",
    "MathJax 2 with MathML": f"<span class=MathJax><nobr>1n2</nobr><span class=MJX_Assistive_MathML><math>{DRAWN}"
    f"</math></span></span><script type='math/tex'>{TEX}</script>",
    "MathJax 2 drawn": f'<span class=MathJax data-mathml="<math>{DRAWN}</math>"><nobr>1n2</nobr></span>',
    "MathML script": f"<script type='math/mml'><math>{DRAWN}</math></script>",
    "prefixed MathML": f"<m:math alttext='{TEX}'><m:mi>n</m:mi></m:math>",
    "MediaWiki picture": f"<span class=mwe-math-element><img alt='{{\\displaystyle {TEX}}}'></span>",
    "picture in dollars": f"<img alt='${TEX}$' src=e.png>",
    "picture": f"<img alt='{TEX}' src=e.png>",
}


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("form", FORMULAS)
def test_a_formula_comes_once_as_latex(form, extractor):
    assert rf"The sum of the terms \({TEX}\) over all numbers." in _text(
        f"<p>The sum of the terms {FORMULAS[form]} over all numbers.</p>", extractor
    )


def test_a_display_formula_is_marked():
    assert rf"\[{TEX}\]" in _text(f"<p>So:</p><script type='math/tex; mode=display'>{TEX}</script>")


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<msqrt><mi>x</mi></msqrt>", r"\sqrt{x}"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot>", r"\sqrt[3]{x}"),
        ("<munderover><mo>∑</mo><mi>i</mi><mi>n</mi></munderover><mi>i</mi>", "∑_{i}^{n}i"),
        ("<mfenced><mi>a</mi><mi>b</mi></mfenced>", "(a,b)"),
        ("<mtable><mtr><mtd><mi>a</mi></mtd><mtd><mi>b</mi></mtd></mtr></mtable>", r"\begin{matrix}a & b\end{matrix}"),
        ("<mover><mi>x</mi><mo>¯</mo></mover>", r"\overline{x}"),
        ("<mtext>if </mtext><mi>x</mi>", r"\text{if }x"),
        ("<mphantom><mi>q</mi></mphantom><mi>x</mi>", "x"),
    ],
)
def test_mathml_without_latex_is_written_as_latex(markup, text):
    assert rf"\({text}\)" in _text(f"<p>Here <math>{markup}</math> stands.</p>")


def test_nested_mathml_is_walked_once():
    assert FILLER.strip() in _text("<p><math>" + "<mrow>" * 1000 + "x</math></p>")  # twice a level would never end


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("2<sup>10</sup> = 1024", "2^10 = 1024"),
        ("10<sup>-4</sup> m", "10^{-4} m"),
        ("H<sub>2</sub>O", "H_2O"),
        ("a<sub>ij</sub> is", "a_{ij} is"),
        ("x<sup>n+1</sup> is", "x^{n+1} is"),
        ("<i>π</i><sup>2</sup> is", "π^2 is"),
        ("e<sup>iπ</sup> is", "e^{iπ} is"),
        ("x<sup>a<sub>1</sub></sup> is", "x^{a_1} is"),
        ("the 2<sup>nd</sup> day", "the 2nd day"),
        ("as shown<sup><a href=#n>3</a></sup> above", "as shown3 above"),
        ("<ruby>漢字<rt>かんじ</rt></ruby>を", "漢字(かんじ)を"),
        ("<ruby>漢字<rp>(</rp><rt>かんじ</rt><rp>)</rp></ruby>を", "漢字(かんじ)を"),
    ],
)
def test_small_text_keeps_its_meaning(markup, text):
    assert text in _text(f"<p>We know that {markup} holds.</p>")


def test_code_keeps_its_indentation_and_cells_stay_apart():
    assert "if x:\n\t\treturn 1\n\telse" in _text("<pre>if x:\n\t\treturn 1\n\telse</pre>")
    assert "one\ttwo" in _text("<table><tr><td>one</td><td>two</td></tr></table>")


@pytest.mark.parametrize("tag", ["summary", "legend", "dialog", "menu", "dt", "address"])
def test_blocks_are_not_glued_to_what_follows(tag):
    assert "First words\n" in _text(f"<div><{tag}>First words</{tag}>Second words.</div>")


SHALLOW = {
    "comment": "<!-- " + "<div>\n" * 3000 + "-->",
    "unclosed comment": "<!-- " + "<div>\n" * 3000,
    "script": "<script>" + "'<div>'," * 3000 + "</script>",
    "self-closed": "<svg>" + "<polygon points='0,1'/>" * 3000 + "</svg>",
    "anchors": "<p>" + "<a name=n> " * 3000,
    "buttons": "<button>" * 3000,
    "options": "<select>" + "<option>x" * 3000,
    "paragraphs": "<p>x" * 3000,
    "items": "<ul>" + "<li>x" * 3000,
    "terms": "<dl>" + "<dt>x<dd>y" * 3000,
    "cells": "<table>" + "<tr><td>x<td>y" * 3000,
    "headings": "<h1>x</h2>" * 3000,
    "attribute": '<p title="' + "<div>" * 3000 + '">x</p>',
}


@pytest.mark.parametrize("kind", SHALLOW)
def test_tags_that_do_not_nest_are_not_depth(kind):
    assert FILLER.strip() in html.main_text(f"<body><article><p>{FILLER}</p></article>{SHALLOW[kind]}")


@pytest.mark.parametrize("page", ["<div>" * 2500, "<div></x>" * 2500, "<b><div>" * 2500, "<table><td>" * 2500])
def test_deep_pages_are_refused(page):
    with pytest.raises(html.TooDeep):
        html.main_text(f"<body>{page}text")


def test_a_page_just_deep_enough_is_read():
    assert "text" in html.main_text("<body>" + "<div>" * (html.MAX_DEPTH - 1) + "text")
