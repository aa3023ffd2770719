"""The HTML of the page."""

import pytest

from flaxunet.app import session, text
from flaxunet.hub.facts import Scores
from tests.support.app import CLASSES, STYLE, Thirds, facts, write_gray


def test_names_of_others_are_escaped(tmp_path):
    write_gray(tmp_path / "a<i>.png")
    scores = Scores("test", 0.75, None, {"cell": 0.875, CLASSES[2]: 0.625})
    known = facts(scores=scores, data="<script>")
    top = text.header(known)
    assert "UNet 3+ on ResNet-34" in top
    assert "&lt;script&gt;, 1,200 images" in top
    assert "<dt>Test Dice</dt><dd>0.750</dd>" in top
    below = text.results(session.predict(Thirds(), tmp_path / "a<i>.png"), known, STYLE)
    assert "<td>0.875</td>" in below
    assert text.status(CLASSES[2], error=True) == "<p class=error role=alert>&lt;b&gt;vessel&lt;/b&gt;</p>"
    for source in (top, below):
        assert not any(tag in source for tag in ("<i>", "<b>", "<script>"))


def test_unknown_data_and_scores_are_called_not_known():
    top = text.header(facts())
    assert "<dt>Trained on</dt><dd>not known</dd>" in top
    assert "<dt>Scores</dt><dd>not known</dd>" in top


@pytest.mark.parametrize(
    ("value", "color"),
    [
        ("#56b4e9", (86, 180, 233)),
        ("#56B4E9ff", (86, 180, 233)),
        ("rgba(86.2, 180, 232.9, 1)", (86, 180, 233)),
        ("rgb(999, 0, 0)", (255, 0, 0)),
        ("odd", (128, 128, 128)),
    ],
)
def test_colours_as_browsers_write_them(value, color):
    assert text.parse_color(value) == color
