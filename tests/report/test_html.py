"""Parts of a page escape what they show, and list cases from the lowest score on."""

import re

import numpy as np

from flaxunet.report import html


def test_large_images_are_made_smaller():
    assert len(html.picture(np.random.default_rng(0).random((1000, 900, 3)))) < 4 / 3 * 3 * html.SIDE**2


def test_settings_are_words_and_those_that_changed_are_bold():
    page = html.pairs({"a_b": True, "c": None, "d": (1, 2), "<e>": "<f>"}, changed={"d"})
    cells = re.findall(r"<div( class=changed)?><dt>(.*?)</dt><dd>(.*?)</dd>", page)
    assert cells == [
        ("", "a b", "yes"),
        ("", "c", "-"),
        (" class=changed", "d", "1 2"),
        ("", "&lt;e&gt;", "&lt;f&gt;"),
    ]


def test_of_many_cases_the_lowest_are_listed():
    count = html.LISTED + 10
    rows = [[html.case_name(f"n{number}"), str(number)] for number in range(count)]
    page = html.ranked(("image", "Dice"), rows, np.linspace(0, 1, count), "; scores.csv has all")
    assert "lowest 0.000 · median 0.500 · highest 1.000." in page
    assert f"The {html.LISTED} lowest are listed; scores.csv has all." in page
    assert page.count("class=bar") == html.LISTED
    assert "n0<" in page
    assert f"n{html.LISTED}<" not in page
