"""Slices of volumes lie along anatomical axes; volumes that do not fit are named."""

import json
import shutil

import nibabel
import numpy as np
import pytest

from flaxunet.data import find
from tests.support import written
from tests.support.listings import copy_of, list_dataset, problems_of
from train.data.dataset import DataError


def test_slices_are_along_anatomical_axes(tmp_path):
    """Whatever the order in which a file keeps its voxels."""
    volume = np.zeros((3, 4, 5), np.uint8)  # to the right, the front, the top
    volume[2, 3, 4] = 100
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        stored = nibabel.Nifti1Image(volume // (1 if folder == "imagesTr" else 100), np.eye(4))
        turned = stored.as_reoriented(nibabel.orientations.axcodes2ornt("SLP"))
        nibabel.save(turned, tmp_path / folder / "v.nii.gz")
    for axis, count, shape in (("axial", 5, (4, 3)), ("coronal", 4, (5, 3)), ("sagittal", 3, (5, 4))):
        listing = list_dataset(tmp_path, axis=axis)
        assert len(listing.records) == count
        image, mask = listing.records[-1].read()
        assert mask.shape == shape
        assert image[0, 0, 0] == mask[0, 0] == mask.sum() == 1  # right, front and top are at the upper left
        assert not listing.records[0].read()[1].any()


def test_channels_and_test_volumes_of_nnunet(roots, tmp_path):
    root = copy_of(roots, "nifti", tmp_path)
    for path in (root / "imagesTr").iterdir():
        name = path.name.removesuffix(".nii.gz")
        shutil.copy(path, path.with_name(f"{name}_0001.nii.gz"))
        path.rename(path.with_name(f"{name}_0000.nii.gz"))
    (root / "imagesTr" / "._v0_0000.nii.gz").write_bytes(b"what a Mac leaves")
    for kind in ("images", "labels"):
        (root / f"{kind}Ts").mkdir()
        for path in sorted((root / f"{kind}Tr").glob("v4*")):
            path.rename(root / f"{kind}Ts" / path.name)
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "square": 1, "ignore": 2}}))
    listing = list_dataset(root)
    assert listing.class_names == ("background", "square")
    assert [record.split for record in listing.records] == ["test"] * 2 + ["train"] * 8
    assert listing.records[0].read()[0].shape == (*written.SIZE, 2)


def test_volumes_that_do_not_fit_are_named(roots, tmp_path):
    root = copy_of(roots, "nifti", tmp_path)
    (root / "labelsTr" / "v0.nii.gz").unlink()
    (root / "imagesTr" / "v1.nii.gz").write_bytes(b"nothing")
    flat = nibabel.Nifti1Image(np.zeros((24, 20, 3), np.uint8), np.eye(4))
    nibabel.save(flat, root / "imagesTr" / "v2.nii.gz")
    moved = nibabel.load(root / "labelsTr" / "v3.nii.gz")
    affine = moved.affine.copy()
    affine[0, 3] = 9
    nibabel.save(nibabel.Nifti1Image(np.asarray(moved.dataobj), affine), root / "labelsTr" / "v3.nii.gz")
    bad = nibabel.load(root / "imagesTr" / "v4.nii.gz")
    array = np.asarray(bad.dataobj).astype(np.float32)
    array[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, bad.affine), root / "imagesTr" / "v4.nii.gz")
    text = "\n".join(problems_of(root))
    for words in (
        "imagesTr/v0.nii.gz: no v0.nii.gz in",
        "imagesTr/v1.nii.gz: ",
        "imagesTr/v2.nii.gz: 24 x 20 x 3 voxels, its labels have 24 x 20 x 2",
        "labelsTr/v3.nii.gz: another position or orientation in space than",
    ):
        assert words in text
    assert text.count("\n") == 3
    with pytest.raises(DataError, match=r"v4.nii.gz: 1 NaN or infinite voxels"):
        find(root).records[0].read()


def test_volumes_that_lie_nowhere_or_hold_no_numbers_are_named(roots, tmp_path):
    root = copy_of(roots, "nifti", tmp_path)
    nowhere = nibabel.load(root / "labelsTr" / "v0.nii.gz")
    nowhere.header["sform_code"], nowhere.header["qform_code"] = 2, 0
    for row in ("srow_x", "srow_y", "srow_z"):
        nowhere.header[row] = 0
    nibabel.save(
        nibabel.Nifti1Image(np.asarray(nowhere.dataobj), None, nowhere.header),
        root / "labelsTr" / "v0.nii.gz",
    )
    [line] = problems_of(root)
    assert "labelsTr/v0.nii.gz: an affine without three axes" in line
    complex_volume = np.zeros((24, 20, 2), np.complex64)
    nibabel.save(
        nibabel.Nifti1Image(complex_volume, np.diag([-1.0, -1, 2, 1])), root / "imagesTr" / "v1.nii.gz"
    )
    record = next(one for one in find(root).records if one.group == "v1")
    with pytest.raises(DataError, match=r"v1.nii.gz: voxels of type complex64"):
        record.read()
