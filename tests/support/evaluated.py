"""Runs `evaluate` and reads the files that it wrote; masks of three classes with predictions."""

import csv
import json

import numpy as np

from flaxunet.__main__ import main
from flaxunet.io.images import write_mask
from flaxunet.metrics import SCORES
from tests.support import written


def evaluate(tmp_path, *words, code=0):
    """The content of scores.json, and the rows of scores.csv."""
    out = tmp_path / "evaluated"
    assert main(["evaluate", *map(str, words), "--out", str(out)]) == code
    if code:
        assert not out.exists()
        return None
    with (out / "scores.csv").open(errors="surrogateescape") as file:
        return json.loads((out / "scores.json").read_text()), list(csv.DictReader(file))


def errors(tmp_path, capsys, *words):
    """The lines of the error that `evaluate` ends with."""
    evaluate(tmp_path, *words, code=2)
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    return message.removeprefix("error: ").splitlines()


def scores(rows):
    """(N, S) all scores of some rows."""
    return np.array([[float(row[score] or "nan") for score in SCORES] for row in rows])


def three_classes(root, count=6):
    """Images with masks of three classes, and predictions of which the later are the worse."""
    rng = np.random.default_rng(0)
    truths, predictions = [], []
    for number in range(count):
        truth = np.kron(rng.integers(0, 3, (4, 5)), np.ones((5, 5), int))
        truth[:, -3:] = 0
        noise = rng.random(truth.shape) < 0.05 * number
        prediction = np.where(noise, rng.integers(0, 3, truth.shape), truth)
        written.save(root / "data" / "images" / f"n{number}.png", (80 * truth + 20).astype(np.uint8))
        for folder, labels in (("data/masks", truth), ("predicted", prediction)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            write_mask(root / folder / f"n{number}.png", labels)
        truths.append(truth)
        predictions.append(prediction)
    (root / "data" / "class_names.txt").write_text("background\ncell\nwall\n")
    return root / "data", root / "predicted", truths, predictions
