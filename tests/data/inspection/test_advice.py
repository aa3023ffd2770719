"""The meaning of masks, and flags that train on them, are suggested."""

import shlex

import pytest
from PIL import Image

from flaxunet.data import find
from flaxunet.data.inspection import examine
from tests.support import written
from tests.support.datasets import load_dataset, pattern, write_pair
from tests.support.inspected import finding_lines, inspect_command, stripes


@pytest.mark.parametrize("layout", list(written.WRITERS))
def test_the_flags_that_are_suggested_train(roots, layout, capsys):
    named = ["--layout", "instances"] if layout == "instances" else []
    page, content = inspect_command(capsys, roots[layout], *named)
    assert content["usable"]
    assert content["command"] in page
    words = shlex.split(content["command"])
    assert words[:5] == ["python", "-m", "train", "--data", str(roots[layout])]
    flags = dict(zip(words[5::2], words[6::2], strict=True))
    assert flags.pop("--size") == "32"
    expected = {"--target": "foreground"} if layout in ("dsb2018", "instances") else {}
    assert flags == expected | ({"--layout": layout} if named else {})
    target = flags.get("--target", "classes")
    load_dataset(roots[layout], target=target, layout=flags.get("--layout"))
    with Image.open(roots[layout].parent / "inspected" / "contact-sheet.png") as sheet:
        assert len(sheet.getcolors(2**20) or range(999)) > 50


@pytest.mark.parametrize(
    ("masks", "target", "ignored"),
    [
        ([[0, 1]], "classes", None),
        ([[0, 255]], "foreground", None),
        ([[0, 7]], "foreground", None),
        ([[0, 1, 2, 3]], "classes", None),
        ([[0, 1, 255]], "classes", 255),
        ([[0, 2, 1, 255], [0, 1]], "classes", 255),
        ([list(range(40))], "foreground", None),
    ],
)
def test_what_masks_mean_is_suggested(tmp_path, masks, target, ignored):
    for number in range(8):
        write_pair(tmp_path, f"n{number}", pattern(number, 40, 40)[0], stripes(masks[number % len(masks)]))
    report = examine(find(tmp_path))
    assert (report.target, report.ignore_label) == (target, ignored)
    assert not report.errors


def test_few_objects_are_told_from_classes(tmp_path):
    for number in range(7):
        write_pair(tmp_path, f"n{number}", pattern(number, 40, 40)[0], stripes(list(range(number + 2))))
    report = examine(find(tmp_path))
    assert (report.target, sum(report.objects)) == ("foreground", sum(range(1, 8)))
    warning = "masks: each has labels 1 to n, as numbered objects have: is --target foreground meant?"
    assert finding_lines(examine(find(tmp_path), target="classes"), error=False)[-1] == warning


def test_gray_levels_are_no_classes(tmp_path):
    for number in range(6):
        write_pair(tmp_path, f"n{number}", pattern(number, 40, 40)[0], stripes([0, 128, 255]))
    report = examine(find(tmp_path))
    assert "masks: gray levels 0, 128, 255; expected labels 0, 1, 2, ..." in finding_lines(report)
    assert [label.value for label in report.labels] == [0, 128, 255]
    assert not finding_lines(report, error=False)
