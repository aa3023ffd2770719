"""`evaluate` scores what `predict` writes: the same labels, and the same objects."""

import numpy as np
import pytest

from flaxunet import labels as targets
from flaxunet.io.images import read_mask
from tests.support import written
from tests.support.dicom import write_dicom
from tests.support.discs import PLACES, numbered_discs
from tests.support.evaluated import evaluate
from tests.support.levels import installed, predict

SIZE = (90, 90)


def scored(tmp_path, *words):
    """Pixels and objects that were counted."""
    (model,) = evaluate(tmp_path, *words)[0]["models"]
    return model["confusion"], model["objects"]["pooled"]


def gray(labels, classes=2):
    """An image for which `tests.support.levels.Levels` predicts these labels, by different margins."""
    noise = np.random.default_rng(0).uniform(0.1, 0.9, labels.shape)
    return (255 * (labels + noise) / classes).astype(np.uint8)


def discs(root, places=PLACES, target="foreground"):
    """Two images of numbered discs, some of which touch, one with a hole and a speck that are not true."""
    classes = len(targets.CLASS_NAMES[target])
    for number in range(2):
        truth = numbered_discs(SIZE, *places[number:])
        labels = targets.relabel(truth, target)
        if number:
            labels[40:42, 30] = 1
            labels[60, 47] = 0
        written.save(root / "images" / f"n{number}.png", gray(labels, classes))
        written.save(root / "masks" / f"n{number}.png", truth.astype(np.uint8))
    return root


FLAGS = {
    "none": (),
    "threshold": ("--threshold", "0.6"),
    "small": ("--min-size", "20"),
    "largest": ("--keep-largest",),
    "holes": ("--fill-holes",),
    "all": ("--min-size", "20", "--fill-holes", "--threshold", "0.4", "--batch", "2", "--dtype", "bfloat16"),
}


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_objects_and_labels_are_those_that_predict_writes(tmp_path, monkeypatch, flags):
    data, model = discs(tmp_path / "data"), installed(tmp_path / "network", monkeypatch)
    ours = scored(tmp_path, model, data, "--layout", "instances", "--split", "all", "--no-whole", *flags)
    for place, words in enumerate(((), ("--instances",))):
        predict(model, data / "images", "--out", tmp_path / f"{place}", *words, *flags)
        masks = tmp_path / f"{place}" / "masks"
        assert scored(tmp_path, "--predictions", masks, data, "--layout", "instances")[place] == ours[place]
    if not flags:
        assert ours[1]["hits"] == len(PLACES) * 2 - 1  # though some touch


@pytest.mark.parametrize("target", ["3class", "boundary"])
def test_objects_of_boundaries_are_those_that_predict_writes(tmp_path, monkeypatch, target):
    names = targets.CLASS_NAMES[target]
    data = discs(tmp_path / "data", PLACES[:5], target)
    model = installed(tmp_path / "network", monkeypatch, classes=len(names), names=names)
    layout = ("--layout", "instances", "--split", "all")
    ours = scored(tmp_path, model, data, *layout, "--no-whole")
    assert ours[1]["hits"] == 9
    for place, words in enumerate(((), ("--instances",))):
        predict(model, data / "images", "--out", tmp_path / f"{place}", *words)
        masks = tmp_path / f"{place}" / "masks"
        theirs = scored(tmp_path, "--predictions", masks, data, *layout, "--target", target)
        assert theirs[place:] == ours[place:]  # numbers tell where boundaries are a little otherwise
    small = (model, data, *layout, "--no-whole", "--min-size")
    assert scored(tmp_path, *small, "500")[1]["hits"] < ours[1]["hits"]
    # The target says what the classes of a network without names are, and masks of any number are foreground.
    unnamed = installed(tmp_path / "unnamed", monkeypatch, classes=len(names))
    assert scored(tmp_path, unnamed, data, *layout, "--target", target)[1] == ours[1]
    for path in (data / "masks").iterdir():
        written.save(tmp_path / "foreground" / path.name, (255 * (read_mask(path) > 0)).astype(np.uint8))
    foreground = scored(tmp_path, "--predictions", tmp_path / "foreground", data, *layout, "--target", target)
    assert foreground[1]["hits"] == 9


def test_objects_are_parted_by_the_spacing_of_the_file(tmp_path, monkeypatch):
    rows, columns = np.indices((40, 60))
    truth = np.any([((rows - 20) / 8) ** 2 + ((columns - x) / 10) ** 2 <= 1 for x in (18, 35)], axis=0)
    (tmp_path / "data" / "images").mkdir(parents=True)
    # Of square pixels it would be two objects.
    write_dicom(
        tmp_path / "data" / "images" / "n.dcm", (4000 * truth).astype(np.uint16), PixelSpacing=["1", "0.2"]
    )
    written.save(tmp_path / "data" / "masks" / "n.png", truth.astype(np.uint8))
    model, layout = installed(tmp_path / "network", monkeypatch), ("--layout", "instances")
    _, ours = scored(tmp_path, model, tmp_path / "data", *layout, "--split", "all")
    assert (ours["hits"], ours["extra"]) == (1, 0)
    predict(model, tmp_path / "data" / "images", "--out", tmp_path / "out", "--instances")
    assert read_mask(tmp_path / "out" / "masks" / "n.png").max() == 1
