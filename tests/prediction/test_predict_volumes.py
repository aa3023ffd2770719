"""`python -m flaxunet predict` on NIfTI volumes, DICOM series and single DICOM files."""

import json

import nibabel
import numpy as np
import pytest

from flaxunet.io import volumes
from flaxunet.io.images import page_count, read_mask
from tests.support.levels import (
    Levels,
    gray,
    installed,
    listing,
    predict,
    refused,
    save,
    table,
)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_volumes_keep_affine_and_order(tmp_path, images, model, axis):
    voxels = np.stack([gray(9, 12) for _ in range(7)])
    voxels[0, 0, :2] = 0, 255
    affine = np.array([[0, 0, -2.0, 5], [0, -1.5, 0, 3], [0.5, 0, 0, -7], [0, 0, 0, 1]])
    for name in ("a.nii.gz", "b.nii"):
        nibabel.save(nibabel.Nifti1Image(voxels, affine), images / name)
    predict(
        model,
        images,
        "--out",
        tmp_path / "out",
        "--axis",
        axis,
        "--probabilities",
        "--overlays",
        "--window",
        32,
    )
    for name in ("a.nii.gz", "b.nii"):
        result = nibabel.load(tmp_path / "out" / "masks" / name)
        np.testing.assert_array_equal(np.asarray(result.dataobj), voxels > 127)
        np.testing.assert_array_equal(result.affine, affine)
        probabilities = nibabel.load(tmp_path / "out" / "probabilities" / name)
        np.testing.assert_allclose(np.asarray(probabilities.dataobj)[..., 0], voxels / 255, atol=1e-3)
        slices = volumes.read_volume(images / name).voxels.shape[["sagittal", "coronal", "axial"].index(axis)]
        assert page_count(tmp_path / "out" / "overlays" / f"{name.split('.')[0]}.tif") == slices
    rows = table(tmp_path / "out" / "measures.csv")
    assert [row["image"] for row in rows] == ["a.nii.gz", "b.nii"]
    assert float(rows[0]["mm3"]) == (voxels > 127).sum() * 1.5
    assert rows[0]["mm2"] == ""


def test_volumes_are_scaled_as_in_training(tmp_path, images, model):
    """By the volume's smallest and largest value, whatever its unit."""
    voxels = np.stack([gray(9, 12) for _ in range(7)]).astype(np.int16)
    voxels[0, 0, :2] = 0, 255
    nibabel.save(nibabel.Nifti1Image(voxels * 8 - 1000, np.eye(4)), images / "ct.nii.gz")
    predict(model, images, "--out", tmp_path / "out", "--window", 32)
    result = nibabel.load(tmp_path / "out" / "masks" / "ct.nii.gz")
    np.testing.assert_array_equal(np.asarray(result.dataobj), voxels > 127)


def test_slices_of_a_volume_share_batches(tmp_path, images, model, monkeypatch, capsys):
    voxels = np.stack([gray(9, 12) for _ in range(7)])
    nibabel.save(nibabel.Nifti1Image(voxels.transpose(2, 1, 0), np.eye(4)), images / "a.nii.gz")
    sizes, windows = [], Levels.windows
    monkeypatch.setattr(Levels, "windows", lambda self, x: sizes.append(len(x)) or windows(self, x))
    for batch, expected in ((1, [1] * 7), (4, [4, 4])):
        sizes.clear()
        out = tmp_path / f"out{batch}"
        predict(model, images, "--out", out, "--window", 32, "--batch", batch, "--probabilities")
        assert sizes == expected
        assert "1 of 1 images: 7 pictures" in capsys.readouterr().out
    for kind in ("masks", "probabilities"):
        one, other = (nibabel.load(tmp_path / f"out{batch}" / kind / "a.nii.gz") for batch in (1, 4))
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))


def test_channels_in_files_of_their_own_are_one_volume(tmp_path, images, monkeypatch, capsys):
    model = installed(tmp_path / "network", monkeypatch, channels=2)
    first, other = (np.stack([gray(9, 12) for _ in range(3)]) for _ in range(2))
    first[0, 0, :2] = 0, 255
    for name, voxels, step in (
        *(("case_0000", first, 1), ("case_0001", other, 1)),
        *(("moved_0000", first, 1), ("moved_0001", other, 2)),
    ):
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([step, 1, 1, 1])), images / f"{name}.nii.gz")
    predict(model, images, "--out", tmp_path / "out", "--window", 32, code=1)
    assert listing(tmp_path / "out" / "masks") == ["case.nii.gz"]
    result = nibabel.load(tmp_path / "out" / "masks" / "case.nii.gz")
    np.testing.assert_array_equal(np.asarray(result.dataobj), first > 127)
    assert "moved_0001.nii.gz: another size or place than" in capsys.readouterr().err
    nibabel.save(nibabel.Nifti1Image(first, np.eye(4)), images / "case.nii.gz")
    line = refused(capsys, model, images, "--out", tmp_path / "out", "--window", 32)
    assert "would both be written as case" in line


