"""A predictor whose class is the level of gray: predictions that a test can compute, without compiling."""

import csv
import dataclasses
import json

import numpy as np
import PIL.Image

from flaxunet.__main__ import main
from flaxunet.prediction.predictor import Predictor

RNG = np.random.default_rng(0)
NAMES = ("background", "dark", "light", "white")


class Levels(Predictor):
    """K = 1 is the brightness itself; else the image's range is cut into K levels."""

    @property
    def outputs(self):
        return 1 if len(self.classes) == 2 else len(self.classes)

    def windows(self, x):
        if self.outputs == 1:
            return x[..., :1]
        level = np.minimum(x[..., 0] * self.outputs, self.outputs - 1).astype(int)
        return (0.9 * np.eye(self.outputs) + 0.1 / self.outputs).astype(np.float32)[level]


def levels(image, classes=2):
    """What it makes of an image (H, W, C)."""
    if classes == 2:
        return (image[..., 0] > 0.5).astype(int)
    return np.minimum(image[..., 0] * classes, classes - 1).astype(int)


def installed(folder, monkeypatch, classes=2, channels=1, names=None, **more):
    """A folder that `Predictor.load` loads as a `Levels` of these classes and channels."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"weights": {"sha256": "1234"}}))
    names = names or NAMES[:classes]

    def load(folders, *, tiling, dtype):
        tiling = dataclasses.replace(tiling, batch=tiling.batch or 1)
        return Levels((), names, channels, "dtype", tiling=tiling, **more)

    monkeypatch.setattr(Predictor, "load", load)
    return folder


def gray(height=20, width=33, top=255, dtype=np.uint8):
    """Blobs of several pixels, so that objects can be counted."""
    coarse = RNG.random((-(-height // 4), -(-width // 4)))
    return (top * np.kron(coarse, np.ones((4, 4)))[:height, :width]).astype(dtype)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array).save(path, **options)
    return path


def predict(model, *words, code=0):
    assert main(["predict", str(model), *map(str, words)]) == code


def table(path):
    with path.open(newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def refused(capsys, model, *words):
    """The one line of a command that begins nothing."""
    predict(model, *words, code=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
