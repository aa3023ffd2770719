"""Runs `evaluate` and reads what it wrote; data of three classes with predictions; two stored networks."""

import csv
import json

import numpy as np
import pytest

import flaxunet
from flaxunet.__main__ import main
from flaxunet.io.images import write_mask
from flaxunet.weights.store import leaves
from tests.support import written
from tests.support.networks import network, shallow


def evaluate(tmp_path, *words, code=0):
    """What scores.json and scores.csv say."""
    out = tmp_path / "evaluated"
    assert main(["evaluate", *map(str, words), "--out", str(out)]) == code
    if code:
        assert not out.exists()
        return None
    with (out / "scores.csv").open(errors="surrogateescape") as file:
        return json.loads((out / "scores.json").read_text()), list(csv.DictReader(file))


def refused(tmp_path, capsys, *words):
    """The lines of an error."""
    evaluate(tmp_path, *words, code=2)
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    return said.removeprefix("error: ").splitlines()


def classes(root, count=6):
    """Images with masks of three classes, and predictions that are a little wrong."""
    rng = np.random.default_rng(0)
    truths, found = [], []
    for number in range(count):
        truth = np.kron(rng.integers(0, 3, (4, 5)), np.ones((5, 5), int))
        truth[:, -3:] = 0
        # The later, the worse.
        wrong = np.where(rng.random(truth.shape) < 0.05 * number, rng.integers(0, 3, truth.shape), truth)
        written.save(root / "data" / "images" / f"n{number}.png", (80 * truth + 20).astype(np.uint8))
        for folder, labels in (("data/masks", truth), ("found", wrong)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            write_mask(root / folder / f"n{number}.png", labels)
        truths.append(truth)
        found.append(wrong)
    (root / "data" / "class_names.txt").write_text("background\ncell\nwall\n")
    return root / "data", root / "found", truths, found


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Two stored networks of two classes, and the names of their folders."""
    root = tmp_path_factory.mktemp("networks")
    model = network("unet", "shallow", in_channels=1)
    flaxunet.save(model, root / "one")
    bias = leaves(model)["heads.0.bias"]
    bias[...] = bias[...] - 1.5  # which finds less
    flaxunet.save(model, root / "other")
    with shallow():
        yield root / "one", root / "other"
