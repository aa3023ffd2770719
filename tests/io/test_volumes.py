"""Volumes lie as the patient does, slices look as a radiologist expects, labels go back where they were."""

import re

import nibabel
import numpy as np
import pytest

from flaxunet import data as layouts
from flaxunet.data.layouts import brain
from flaxunet.io import planes, volumes
from flaxunet.io.images import ImageError, read_mask
from tests.support import written


def test_slices_of_the_brain_are_those_of_training(tmp_path):
    """Another file's order of the same brain gives the same pictures as `flaxunet.data.layouts.brain`."""
    voxels = np.zeros((197, 233, 189), np.uint8)
    voxels[10:180, 20:200, 30:150] = np.random.default_rng(0).integers(0, 255, (170, 180, 120))
    expected = np.ascontiguousarray(voxels[::-1, ::-1].transpose(2, 1, 0)[:, brain.ROWS, brain.COLUMNS])
    flipped = nibabel.Nifti1Image(
        voxels[::-1].transpose(1, 0, 2),
        np.array([[0, -1.0, 0, 196], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    )
    nibabel.save(flipped, tmp_path / "b.nii")
    volume = volumes.read_volume(tmp_path / "b.nii")
    found = planes.slices(volume.voxels, "axial")[:, brain.ROWS, brain.COLUMNS, 0]
    np.testing.assert_array_equal(found, expected / np.float32(255))


def test_slices_of_other_volumes_have_the_numbers_of_training(tmp_path):
    records = layouts.find(written.written("nifti", tmp_path)).records
    volume = volumes.read_volume(tmp_path / "imagesTr" / "v0.nii.gz")
    found = volumes.training_slices(volume, "axial", "dtype")
    assert (found.dtype, found.min(), found.max()) == (np.float32, 0, 1)
    for picture, record in zip(found, records, strict=False):
        np.testing.assert_allclose(picture, record.read()[0], atol=1e-6)
    np.testing.assert_array_equal(
        volumes.training_slices(volume, "axial", "zscore"), planes.slices(volume.voxels, "axial")
    )


@pytest.mark.parametrize("plane", planes.AXES)
def test_slices_go_back_into_the_volume(plane):
    voxels = np.random.default_rng(0).random((3, 4, 5, 2))
    cut = planes.slices(voxels, plane)
    assert cut.shape == {"axial": (5, 4, 3, 2), "coronal": (4, 5, 3, 2), "sagittal": (3, 5, 4, 2)}[plane]
    np.testing.assert_array_equal(planes.stack(cut, plane), voxels)


def test_slope_channels_and_flat_files(tmp_path):
    numbers = np.random.default_rng(0).integers(0, 99, (3, 4, 2, 5)).astype(np.int16)
    image = nibabel.Nifti1Image(numbers, np.eye(4))
    image.header.set_slope_inter(0.5, -7)
    nibabel.save(image, tmp_path / "a.nii")
    voxels = volumes.read_volume(tmp_path / "a.nii").voxels
    np.testing.assert_allclose(voxels, numbers * np.float32(0.5) - 7)  # a fourth axis is channels
    nibabel.save(nibabel.Nifti1Image(numbers[:, :, 0, 0], np.eye(4)), tmp_path / "flat.nii")
    np.testing.assert_array_equal(read_mask(tmp_path / "flat.nii"), numbers[::-1, ::-1, 0, 0].T)
    colours = np.zeros((3, 4, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = 51
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "rgb.nii")
    np.testing.assert_allclose(volumes.read_volume(tmp_path / "rgb.nii").voxels[1, 2, 0], [0, 0.2, 0])


def test_labels_that_do_not_fit_are_not_written(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 6, 5), np.uint8), np.eye(4)), tmp_path / "s.nii")
    volume = volumes.read_volume(tmp_path / "s.nii")
    labels = np.zeros((9, 6, 5), int)
    for path, given, words in (
        (tmp_path / "l.png", labels, "another suffix; expected .nii or .nii.gz"),
        (tmp_path / "l.nii", labels[1:], "int64[8, 6, 5]; expected integers[9, 6, 5]"),
        (tmp_path / "l.nii", labels / 2, "float64[9, 6, 5]"),
        (tmp_path / "none" / "l.nii", labels, "No such file"),
    ):
        with pytest.raises(ImageError, match=re.escape(f"{path}: ") + ".*" + re.escape(words)):
            volumes.write_volume_mask(path, given, volume)
    assert {path.name for path in tmp_path.iterdir()} == {"s.nii"}


def test_the_same_labels_are_the_same_bytes(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 6, 5), np.uint8), np.eye(4)), tmp_path / "s.nii")
    volume = volumes.read_volume(tmp_path / "s.nii")
    labels = np.random.default_rng(0).integers(0, 300, (9, 6, 5))
    for name in ("a.nii.gz", "b.nii.gz"):
        volumes.write_volume_mask(tmp_path / name, labels, volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert nibabel.load(tmp_path / "a.nii.gz").get_data_dtype() == np.int16
