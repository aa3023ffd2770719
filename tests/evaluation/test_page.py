"""report.html: the worst cases first, names are never markup, and a browser shows all of it."""

import re

from tests.support.browser import measure_page, needs_browser
from tests.support.evaluated import evaluate, three_classes

HOSTILE = "<img src=x onerror=alert(1)>"


def page(tmp_path):
    """report.html of two sources and of names that look like markup."""
    data, predicted, _, _ = three_classes(tmp_path)
    (data / "class_names.txt").write_text(f"background\n{HOSTILE}\nwall\n")
    for folder in (data / "images", data / "masks", predicted):
        (folder / "n5.png").rename(folder / "<b>n5.png")
    evaluate(tmp_path, "--predictions", predicted, data, "--against", data / "masks", "--cases", "3")
    return (tmp_path / "evaluated" / "report.html").read_text()


def test_the_page_shows_the_worst_first_and_no_name_is_markup(tmp_path):
    source = page(tmp_path)
    assert HOSTILE not in source
    assert "<b>n5" not in source
    assert re.findall(r'alt="errors of (\S+), Dice', source) == ["&lt;b&gt;n5", "n4", "n3"]
    assert source.count("<img ") == 3 * 4
    assert not re.search(r"<script|<link|url\(|https?:", source)
    for heading in (
        "Class by class",
        "Compared",
        "Lowest Dice",
        "Every image",
        "How it is counted",
        "Settings",
    ):
        assert f"<h2>{heading}</h2>" in source


@needs_browser
def test_a_browser_shows_every_picture_and_nothing_sticks_out(tmp_path):
    count, loaded, shown, wide, sections = measure_page(tmp_path, page(tmp_path), width=360)
    assert count == loaded == shown == 12
    assert wide <= 360
    assert sections >= 8
