"""`evaluate --predictions`: the scores of stored masks, of images and of volumes."""

import os

import nibabel
import numpy as np
import pytest
import tifffile

from flaxunet import metrics
from flaxunet.io.images import write_mask
from flaxunet.labels import IGNORE
from flaxunet.metrics import SCORES
from flaxunet.metrics.scores import Score
from tests.support import written
from tests.support.dicom import STORED, write_dicom
from tests.support.evaluated import errors, evaluate, scores, three_classes
from tests.support.large_tiffs import arrays, lower_limits, write_tiffs


def test_masks_are_scored_by_image_and_class(tmp_path, capsys):
    data, predicted, truths, predictions = three_classes(tmp_path)
    flags = ("--tolerance", "1.5", "--spacing", "2")
    content, rows = evaluate(tmp_path, "--predictions", predicted, data, *flags)
    assert [row["name"] for row in rows[::2]] == [f"n{number}" for number in range(6)]
    assert [row["class"] for row in rows[:2]] == ["cell", "wall"]
    pairs = list(zip(truths, predictions, strict=True))
    expected = np.stack([metrics.class_scores(*pair, 3, spacing=(2, 2), tolerance=1.5) for pair in pairs])
    np.testing.assert_allclose(scores(rows).reshape(6, 2, 7), expected, atol=1e-6)
    distances = metrics.surface_distances(predictions[5] == 2, truths[5] == 2, (2, 2))
    assert float(rows[-1]["hd95"]) == pytest.approx(metrics.hausdorff(distances), abs=1e-6)
    (model,) = content["models"]
    assert model["means"]["wall"]["dice"]["mean"] == pytest.approx(expected[:, 1, 0].mean())
    assert model["means"]["mean of classes"]["nsd"]["mean"] == pytest.approx(expected[:, :, 6].mean())
    assert model["confusion"] == sum(metrics.confusion_matrix(*pair, 3) for pair in pairs).tolist()
    assert (content["data"]["unit"], content["data"]["split"]) == ("mm", "all")
    output = capsys.readouterr().out
    assert f"{expected[:, 0, 0].mean():.3f}" in output
    assert "lowest Dice  n5" in output
    assert all(len(line) <= 80 or "/" in line for line in output.splitlines())


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_volumes_are_scored_whole_in_millimetres(tmp_path, axis):
    affine = np.array([[0, 0, 1.5, 0], [-0.7, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])
    written.nifti(tmp_path / "data", affine)
    tables = []
    for path in sorted((tmp_path / "data" / "labelsTr").iterdir()):
        stored = nibabel.load(path)
        truth = np.asarray(stored.dataobj)
        predicted = np.roll(truth, 2, axis=0)
        (tmp_path / "predicted").mkdir(exist_ok=True)
        # In another order of axes, with the affine that belongs to it.
        other = nibabel.as_closest_canonical(nibabel.Nifti1Image(predicted, affine))
        nibabel.save(other, tmp_path / "predicted" / path.name)
        tables.append(metrics.class_scores(truth, predicted, 2, spacing=(0.7, 3.0, 1.5)))
    content, rows = evaluate(
        tmp_path, "--predictions", tmp_path / "predicted", tmp_path / "data", "--axis", axis
    )
    assert [row["name"] for row in rows] == [f"v{number}" for number in range(5)]
    np.testing.assert_allclose(scores(rows), np.concatenate(tables), atol=1e-6)
    assert (content["data"]["scored"], content["data"]["unit"]) == ("volumes", "mm")


def test_distances_use_the_spacing_of_dicom(tmp_path):
    rows = ["image,mask"]
    (tmp_path / "data").mkdir()
    for number in range(2):
        path = write_dicom(tmp_path / "data" / f"i{number}.dcm", STORED, PixelSpacing=["0.5", "2.0"])
        mask = np.greater(STORED, np.median(STORED)).astype(np.uint8)
        written.save(tmp_path / "data" / f"m{number}.png", mask)
        written.save(tmp_path / "predicted" / f"i{number}.png", np.roll(mask, 1, axis=1))
        rows.append(f"{path.name},m{number}.png")
    (tmp_path / "data" / "pairs.csv").write_text("\n".join(rows))
    content, table = evaluate(tmp_path, "--predictions", tmp_path / "predicted", tmp_path / "data")
    assert content["data"]["unit"] == "mm"
    expected = metrics.class_scores(mask, np.roll(mask, 1, axis=1), 2, spacing=(0.5, 2.0))
    np.testing.assert_allclose(scores(table[:1]), expected, atol=1e-6)


@pytest.mark.parametrize("layout", ["dsb2018", "instances", "coco", "yolo"])
@pytest.mark.parametrize("numbered", [False, True])
def test_objects_are_counted(tmp_path, capsys, layout, numbered):
    data = written.written(layout, tmp_path / "data")
    total = metrics.Detections(0, 0, 0)
    for number in range(written.COUNT):
        _, objects = written.truth(number)
        predicted = objects.astype(np.int32)
        predicted[objects == 1] = 0  # which leaves one or two, that do not touch
        written.save(
            tmp_path / "predicted" / f"n{number}.png",
            (predicted if numbered else 255 * (predicted > 0)).astype(np.uint8),
        )
        total += metrics.match_objects(objects, predicted)
    flags = {"instances": ["--layout", "instances"], "coco": ["--objects"], "yolo": ["--objects"]}
    content, rows = evaluate(tmp_path, "--predictions", tmp_path / "predicted", data, *flags.get(layout, []))
    counted = content["models"][0]["objects"]["pooled"]
    assert (counted["hits"], counted["extra"], counted["missed"]) == (15, 0, 10)
    assert counted["f1"] == total.f1 == 30 / 40
    assert counted["ap"] == 15 / 25
    of_objects = [row for row in rows if row["class"] == "objects"]
    assert [int(row["object_missed"]) for row in of_objects] == [1] * written.COUNT
    assert "15 matched, 0 extra, 10 missed" in capsys.readouterr().out


def test_ignored_pixels_count_for_nothing(tmp_path):
    data, predicted, truths, predictions = three_classes(tmp_path)
    truths[2][:10] = 200
    write_mask(data / "masks" / "n2.png", truths[2])
    content, rows = evaluate(tmp_path, "--predictions", predicted, data, "--ignore-label", "200")
    expected = metrics.class_scores(np.where(truths[2] == 200, IGNORE, truths[2]), predictions[2], 3)
    np.testing.assert_allclose(scores(rows[4:6])[:, :4], expected[:, :4], atol=1e-6)
    assert np.sum(content["models"][0]["confusion"]) == 6 * truths[0].size - 10 * truths[2].shape[1]


def test_empty_masks_are_left_out_or_cost_the_diagonal(tmp_path):
    data, predicted, (first, *_), _ = three_classes(tmp_path, count=3)
    blank, spot = np.zeros((2, *first.shape), int)
    spot[2, 3] = 1
    for number, (truth, prediction) in enumerate(((blank, blank), (spot, blank), (blank, spot))):
        write_mask(data / "masks" / f"n{number}.png", truth)
        write_mask(predicted / f"n{number}.png", prediction)
    content, rows = evaluate(tmp_path, "--predictions", predicted, data)
    nan, diagonal = float("nan"), np.hypot(*np.subtract(first.shape, 1))
    expected = [
        [nan] * 7,
        [0, 0, nan, 0, diagonal, diagonal, 0],
        [0, 0, 0, nan, diagonal, diagonal, 0],
    ]
    cells = [row for row in rows if row["class"] == "cell"]
    np.testing.assert_allclose(scores(cells), expected, atol=1e-6)
    assert cells[0]["dice"] == ""
    means = content["models"][0]["means"]
    assert (means["cell"]["dice"]["images"], means["cell"]["dice"]["mean"]) == (2, 0)
    assert (means["wall"]["dice"]["images"], means["wall"]["dice"]["mean"]) == (0, None)


def test_a_new_score_is_one_entry(tmp_path, capsys, monkeypatch):
    def specificity(confusion):
        false, predicted = confusion.sum() - confusion.sum(1), confusion.sum(0)
        return 1 - (predicted - np.diagonal(confusion)) / false

    monkeypatch.setitem(SCORES, "specificity", Score("specificity", "TN / (TN + FP)", overlap=specificity))
    data, predicted, truths, predictions = three_classes(tmp_path)
    content, rows = evaluate(tmp_path, "--predictions", predicted, data)
    negative = truths[5] != 1
    expected = (negative & (predictions[5] != 1)).sum() / negative.sum()
    assert float(rows[10]["specificity"]) == pytest.approx(expected, abs=1e-6)
    assert content["models"][0]["means"]["cell"]["specificity"]["images"] == 6
    assert content["models"][0]["pooled"]["cell"]["specificity"] > 0.5
    assert "specificity" in capsys.readouterr().out
    page = (tmp_path / "evaluated" / "report.html").read_text()
    assert "<th scope=col>specificity</th>" in page
    assert "specificity is TN / (TN + FP)" in page


def test_names_that_are_no_utf8_keep_their_bytes(tmp_path, capsys):
    data, predicted, _, _ = three_classes(tmp_path)
    for folder in (data / "images", data / "masks", predicted):
        (folder / "n5.png").rename(folder / os.fsdecode(b"Gr\xf6sse.png"))
    predicted = predicted.rename(tmp_path / os.fsdecode(b"gesch\xe4tzt"))
    content, _ = evaluate(tmp_path, "--predictions", predicted, data)
    assert content["models"][0]["model"] == str(predicted)
    out = tmp_path / "evaluated"
    assert b"/gesch\xe4tzt,Gr\xf6sse," in (out / "scores.csv").read_bytes()
    assert "Gr?sse" in (out / "report.html").read_text("utf-8")
    assert r"lowest Dice  Gr\udcf6sse" in capsys.readouterr().out


def test_patches_of_a_slide_are_cut_from_its_one_mask(tmp_path, monkeypatch, capsys):
    lower_limits(monkeypatch)
    _, mask = write_tiffs(tmp_path / "data", "a", *arrays())
    truth = tifffile.imread(mask)
    prediction = np.where(np.random.default_rng(1).random(truth.shape) < 0.2, 0, truth).astype(np.uint8)
    words = "--predictions", tmp_path / "predicted", tmp_path / "data"
    (tmp_path / "predicted").mkdir()
    (line,) = errors(tmp_path, capsys, *words)
    assert "no mask called a for " in line
    tifffile.imwrite(tmp_path / "predicted" / "a.tif", prediction[:-1])
    (line,) = errors(tmp_path, capsys, *words)
    assert line.endswith("a.tif: 149 x 200 pixels; expected 150 x 200, the size of its image")
    tifffile.imwrite(tmp_path / "predicted" / "a.tif", prediction, tile=(32, 32), compression="zlib")
    content, rows = evaluate(tmp_path, *words)
    assert len({row["name"] for row in rows}) == 3 * 4
    expected = metrics.confusion_matrix(truth, prediction, 3)
    assert content["models"][0]["confusion"] == expected.tolist()