def test_dicom_pictures_and_series(tmp_path, images, model):
    pytest.importorskip("pydicom", reason="needs the medical extra")
    from tests.support.dicom import STORED, write_dicom

    write_dicom(images / "ray.dcm", PixelSpacing=[0.5, 0.25])
    write_dicom(images / "unnamed")
    (images / "patient").mkdir()
    for number in range(3):
        write_dicom(images / "patient" / f"{number}.dcm", position=(0, 0, 5 * number))
    predict(model, images, "--out", tmp_path / "out", "--window", 32)
    mask = read_mask(tmp_path / "out" / "masks" / "ray.png")
    np.testing.assert_array_equal(mask, STORED / 4095 > 0.5)
    volume = volumes.read_volume(images / "patient")
    labels = volumes.read_volume_mask(tmp_path / "out" / "masks" / "patient.nii.gz")
    np.testing.assert_array_equal(labels.affine, volume.affine)
    np.testing.assert_array_equal(labels.voxels, volume.voxels[..., 0] > 0.5 * volume.voxels.max())
    rows = {row["image"]: row for row in table(tmp_path / "out" / "measures.csv")}
    assert rows.keys() == {"ray.dcm", "unnamed", "patient"}
    assert float(rows["ray.dcm"]["mm2"]) == mask.sum() * 0.125
    assert rows["unnamed"]["mm2"] == ""
    assert float(rows["patient"]["mm3"]) == pytest.approx(labels.voxels.sum() * 0.625, rel=1e-4)


@pytest.mark.parametrize(("asked", "axis"), [((), "coronal"), (("--axis", "sagittal"), "sagittal")])
def test_slices_are_those_of_the_training(tmp_path, images, monkeypatch, capsys, asked, axis):
    model = installed(tmp_path / "network", monkeypatch, axis="coronal")
    voxels = np.random.default_rng(0).integers(0, 255, (5, 6, 7)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), images / "case.nii.gz")
    predict(model, images, "--out", tmp_path / "out", "--window", 32, "--overlays", *asked)
    assert json.loads((tmp_path / "out" / "prediction.json").read_text())["axis"] == axis
    assert page_count(tmp_path / "out" / "overlays" / "case.tif") == {"coronal": 6, "sagittal": 5}[axis]
    note = "note: slices are sagittal, and were coronal in training\n"
    assert (note in capsys.readouterr().out) == bool(asked)


def test_dicom_files_of_any_name_and_pictures_beside_a_series(tmp_path, images, model):
    pytest.importorskip("pydicom", reason="needs the medical extra")
    from tests.support.dicom import write_dicom

    write_dicom(images / "1.2.840.113619.2.55")  # an end that looks like a suffix
    (images / "patient").mkdir()
    (images / "patient" / "LICENSE").write_text("a file that comes before the slices")
    save(images / "patient" / "zoom.png", gray(8, 8))
    for number in range(2):
        write_dicom(images / "patient" / f"s{number}", position=(0, 0, number))
    predict(model, images, "--out", tmp_path / "out", "--window", 32)
    expected = ["1.2.840.113619.2.55.png", "patient.nii.gz", "patient/zoom.png"]
    assert listing(tmp_path / "out" / "masks") == expected
    predict(model, images / "patient", "--out", tmp_path / "alone", "--window", 32)
    assert listing(tmp_path / "alone" / "masks") == ["patient.nii.gz", "zoom.png"]


def test_a_patients_folder_is_named_by_itself(tmp_path, model, monkeypatch):
    pytest.importorskip("pydicom", reason="needs the medical extra")
    from tests.support.dicom import write_dicom

    folder = tmp_path / "p1"
    folder.mkdir()
    for number in range(2):
        write_dicom(folder / f"{number}.dcm", position=(0, 0, number))
    monkeypatch.chdir(folder)
    predict(model, ".", "--out", tmp_path / "out", "--window", 32)
    assert listing(tmp_path / "out" / "masks") == ["p1.nii.gz"]
