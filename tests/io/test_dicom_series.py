"""The slices of a series lie where their positions say."""

import os

import numpy as np
import pytest

from flaxunet.io import planes, volumes

pytest.importorskip("pydicom", reason="needs the medical extra")
from pydicom.uid import BasicTextSRStorage

from tests.support.dicom import STORED, write_dicom, write_series
from tests.support.refusals import refusal


def test_a_series_is_sorted_by_position_and_lies_in_the_patient(tmp_path):
    volume = volumes.read_volume(write_series(tmp_path / "s", RescaleSlope="1", RescaleIntercept="-50"))
    assert volume.voxels.shape == (9, 6, 5, 1)
    assert volume.spacing == (0.25, 0.5, 2.0)
    # DICOM's x and y grow to the left and the back.
    for i, j, k in ((0, 0, 0), (8, 2, 3), (4, 5, 4)):
        place = np.linalg.inv(volume.affine) @ [-(10 + i / 4), -(20 + j / 2), 30 + 2 * k, 1]
        x, y, z, _ = np.rint(place).astype(int)
        assert volume.voxels[x, y, z, 0] == int(STORED[j, i]) // 64 + 100 * k - 50
    # An axial slice is the picture itself: the patient's right is on the left, the front is up.
    axial = planes.slices(volume.voxels, "axial")
    np.testing.assert_array_equal(axial[2, ..., 0], STORED // 64 + 150.0)


def test_a_sagittal_series_keeps_its_picture(tmp_path):
    # Columns go from front to back, rows from head to feet, slices from right to left.
    folder = write_series(tmp_path / "s", step=(3.0, 0, 0), across=(0, 1, 0), down=(0, 0, -1))
    sagittal = planes.slices(volumes.read_volume_mask(folder).voxels, "sagittal")
    np.testing.assert_array_equal(sagittal[::-1][3], STORED // 64 + 300)


def test_labels_of_a_series_are_written_where_it_lies(tmp_path):
    volume = volumes.read_volume(write_series(tmp_path / "s"))
    labels = (volume.voxels[..., 0] > 0.05).astype(np.uint8)
    volumes.write_volume_mask(tmp_path / "l.nii.gz", labels, volume)
    again = volumes.read_volume_mask(tmp_path / "l.nii.gz")
    np.testing.assert_array_equal(again.voxels, labels)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-5)


def test_other_files_of_a_series_are_passed_over(tmp_path):
    folder = write_series(tmp_path / "s")
    (folder / "notes.txt").write_text("hello")
    (folder / ".hidden").write_bytes(b"")
    write_dicom(folder / "report.dcm", kind=BasicTextSRStorage, PixelData=None, SeriesInstanceUID="9")
    assert volumes.read_volume(folder).voxels.shape == (9, 6, 5, 1)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "3.dcm").unlink(), "4 mm between 4.dcm and 2.dcm, and mostly 2 mm"),
        (lambda folder: write_dicom(folder / "6.dcm", position=(10, 20, 30)), "are at the same place"),
        (
            lambda folder: write_dicom(folder / "6.dcm", position=(10, 20, 40), SeriesInstanceUID="9"),
            "2 DICOM series",
        ),
        (
            lambda folder: write_dicom(folder / "6.dcm", STORED[:4], position=(10, 20, 40)),
            "another size, spacing",
        ),
        (
            lambda folder: write_dicom(folder / "6.dcm", position=(10, 20, 40), down=(0, 0, 1)),
            "or orientation than",
        ),
        (lambda folder: write_dicom(folder / "6.dcm"), "6.dcm has no position, orientation or spacing"),
        (lambda folder: os.truncate(folder / "1.dcm", 450), "1.dcm: a DICOM file without pixels"),
        (
            lambda folder: os.truncate(folder / "2.dcm", (folder / "2.dcm").stat().st_size - 20),
            "2.dcm: damaged file: ",
        ),
        (lambda folder: os.truncate(folder / "2.dcm", 50), "2.dcm is not a DICOM file"),
        (
            lambda folder: write_dicom(
                folder / "6.dcm", STORED[None, ..., None], position=(0, 0, 0), NumberOfFrames="2"
            ),
            "6.dcm has several frames",
        ),
    ],
)
def test_a_series_that_is_not_whole_is_refused(tmp_path, spoil, words):
    folder = write_series(tmp_path / "s")
    spoil(folder)
    assert words in refusal(volumes.read_volume, folder)
