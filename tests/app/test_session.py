"""An uploaded image is predicted, painted, measured and saved."""

import io

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from flaxunet.app import session
from flaxunet.app.session import Style
from flaxunet.io import images
from flaxunet.labels import PALETTE
from flaxunet.prediction.predictor import Predictor
from tests.support import levels
from tests.support.app import CLASSES, STYLE, Thirds, write_gray


def test_a_prediction_is_measured_painted_and_saved(tmp_path):
    pixels = write_gray(tmp_path / "a.b.png")
    labels = (pixels / 255 * 2.99).astype(int)
    prediction = session.predict(Thirds(), tmp_path / "a.b.png")
    assert (prediction.name, prediction.stem, prediction.pages) == ("a.b.png", "a.b", 1)
    counts = np.bincount(labels.ravel())
    assert session.areas(prediction, CLASSES, STYLE) == [
        (label, name, counts[label], counts[label] / 36) for label, name in enumerate(CLASSES)
    ]
    over, mask = session.paint(prediction, STYLE)
    for label, color in ((1, PALETTE[0]), (2, PALETTE[1])):
        np.testing.assert_array_equal(mask[labels == label], np.broadcast_to(color, (counts[label], 3)))
    expected = (255 * prediction.base[0, 0], 127.5 * prediction.base[-1, -1] + np.array(PALETTE[1]) / 2)
    np.testing.assert_allclose((over[0, 0], over[-1, -1]), expected, atol=0.51)
    (tmp_path / "kept.png").write_bytes(session.mask_png(prediction, STYLE))
    np.testing.assert_array_equal(images.read_mask(tmp_path / "kept.png"), labels)
    head, first, *_ = session.areas_csv(prediction, CLASSES, STYLE).splitlines()
    assert (head, first) == ("label,class,pixels,fraction", f"0,background,{counts[0]},{counts[0] / 36:.6f}")


def test_a_hidden_class_is_saved_but_not_painted(tmp_path):
    pixels = write_gray(tmp_path / "a.png")
    labels = (pixels / 255 * 2.99).astype(int)
    style = Style(((1, 2, 3), (250, 0, 9)), (False, True), 1.0, 0.5)
    prediction = session.predict(Thirds(), tmp_path / "a.png")
    over, mask = session.paint(prediction, style)
    assert not mask[labels == 1].any()
    np.testing.assert_array_equal(over[labels == 1], session.to_bytes(prediction.base)[labels == 1])
    assert set(map(tuple, mask[labels == 2])) == {(250, 0, 9)}
    with Image.open(io.BytesIO(session.mask_png(prediction, style))) as kept:
        assert kept.getpalette()[3:9] == [1, 2, 3, 250, 0, 9]
        np.testing.assert_array_equal(np.asarray(kept), labels)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_a_threshold_decides_with_one_output(tmp_path, threshold):
    pixels = write_gray(tmp_path / "a.png")
    prediction = session.predict(Thirds(outputs=1), tmp_path / "a.png")
    style = Style(PALETTE[:1], (True,), 0.5, threshold)
    wanted = Predictor.labels((pixels / np.float32(255))[..., None], threshold)
    np.testing.assert_array_equal(prediction.labels(threshold), wanted)
    assert session.areas(prediction, ("background", "cell"), style)[1][2] == wanted.sum()


def test_a_large_image_is_displayed_reduced_and_saved_whole(tmp_path):
    pixels = write_gray(tmp_path / "a.png", 40, 2 * session.SIDE)
    prediction = session.predict(Thirds(), tmp_path / "a.png")
    over, mask = session.paint(prediction, STYLE)
    assert over.shape == mask.shape == (20, session.SIDE, 3)
    kept = np.asarray(Image.open(io.BytesIO(session.mask_png(prediction, STYLE))))
    assert kept.shape == pixels.shape


def test_stacks_and_volumes_get_the_labels_of_the_predict_command(tmp_path, monkeypatch):
    stack = np.random.default_rng(0).integers(0, 256, (3, 5, 6))
    folder = tmp_path / "images"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", stack.astype(np.uint8), photometric="minisblack")
    scan = nibabel.Nifti1Image((8 * stack - 1000).astype(np.int16).transpose(2, 1, 0), np.eye(4))
    scan.to_filename(folder / "b.nii.gz")
    model = levels.installed(tmp_path / "net", monkeypatch, classes=4)
    levels.predict(model, folder, "--out", tmp_path / "out", "--window", 32)
    network = levels.Levels((), levels.NAMES, 1, "dtype")
    for name in ("a.tif", "b.nii.gz"):
        for page in range(3):
            prediction = session.predict(network, folder / name, page or None)
            assert (prediction.pages, prediction.page) == (3, page)
            assert prediction.stem.endswith(f"-page{page}")
            wanted = images.read_mask(tmp_path / "out" / "masks" / name, page=page)
            assert len(np.unique(wanted)) == 4
            np.testing.assert_array_equal(prediction.labels(0.5), wanted)
    with pytest.raises(ValueError, match=r"^b.nii.gz: page 3 of a file with 3 images"):
        session.predict(network, folder / "b.nii.gz", 3)


def test_dicom_is_read(tmp_path):
    pytest.importorskip("pydicom")
    from tests.support.dicom import write_dicom  # which needs it as well

    write_dicom(tmp_path / "a.dcm", np.array([[0, 2000, 4095]], np.uint16))
    assert session.predict(Thirds(), tmp_path / "a.dcm").labels(0.5).tolist() == [[0, 1, 2]]


def test_an_unusable_file_is_one_line_without_its_folder(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "rgb.png")
    (tmp_path / "bad.dcm").write_bytes(b"no picture")
    for name, reason in (("rgb.png", "3 channels; expected 1"), ("bad.dcm", "unrecognised format")):
        with pytest.raises(ValueError, match=f"^{name}: {reason}") as caught:
            session.predict(Thirds(), tmp_path / name)
        assert str(tmp_path) not in str(caught.value)
        assert "\n" not in str(caught.value)
    write_gray(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"page 3 of a file with 1 image"):
        session.predict(Thirds(), tmp_path / "a.png", 3)
