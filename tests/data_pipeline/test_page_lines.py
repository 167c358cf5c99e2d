"""Broken lines are made whole, and another extractor's choice is found again in the page's own lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.readers import page_lines

BLOCK = "Mail the list at <debian-boot@lists.debian.org> before you report anything about the installer."
BROKEN = BLOCK.replace("<debian-boot@lists.debian.org> ", "")
WHOLE = ["Menu", "", "Title", "", BLOCK, "", "Second paragraph, which nobody has touched so far.", "", "Imprint"]


def test_a_broken_line_is_made_whole_and_nothing_else_is_added():
    assert page_lines.mended(["Title", "", BROKEN, "", WHOLE[6]], WHOLE) == WHOLE[2:7]


def test_pieces_of_one_block_become_one_line():
    assert page_lines.mended([BLOCK[:40], "", BLOCK[60:]], WHOLE) == [BLOCK, ""]


def test_alike_blocks_are_both_kept():
    lines = [
        f"Sorts beginning with the {which} value, by the rules that you define on Data." for which in ("low", "high")
    ]
    broken = [line.replace("by the rules ", "") for line in lines]
    assert page_lines.mended(broken, lines) == lines


@given(st.lists(st.text(" ab,.", max_size=40), max_size=12), st.data())
def test_whole_lines_stay_as_they_are(whole, data):
    part = [line for line in whole if data.draw(st.booleans())]
    assert page_lines.mended(part, whole) == part


@given(st.lists(st.text(" abc,.", max_size=60), max_size=8), st.lists(st.text(" abc,.", max_size=60), max_size=8))
def test_every_line_comes_from_one_of_the_two(part, whole):
    assert set(page_lines.mended(part, whole)) <= {*part, *whole}
    assert [line for line in page_lines.selected(whole, "\n".join(part)) if line not in whole] == []


def test_a_choice_is_found_in_other_decoration():
    whole = [
        "Menu",
        "",
        "  • An item that is long enough to be sure of it.",
        "a long first cell of it\tanother cell",
        "Imprint",
    ]
    choice = "- An item that is long enough to be sure of it.\n| a long first cell of it | another cell |"
    assert page_lines.selected(whole, choice) == whole[1:4]


def test_a_line_of_the_frame_that_the_text_repeats_stays_out():
    lines = [f"Paragraph {at} is one of many and says something of its own." for at in range(30)]
    assert page_lines.selected(["News", *["Menu item"] * 9, *lines, "News"], "\n".join(["News", *lines])) == [
        *lines,
        "News",
    ]
