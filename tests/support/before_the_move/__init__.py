"""Unpacks a run folder and a model folder that commit f345b4f wrote, before the modules moved into rooms.

run.zip: twelve images of `tests.support.squares`; a run on them with the network of `tests.support.survivor`
and `--steps 4 --eval-every 2 --keep 1 --loss dice+0.5*ce --class-weights balanced --augment medium --ema 0.9
--schedule poly --fold 1/3 --patience 9`; expected.json has the steps and metrics of `--resume RUN --steps 8`,
and the results of `predict` and `evaluate` with the network of model.zip as RUN/model, by the same commit.

model.zip: `create("unetplusplus", encoder="resnet18", deep_supervision=True, ...).prune(1)` with few distinct
weights, an image, and expected.npz with the logits and probabilities that the same commit computed.
"""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def unpack_run(folder):
    """The path of the run, and what is expected of it. Its data lies beside it."""
    with zipfile.ZipFile(HERE / "run.zip") as archive:
        archive.extractall(folder)
    for name in ("config.json", "split.csv"):
        path = folder / "run" / name
        path.write_text(path.read_text().replace("/somewhere", str(folder)))
    return folder / "run", json.loads((folder / "expected.json").read_text())


def unpack_model(folder):
    """The path of the model, that of the image, and the expected logits and probabilities."""
    with zipfile.ZipFile(HERE / "model.zip") as archive:
        archive.extractall(folder)
    return folder / "model", folder / "image.png", np.load(folder / "expected.npz")


def unpack_finished_run(folder):
    """The path of the run with the network of model.zip as its model, and what is expected of it."""
    run, expected = unpack_run(folder / "finished")
    model, _, _ = unpack_model(folder / "unpacked")
    shutil.move(model, run / "model")
    return run, expected
