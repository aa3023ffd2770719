"""A DICOM file means what its header says."""

import os
import sys

import numpy as np
import pytest

from flaxunet.io.dicom import read_spacing
from flaxunet.io.images import read_image, read_mask, read_picture

pydicom = pytest.importorskip("pydicom", reason="needs the medical extra")
from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels import get_decoder  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import RLELossless  # noqa: E402

from tests.support.dicom import STORED, write_dicom  # noqa: E402
from tests.support.refusals import refusal  # noqa: E402


def test_dicom_is_divided_by_the_top_of_its_bits(tmp_path):
    path = write_dicom(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_image(path)[..., 0], STORED / np.float32(4095))
    np.testing.assert_array_equal(read_mask(path), STORED)


def test_bits_above_those_stored_are_no_pixels(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", STORED | np.uint16(0xA000))
    np.testing.assert_array_equal(read_mask(path), STORED)
    signed = (STORED & 2047).astype(np.int16) - 1000
    path = write_dicom(tmp_path / "s.dcm", signed & np.int16(0x0FFF))
    np.testing.assert_array_equal(read_mask(path), signed)


def test_dicom_is_rescaled_to_its_unit_for_images_only(tmp_path):
    path = write_dicom(tmp_path / "ct.dcm", RescaleSlope="2", RescaleIntercept="-1000.5")
    np.testing.assert_array_equal(
        read_image(path)[..., 0], 2 * STORED.astype(np.float32) - np.float32(1000.5)
    )
    np.testing.assert_array_equal(read_mask(path), STORED)


def test_low_white_is_inverted_for_images_only(tmp_path):
    path = write_dicom(tmp_path / "x.dcm", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(path)[..., 0], np.float32(4095 - STORED) / np.float32(4095))
    np.testing.assert_array_equal(read_mask(path), STORED)
    signed = STORED.astype(np.int16) - 2048  # 12 bits with a sign
    path = write_dicom(tmp_path / "s.dcm", signed, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read_image(path)[..., 0] * 2047, -1.0 - signed, atol=1e-3)


def test_dicom_frames_colours_and_packing(tmp_path):
    frames = np.stack([STORED, STORED[::-1], STORED[:, ::-1]])
    path = write_dicom(tmp_path / "f.dcm", frames[..., None], NumberOfFrames="3")
    for page, frame in enumerate(frames):
        np.testing.assert_array_equal(read_mask(path, page=page), frame)
    assert "3 images in one file; expected one, or a page: 0 to 2" in refusal(read_image, path)
    colour = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    tags = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsStored": 8, "HighBit": 7}
    path = write_dicom(tmp_path / "c.dcm", colour, PhotometricInterpretation="RGB", **tags)
    np.testing.assert_array_equal(read_image(path), colour / np.float32(255))
    dataset = pydicom.dcmread(write_dicom(tmp_path / "r.dcm"))
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "r.dcm")
    np.testing.assert_array_equal(read_mask(tmp_path / "r.dcm"), STORED)


@pytest.mark.parametrize("syntax", ["JPEGLosslessSV1", "JPEGBaseline8Bit"])
def test_compression_is_named(tmp_path, syntax):
    path = write_dicom(tmp_path / "a.dcm", packed=encapsulate([b"\xff\xd8\xff"]), syntax=getattr(uid, syntax))
    if syntax == "JPEGBaseline8Bit":
        assert "JPEG Baseline (Process 1) compression, which blurs labels" in refusal(read_mask, path)
    elif get_decoder(uid.JPEGLosslessSV1).is_available:
        pytest.skip("a decoder of JPEG Lossless is installed")
    else:
        assert "compression, for which pydicom needs " in refusal(read_image, path)


def test_a_rescaling_of_functional_groups_counts(tmp_path):
    transformation, shared = Dataset(), Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept = "1", "-1024"
    shared.PixelValueTransformationSequence = Sequence([transformation])
    path = write_dicom(tmp_path / "e.dcm", SharedFunctionalGroupsSequence=Sequence([shared]))
    np.testing.assert_array_equal(read_image(path)[..., 0], STORED.astype(np.float32) - 1024)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"PixelData": None}, "a DICOM file without pixels"),
        ({"Rows": 4000}, "damaged file: "),
        ({"Rows": 60000, "Columns": 60000}, "announces 60000 x 60000 x 1 values"),
        ({"Rows": None}, "damaged file: "),
        ({"PhotometricInterpretation": "HSV"}, "HSV colours"),
        ({"NumberOfFrames": "2"}, "2 images"),
        ({"RescaleSlope": "1e300", "RescaleIntercept": "0"}, "beyond the range of float32"),
    ],
)
def test_dicom_that_lies_is_refused(tmp_path, tags, words):
    assert words in refusal(read_image, write_dicom(tmp_path / "a.dcm", **tags))


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_truncated_dicom_is_refused(tmp_path, part):
    path = write_dicom(tmp_path / "a.dcm", np.tile(STORED, (20, 20)))
    os.truncate(path, int(path.stat().st_size * part))
    refusal(read_image, path)


def test_without_pydicom_a_line_says_what_to_install(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert "DICOM, which needs pip install 'flaxunet[medical]'" in refusal(read_image, path)


def test_spacing_is_told_as_it_is_read(tmp_path):
    ray = tmp_path / "ray"  # of a detector, not of the patient
    write_dicom(ray, ImagerPixelSpacing=[0.2, 0.1])
    assert read_spacing(ray) == read_picture(ray).spacing == (0.2, 0.1)
    write_dicom(tmp_path / "none")
    (tmp_path / "picture").write_bytes(b"no DICOM")
    damaged = bytearray(ray.read_bytes())
    damaged[140:150] = b"\xff" * 10
    (tmp_path / "damaged").write_bytes(damaged)
    for name in ("none", "picture", "damaged", "absent"):
        assert read_spacing(tmp_path / name) is None
