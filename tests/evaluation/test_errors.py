"""Errors of `evaluate`: one line for each file or flag that does not fit, and no output."""

import numpy as np
import pytest

import flaxunet
from flaxunet.io.images import write_mask
from tests.support import written
from tests.support.evaluated import errors, three_classes
from tests.support.networks import network, shallow
from tests.support.squares import make_data


def test_all_that_does_not_fit_is_listed_by_file(tmp_path, capsys):
    data, predicted, truths, _ = three_classes(tmp_path)
    (predicted / "n0.png").unlink()
    (predicted / "n1.png").write_bytes(b"no picture")
    write_mask(predicted / "n2.png", truths[2][:-1])
    write_mask(predicted / "n3.png", truths[3] + 1)
    write_mask(data / "masks" / "n4.png", truths[4] + 3)
    (data / "images" / "n5.png").write_bytes(b"neither")
    lines = errors(tmp_path, capsys, "--predictions", predicted, data)
    expected = (
        (data / "images" / "n5.png", "unrecognised format"),
        (data / "masks" / "n4.png", "labels 3, 4, 5; expected 0..2"),
        (predicted / "n1.png", "unrecognised format"),
        (predicted / "n2.png", "19 x 25 pixels; expected 20 x 25"),
        (predicted / "n3.png", "labels 3; expected 0..2"),
        (predicted, "no mask called n0"),
    )
    for line, (place, message) in zip(sorted(lines), expected, strict=True):
        assert line.startswith(f"{place}: "), lines
        assert message in line


def test_an_unknown_split_is_answered_with_the_known_ones(tmp_path, capsys, networks):
    (line,) = errors(tmp_path, capsys, networks[0], make_data(tmp_path / "data"), "--split", "x")
    assert line == "--split is 'x'; expected train, val, test or all"


def test_labels_beyond_the_classes_of_a_network_are_refused_by_file(tmp_path, capsys, networks):
    data, _, _, _ = three_classes(tmp_path)
    lines = errors(tmp_path, capsys, networks[0], data, "--split", "all")
    assert len(lines) == 6
    assert all("labels 2; expected 0..1" in line for line in lines)
    written.save(data / "images" / "n0.png", np.zeros((20, 25, 4), np.uint8))
    lines = errors(tmp_path, capsys, networks[0], data, "--split", "all")
    assert f"{data / 'images' / 'n0.png'}: 3 channels; expected 1" in lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("DATA",), "expected MODEL ... DATA, or --predictions DIR and DATA"),
        (("MODEL", "DATA", "--predictions", "FOUND"), "expected MODEL ... DATA"),
        (("DATA", "DATA"), "holds no config.json"),
        (("DATA", "--predictions", "nowhere"), "nowhere: no such folder"),
        (("MODEL", "nowhere"), "nowhere: no such file or folder"),
        (("MODEL", "DATA", "--tolerance", "-1"), "--tolerance is -1.0"),
        (("MODEL", "DATA", "--surface", "skin"), "unknown --surface 'skin'"),
        (("MODEL", "DATA", "--spacing", "1", "2", "3"), "--spacing is 1 2 3"),
        (("MODEL", "DATA", "--spacing", "0"), "--spacing is 0"),
        (("MODEL", "DATA", "--target", "3class"), "--target 3class"),
        (("MODEL", "DATA", "--target", "x"), "unknown target 'x'"),
        (("MODEL", "DATA", "--layout", "x"), "unknown layout 'x'"),
        (("MODEL", "DATA", "--workers", "0"), "--workers is 0"),
        (("MODEL", "DATA", "--against", "nowhere"), "nowhere: no such folder"),
        (("MODEL", "DATA", "--split", "val", "--seed", "-1"), "--seed is -1"),
        (("MODEL", "DATA", "--threshold", "1"), "--threshold is 1.0"),
        (("MODEL", "DATA", "--dtype", "float16"), "unknown dtype 'float16'"),
        (("MODEL", "DATA", "--batch", "3"), "batch is 3"),
        (("MODEL", "DATA", "--min-size", "1", "2"), "--min-size is 1 2"),
        (("DATA", "--predictions", "FOUND", "--fill-holes"), "--fill-holes: expected together with a MODEL"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, networks, words, message):
    data = make_data(tmp_path / "data")
    places = {"DATA": data, "MODEL": networks[0], "FOUND": data / "masks"}
    (line,) = errors(tmp_path, capsys, *(places.get(word, word) for word in words))
    assert message in line


def test_networks_of_other_classes_are_not_compared(tmp_path, capsys, networks):
    with shallow():
        model = network("unet", "shallow", in_channels=1, classes=3)
        flaxunet.save(model, tmp_path / "three")
        words = (networks[0], make_data(tmp_path / "data"), "--against", tmp_path / "three")
        (line,) = errors(tmp_path, capsys, *words)
    assert "expected networks of the same classes" in line
