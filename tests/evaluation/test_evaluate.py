"""`python -m flaxunet evaluate`: its numbers are those of the masks and networks that it is given."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from flax import nnx

import flaxunet
from flaxunet import data as layouts
from flaxunet import metrics
from flaxunet.io.images import read_image, read_mask, write_mask
from flaxunet.labels import IGNORE
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.tiling import Tiling
from flaxunet.weights.store import leaves
from tests.support import written
from tests.support.dicom import STORED, write_dicom
from tests.support.evaluated import classes, evaluate, networks
from tests.support.networks import network, shallow
from tests.support.squares import make_data

__all__ = ["networks"]  # a fixture


def test_masks_are_scored_by_image_and_class(tmp_path, capsys):
    data, found, truths, predictions = classes(tmp_path)
    content, rows = evaluate(tmp_path, "--predictions", found, data, "--tolerance", "1.5", "--spacing", "2")
    said = capsys.readouterr().out
    assert [row["name"] for row in rows[::2]] == [f"n{number}" for number in range(6)]
    assert [row["class"] for row in rows[:2]] == ["cell", "wall"]
    expected = np.stack(
        [
            metrics.class_scores(truth, prediction, 3, spacing=(2, 2), tolerance=1.5)
            for truth, prediction in zip(truths, predictions, strict=True)
        ]
    )
    written_down = np.array([[float(row[score]) for score in metrics.SCORES] for row in rows])
    np.testing.assert_allclose(written_down.reshape(6, 2, 7), expected, atol=1e-6)
    between = metrics.surface_distances(predictions[5] == 2, truths[5] == 2, (2, 2))
    assert float(rows[-1]["hd95"]) == pytest.approx(metrics.hausdorff(between), abs=1e-6)
    (model,) = content["models"]
    assert model["means"]["wall"]["dice"]["mean"] == pytest.approx(expected[:, 1, 0].mean())
    assert model["means"]["mean of classes"]["nsd"]["mean"] == pytest.approx(expected[:, :, 6].mean())
    assert model["confusion"] == sum(map(confusion, truths, predictions)).tolist()
    assert content["data"]["unit"] == "mm"
    assert content["data"]["split"] == "all"
    assert f"{expected[:, 0, 0].mean():.3f}" in said
    assert "lowest Dice  n5" in said
    assert all(len(line) <= 80 or "/" in line for line in said.splitlines())


def confusion(truth, prediction):
    return metrics.confusion_matrix(truth, prediction, 3)


def test_a_network_is_scored_by_what_it_predicts(tmp_path, capsys, networks):
    data = make_data(tmp_path / "data", side=6)
    content, rows = evaluate(tmp_path, networks[0], data, "--split", "all")
    assert [row["class"] for row in rows] == ["foreground"] * 12
    model = flaxunet.load(networks[0])
    logits = nnx.jit(lambda model, image: model(model.normalize(image[None]))[0, :, :, 0])
    total = np.zeros((2, 2), np.int64)
    for row in rows:
        image = read_image(data / "images" / f"{row['name']}.png")
        framed = np.zeros((32, 64, 1), np.float32)
        framed[:30, :36] = image
        found = np.asarray(logits(model, framed)[:30, :36] > 0).astype(np.int32)
        counted = metrics.confusion_matrix(read_mask(data / "masks" / f"{row['name']}.png"), found, 2)
        assert float(row["dice"]) == pytest.approx(metrics.dice(counted)[1], abs=1e-6)
        total += counted
    assert content["models"][0]["pooled"]["foreground"]["dice"] == metrics.dice(total)[1]
    assert content["data"]["target"] == "classes"
    assert "distances in pixels" in capsys.readouterr().out


def test_windows_are_those_of_the_predictor(tmp_path, networks):
    data = make_data(tmp_path / "data", side=16)
    flags = ("--split", "all", "--no-whole", "--window", "64", "--tta", "flips")
    content, _ = evaluate(tmp_path, networks[0], data, *flags)
    predictor = Predictor.load([networks[0]], tiling=Tiling(64, tta="flips"))
    total = 0
    for path in sorted((data / "images").iterdir()):
        found = predictor.labels(predictor(read_image(path)))
        total = total + metrics.confusion_matrix(read_mask(data / "masks" / path.name), found, 2)
    assert content["models"][0]["confusion"] == total.tolist()


@pytest.mark.long
def test_a_run_has_its_own_test_dice(tmp_path):
    data = make_data(tmp_path / "data", side=12)
    words = (
        "--steps",
        "4",
        "--size",
        "48",
        "--data",
        data,
        "--out",
        tmp_path,
        "--name",
        "run",
        "--seed",
        "5",
    )
    done = subprocess.run(
        [sys.executable, "-m", "train", "--arch", "unet", "--encoder", "resnet18", *map(str, words)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    content, _ = evaluate(tmp_path, tmp_path / "run", data)
    assert content["models"][0]["pooled"]["foreground"]["dice"] == pytest.approx(last["test_dice"], abs=1e-9)


def test_the_default_split_is_that_of_training(tmp_path, capsys, networks):
    data = make_data(tmp_path / "data", side=6)
    content, rows = evaluate(tmp_path, networks[0], data, "--seed", "3")
    expected = layouts.split_samples(layouts.find(data), seed=3)["test"]
    assert [row["name"] for row in rows] == [record.name for record in expected]
    assert content["data"]["seed"] == 3
    assert "split test, cut by seed 3" in capsys.readouterr().out


def test_two_networks_are_compared_on_the_same_images(tmp_path, capsys, networks):
    from scipy import stats

    data = make_data(tmp_path / "data", side=6)
    content, rows = evaluate(tmp_path, networks[0], data, "--split", "all", "--against", networks[1])
    dice = np.array([float(row["dice"]) for row in rows]).reshape(2, 12)
    found = content["differences_of_dice"]["foreground"]
    assert found["mean"] == pytest.approx((dice[0] - dice[1]).mean(), abs=1e-6)
    assert found["p"] == pytest.approx(stats.wilcoxon(dice[0], dice[1]).pvalue, rel=1e-3)
    assert found["low"] < found["mean"] < found["high"]
    assert {row["model"] for row in rows} == set(map(str, networks))
    content, rows = evaluate(tmp_path, networks[0], data, "--split", "all", "--against", networks[0])
    assert content["differences_of_dice"]["foreground"]["p"] == 1


def test_images_of_the_training_are_warned_of(tmp_path, capsys, networks):
    data = make_data(tmp_path / "data", side=6)
    run = tmp_path / "run"
    run.mkdir()
    (run / "model").symlink_to(networks[0])
    splits = {"train": ["00", "01"], "validation": ["02"], "test": ["03"]}
    (run / "config.json").write_text(json.dumps({"config": {"data": str(data)}, "data": splits}))
    content, _ = evaluate(tmp_path, run, data, "--split", "all")
    (line,) = content["warnings"]
    assert line.startswith("3 of 12 samples were for training or validation")
    assert "warning  3 of 12" in capsys.readouterr().out
    assert evaluate(tmp_path, networks[0], data, "--split", "all")[0]["warnings"] == []


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_volumes_are_scored_whole_in_millimetres(tmp_path, axis):
    affine = np.array([[0, 0, 1.5, 0], [-0.7, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])
    written.nifti(tmp_path / "data", affine)
    tables = []
    for path in sorted((tmp_path / "data" / "labelsTr").iterdir()):
        stored = nibabel.load(path)
        truth = np.asarray(stored.dataobj)
        found = np.roll(truth, 2, axis=0)
        (tmp_path / "found").mkdir(exist_ok=True)
        # In another order of axes, with the affine that belongs to it.
        other = nibabel.as_closest_canonical(nibabel.Nifti1Image(found, affine))
        nibabel.save(other, tmp_path / "found" / path.name)
        tables.append(metrics.class_scores(truth, found, 2, spacing=(0.7, 3.0, 1.5)))
    content, rows = evaluate(tmp_path, "--predictions", tmp_path / "found", tmp_path / "data", "--axis", axis)
    assert [row["name"] for row in rows] == [f"v{number}" for number in range(5)]
    given = np.array([[float(row[score]) for score in metrics.SCORES] for row in rows])
    np.testing.assert_allclose(given, np.concatenate(tables), atol=1e-6)
    assert (content["data"]["scored"], content["data"]["unit"]) == ("volumes", "mm")


def test_volumes_are_cut_as_in_training(tmp_path, networks):
    data = written.written("nifti", tmp_path / "data")
    source = {"classes": ["background", "square"]}
    model = network("unet", "shallow", in_channels=1)
    bias = leaves(model)["heads.0.bias"]
    bias[...] = bias[...] - 0.3  # which finds about half of all
    for name, more in (("none", {}), ("sagittal", {"axis": "sagittal"})):
        flaxunet.save(model, tmp_path / name, source=source | more)
    found = []
    for name, *words in (("sagittal",), ("none", "--axis", "sagittal"), ("sagittal", "--axis", "axial")):
        content, rows = evaluate(tmp_path, tmp_path / name, data, "--split", "all", *words)
        found.append((content["warnings"], [row["found_pixels"] for row in rows]))
    assert found[0] == found[1]
    assert found[0][0] == []
    assert found[0][1] != found[2][1]
    (line,) = found[2][0]
    assert line.startswith("slices are axial; those that ")
    assert line.endswith("was trained on were sagittal")


def test_slices_can_be_scored_by_themselves_and_are_drawn_by_volume(tmp_path, networks):
    data = written.written("nifti", tmp_path / "data")
    content, rows = evaluate(tmp_path, networks[0], data, "--slices", "--split", "all")
    assert len(rows) == written.COUNT
    assert {row["group"] for row in rows} == {f"v{number}" for number in range(written.PATIENTS)}
    assert (content["data"]["scored"], content["data"]["groups"]) == ("images", written.PATIENTS)
    whole, _ = evaluate(tmp_path, networks[0], data, "--split", "all")
    assert whole["models"][0]["confusion"] == content["models"][0]["confusion"]


def test_spacing_of_dicom_is_taken(tmp_path):
    rows = ["image,mask"]
    (tmp_path / "data").mkdir()
    for number in range(2):
        path = write_dicom(tmp_path / "data" / f"i{number}.dcm", STORED, PixelSpacing=["0.5", "2.0"])
        mask = np.greater(STORED, np.median(STORED)).astype(np.uint8)
        written.save(tmp_path / "data" / f"m{number}.png", mask)
        written.save(tmp_path / "found" / f"i{number}.png", np.roll(mask, 1, axis=1))
        rows.append(f"{path.name},m{number}.png")
    (tmp_path / "data" / "pairs.csv").write_text("\n".join(rows))
    content, table = evaluate(tmp_path, "--predictions", tmp_path / "found", tmp_path / "data")
    assert content["data"]["unit"] == "mm"
    expected = metrics.class_scores(mask, np.roll(mask, 1, axis=1), 2, spacing=(0.5, 2.0))[0]
    np.testing.assert_allclose([float(table[0][score]) for score in metrics.SCORES], expected, atol=1e-6)


@pytest.mark.parametrize("layout", ["dsb2018", "instances", "coco", "yolo"])
@pytest.mark.parametrize("numbered", [False, True])
def test_objects_are_counted(tmp_path, capsys, layout, numbered):
    data = written.written(layout, tmp_path / "data")
    total = metrics.Detections(0, 0, 0)
    for number in range(written.COUNT):
        _, objects = written.truth(number)
        found = objects.astype(np.int32)
        found[objects == 1] = 0  # which leaves one or two, that do not touch
        written.save(
            tmp_path / "found" / f"n{number}.png", (found if numbered else 255 * (found > 0)).astype(np.uint8)
        )
        total += metrics.match_objects(objects, found)
    flags = {"instances": ["--layout", "instances"], "coco": ["--objects"], "yolo": ["--objects"]}
    content, rows = evaluate(tmp_path, "--predictions", tmp_path / "found", data, *flags.get(layout, []))
    counted = content["models"][0]["objects"]["pooled"]
    assert (counted["hits"], counted["extra"], counted["missed"]) == (15, 0, 10)
    assert counted["f1"] == total.f1 == 30 / 40
    assert counted["ap"] == 15 / 25
    of_objects = [row for row in rows if row["class"] == "objects"]
    assert [int(row["object_missed"]) for row in of_objects] == [1] * written.COUNT
    assert "15 matched, 0 extra, 10 missed" in capsys.readouterr().out


def test_a_network_of_insides_and_boundaries_is_scored_by_objects(tmp_path):
    data = written.written("instances", tmp_path / "data")
    names = ["background", "inside", "boundary"]
    with shallow():
        model = network("unet", "shallow", in_channels=1, classes=3)
        flaxunet.save(model, tmp_path / "model", source={"classes": names})
        content, rows = evaluate(
            tmp_path, tmp_path / "model", data, "--layout", "instances", "--split", "all"
        )
    assert content["data"]["target"] == "3class"
    assert [row["class"] for row in rows[:3]] == ["inside", "boundary", "objects"]
    assert content["models"][0]["objects"]["pooled"]["missed"] > 0


def test_ignored_pixels_count_for_nothing(tmp_path):
    data, found, truths, predictions = classes(tmp_path)
    truths[2][:10] = 200
    write_mask(data / "masks" / "n2.png", truths[2])
    content, rows = evaluate(tmp_path, "--predictions", found, data, "--ignore-label", "200")
    expected = metrics.class_scores(np.where(truths[2] == 200, IGNORE, truths[2]), predictions[2], 3)
    given = [float(rows[4 + label][score]) for label in range(2) for score in list(metrics.SCORES)[:4]]
    np.testing.assert_allclose(given, expected[:, :4].reshape(-1), atol=1e-6)
    assert np.sum(content["models"][0]["confusion"]) == 6 * truths[0].size - 10 * truths[2].shape[1]


def test_what_is_empty_is_left_out_or_costs_the_diagonal(tmp_path):
    data, found, _, _ = classes(tmp_path, count=3)
    shape = read_mask(data / "masks" / "n0.png").shape
    blank, spot = np.zeros((2, *shape), int)
    spot[2, 3] = 1
    for number, (truth, prediction) in enumerate(((blank, blank), (spot, blank), (blank, spot))):
        write_mask(data / "masks" / f"n{number}.png", truth)
        write_mask(found / f"n{number}.png", prediction)
    content, rows = evaluate(tmp_path, "--predictions", found, data)
    diagonal = f"{np.hypot(shape[0] - 1, shape[1] - 1):.6f}"
    zero = "0.000000"
    cells = [[row[score] for score in metrics.SCORES] for row in rows if row["class"] == "cell"]
    assert cells == [
        [""] * 7,
        [zero, zero, "", zero, diagonal, diagonal, zero],
        [zero, zero, zero, "", diagonal, diagonal, zero],
    ]
    means = content["models"][0]["means"]
    assert (means["cell"]["dice"]["images"], means["cell"]["dice"]["mean"]) == (2, 0)
    assert (means["wall"]["dice"]["images"], means["wall"]["dice"]["mean"]) == (0, None)
