"""A converted dataset reads as before, and is written whole or not at all."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxunet.__main__ import main
from flaxunet.data import find
from flaxunet.io.images import read_image, read_mask
from tests.support import written
from tests.support.datasets import pattern, write_pair, write_pairs


@pytest.mark.parametrize("layout", list(written.WRITERS))
def test_what_is_converted_reads_as_before(roots, layout, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    named = ["--layout", "instances"] if layout == "instances" else []
    assert main(["convert", str(roots[layout]), str(out), "--to", "folders", *named]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["folder"]  # nothing besides
    before, after = find(roots[layout], layout=named[1] if named else None), find(out)
    assert not after.problems
    assert after.class_names == before.class_names
    assert [one.split for one in after.records] == [one.split for one in before.records]
    by_name = {one.name: one for one in after.records}
    for one in before.records:
        name = Path(one.name).name
        again = by_name[name if one.group is None else f"{one.group}__{name}"]
        for now, then in zip(again.read(), one.read(), strict=True):
            np.testing.assert_array_equal(now, then)
        with Image.open(again.mask) as mask:
            assert mask.mode == "P"
            assert mask.getpalette()[3:6] == [86, 180, 233]
    printed = capsys.readouterr().out
    if layout in ("csv", "nifti"):
        flags = shlex.split(printed.splitlines()[-1])
        group = flags[flags.index("--group") + 1]
        grouped = find(out, group=group)
        assert {one.group for one in grouped.records} == {one.group for one in before.records}


def test_channels_of_a_volume_are_converted_too(roots, tmp_path):
    root = Path(shutil.copytree(roots["nifti"], tmp_path / "data"))
    for path in list((root / "imagesTr").iterdir()):
        path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
        other = path.with_name(path.name.replace(".nii", "_0001.nii"))
        shutil.copy(roots["nifti"] / "imagesTr" / "v3.nii.gz", other)
    assert main(["convert", str(root), str(tmp_path / "new")]) == 0
    now, then = find(tmp_path / "new").records[1], find(root).records[1]
    assert now.read()[0].shape == (*written.SIZE, 2)
    np.testing.assert_array_equal(now.read()[0], then.read()[0])


def test_labels_beyond_a_byte_are_converted_too(tmp_path):
    for number in range(3):
        labels = np.arange(400, dtype=np.uint16).reshape(20, 20)
        write_pair(tmp_path / "a", f"n{number}", pattern(number, 20, 20)[0], labels)
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    np.testing.assert_array_equal(read_mask(tmp_path / "b" / "masks" / "n1.png"), labels)


def test_a_conversion_that_fails_leaves_nothing(roots, tmp_path, capsys):
    root = write_pairs(tmp_path / "data", 4)
    (root / "images" / "n02.png").write_bytes(b"no picture")
    out = tmp_path / "new"
    assert main(["convert", str(root), str(out)]) == 2
    assert "n02.png" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert main(["convert", str(roots["folders"]), str(root)]) == 2
    assert "exists; expected a new folder" in capsys.readouterr().err
    assert main(["convert", str(roots["folders"]), str(out), "--to", "coco"]) == 2
    assert "--to is 'coco'; expected folders" in capsys.readouterr().err


def test_images_that_are_converted_are_copies(roots, tmp_path):
    assert main(["convert", str(roots["dsb2018"]), str(tmp_path / "new")]) == 0
    one = roots["dsb2018"] / "n4" / "images" / "n4.png"
    assert (tmp_path / "new" / "images" / "n4.png").read_bytes() == one.read_bytes()
    assert read_image(tmp_path / "new" / "images" / "n4.png").shape == (*written.SIZE, 1)
