"""What `evaluate` refuses, in which words; and its page."""

import re

import numpy as np
import pytest

import flaxunet
from flaxunet.io.images import write_mask
from tests.support import written
from tests.support.browser import needs_browser, seen
from tests.support.evaluated import classes, evaluate, networks, refused
from tests.support.networks import network, shallow
from tests.support.squares import make_data

__all__ = ["networks"]  # a fixture

HOSTILE = "<img src=x onerror=alert(1)>"


def test_all_that_does_not_fit_is_listed_by_file(tmp_path, capsys, networks):
    data, found, truths, _ = classes(tmp_path)
    (found / "n0.png").unlink()
    (found / "n1.png").write_bytes(b"no picture")
    write_mask(found / "n2.png", truths[2][:-1])
    write_mask(found / "n3.png", truths[3] + 1)
    write_mask(data / "masks" / "n4.png", truths[4] + 3)
    (data / "images" / "n5.png").write_bytes(b"neither")
    said = refused(tmp_path, capsys, "--predictions", found, data)
    for line, place, words in zip(
        sorted(said),
        (
            data / "images" / "n5.png",
            data / "masks" / "n4.png",
            found / "n1.png",
            found / "n2.png",
            found / "n3.png",
            f"{found}: none of its masks is called n0",
        ),
        (
            "unrecognised format",
            "labels 3, 4, 5; expected 0..2",
            "unrecognised format",
            "equal sizes",
            "expected 0..2",
            "",
        ),
        strict=True,
    ):
        assert line.startswith(str(place)), said
        assert words in line
    (line, *_) = refused(
        tmp_path, capsys, networks[0], written.written("folders", tmp_path / "more"), "--split", "x"
    )
    assert line == "--split is 'x'; accepted are train, val, test and all"


def test_labels_beyond_the_classes_of_a_network_are_refused_by_file(tmp_path, capsys, networks):
    data, _, _, _ = classes(tmp_path)
    said = refused(tmp_path, capsys, networks[0], data, "--split", "all")
    assert len(said) == 6
    assert all("labels 2; expected 0..1" in line for line in said)
    written.save(data / "images" / "n0.png", np.zeros((20, 25, 4), np.uint8))
    said = refused(tmp_path, capsys, networks[0], data, "--split", "all")
    assert f"{data / 'images' / 'n0.png'}: 3 channels; accepted are 1" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("DATA",), "accepted are MODEL ... DATA, or --predictions DIR and DATA"),
        (("MODEL", "DATA", "--predictions", "FOUND"), "accepted are MODEL ... DATA"),
        (("DATA", "DATA"), "holds no config.json"),
        (("DATA", "--predictions", "nowhere"), "nowhere: no such folder"),
        (("MODEL", "nowhere"), "nowhere: no such file or folder"),
        (("MODEL", "DATA", "--tolerance", "-1"), "--tolerance is -1.0"),
        (("MODEL", "DATA", "--surface", "skin"), "accepted are border, pieces"),
        (("MODEL", "DATA", "--spacing", "1", "2", "3"), "accepted are one number > 0, or 2"),
        (("MODEL", "DATA", "--spacing", "0"), "accepted are one number > 0"),
        (("MODEL", "DATA", "--target", "3class"), "accepted are equal numbers"),
        (("MODEL", "DATA", "--target", "x"), "unknown target 'x'"),
        (("MODEL", "DATA", "--layout", "x"), "unknown layout 'x'"),
        (("MODEL", "DATA", "--workers", "0"), "--workers is 0"),
        (("MODEL", "DATA", "--against", "nowhere"), "nowhere: no such folder"),
        (("MODEL", "DATA", "--split", "val", "--seed", "-1"), "--seed is -1"),
        (("MODEL", "DATA", "--threshold", "1"), "--threshold is 1.0; accepted is 0 < threshold < 1"),
        (("MODEL", "DATA", "--dtype", "float16"), "unknown dtype 'float16'"),
        (("MODEL", "DATA", "--batch", "3"), "batch is 3; accepted are 1, 2, 4"),
        (("MODEL", "DATA", "--min-size", "1", "2"), "--min-size is 1 2; accepted is a number of pixels"),
        (("DATA", "--predictions", "FOUND", "--fill-holes"), "accepted with networks; "),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, networks, words, said):
    data = make_data(tmp_path / "data")
    places = {"DATA": data, "MODEL": networks[0], "FOUND": data / "masks"}
    (line,) = refused(tmp_path, capsys, *(places.get(word, word) for word in words))
    assert said in line


def test_networks_of_other_classes_are_not_compared(tmp_path, capsys, networks):
    with shallow():
        model = network("unet", "shallow", in_channels=1, classes=3)
        flaxunet.save(model, tmp_path / "three")
        words = (networks[0], make_data(tmp_path / "data"), "--against", tmp_path / "three")
        (line,) = refused(tmp_path, capsys, *words)
    assert "accepted are networks of the same classes" in line


def page(tmp_path):
    """report.html of names that look like markup, compared and with objects."""
    data, found, _, _ = classes(tmp_path)
    (data / "class_names.txt").write_text(f"background\n{HOSTILE}\nwall\n")
    for folder in (data / "images", data / "masks", found):
        (folder / "n5.png").rename(folder / "<b>n5.png")
    evaluate(tmp_path, "--predictions", found, data, "--against", data / "masks", "--cases", "3")
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
    count, loaded, shown, wide, sections = seen(tmp_path, page(tmp_path), width=360)
    assert count == loaded == shown == 12
    assert wide <= 360
    assert sections >= 8
