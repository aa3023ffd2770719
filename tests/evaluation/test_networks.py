"""`evaluate`: the scores of stored networks, alone and compared, on images and on slices of volumes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import flaxunet
from flaxunet import data as layouts
from flaxunet import metrics
from flaxunet.io.images import read_image, read_mask
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.tiling import Tiling
from flaxunet.weights.store import leaves
from tests.support import written
from tests.support.evaluated import evaluate
from tests.support.networks import network, shallow
from tests.support.squares import make_data


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
        prediction = np.asarray(logits(model, framed)[:30, :36] > 0).astype(np.int32)
        counted = metrics.confusion_matrix(read_mask(data / "masks" / f"{row['name']}.png"), prediction, 2)
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
        labels = predictor.labels(predictor(read_image(path)))
        total = total + metrics.confusion_matrix(read_mask(data / "masks" / path.name), labels, 2)
    assert content["models"][0]["confusion"] == total.tolist()


@pytest.mark.long
def test_the_test_dice_of_a_run_is_that_of_its_training(tmp_path):
    data = make_data(tmp_path / "data", side=12)
    flags = ("--arch", "unet", "--encoder", "resnet18", "--steps", "4", "--size", "48", "--seed", "5")
    places = ("--data", str(data), "--out", str(tmp_path), "--name", "run")
    done = subprocess.run(
        [sys.executable, "-m", "train", *flags, *places],
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


def test_two_networks_are_compared_on_the_same_images(tmp_path, networks):
    from scipy import stats

    data = make_data(tmp_path / "data", side=6)
    content, rows = evaluate(tmp_path, networks[0], data, "--split", "all", "--against", networks[1])
    dice = np.array([float(row["dice"]) for row in rows]).reshape(2, 12)
    difference = content["differences_of_dice"]["foreground"]
    assert difference["mean"] == pytest.approx((dice[0] - dice[1]).mean(), abs=1e-6)
    assert difference["p"] == pytest.approx(stats.wilcoxon(dice[0], dice[1]).pvalue, rel=1e-3)
    assert difference["low"] < difference["mean"] < difference["high"]
    assert {row["model"] for row in rows} == set(map(str, networks))
    content, rows = evaluate(tmp_path, networks[0], data, "--split", "all", "--against", networks[0])
    assert content["differences_of_dice"]["foreground"]["p"] == 1


def test_slices_of_volumes_are_those_of_training(tmp_path, networks):
    data = written.written("nifti", tmp_path / "data")
    source = {"classes": ["background", "square"]}
    model = network("unet", "shallow", in_channels=1)
    bias = leaves(model)["heads.0.bias"]
    bias[...] = bias[...] - 0.3  # which predicts about half of all as foreground
    for name, more in (("none", {}), ("sagittal", {"axis": "sagittal"})):
        flaxunet.save(model, tmp_path / name, source=source | more)
    outcomes = []
    for name, *words in (("sagittal",), ("none", "--axis", "sagittal"), ("sagittal", "--axis", "axial")):
        content, rows = evaluate(tmp_path, tmp_path / name, data, "--split", "all", *words)
        outcomes.append((content["warnings"], [row["found_pixels"] for row in rows]))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == []
    assert outcomes[0][1] != outcomes[2][1]
    (line,) = outcomes[2][0]
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
