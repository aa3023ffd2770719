"""The files of a finished run with a small network, to be pushed."""

import json

import numpy as np
import yaml
from PIL import Image

import flaxunet
from flaxunet.weights.store import CONFIG
from tests.support.networks import network

CLASSES = ["background", "gray matter", "white | matter"]


SECRET = "/home/somebody/secret"


def tiny(classes=3, **options):
    return network("unet", "shallow", in_channels=1, classes=classes, **options)


def make_run(folder, *, test=True, pictures=("predictions.png", "validation.png")):
    """What a run leaves, without its checkpoints."""
    source = {"run": folder.name, "classes": CLASSES, "best_step": 40, "test_dice": 0.75}
    if not test:
        del source["test_dice"]
    flaxunet.save(tiny(), folder / "model", source=source)
    settings = {
        "steps": 60,
        "loss": "dice+ce",
        "class_weights": [1.0, 2.0, 0.5],
        "remat": False,
        "data": SECRET,
    }
    content = {
        "config": {**settings, "out": SECRET, "encoder_weights": SECRET, "learning_rate": 0.001},
        "model": {"class_names": CLASSES},
        "begins": {"folder": f"{SECRET}/resnet34", "sha256": "0" * 64},
        "data": {"name": "Set *one*", "train": ["patient-17"] * 5, "validation": ["b"], "test": ["c", "d"]},
    }
    (folder / "config.json").write_text(json.dumps(content))
    rows = [
        {"step": step, "val_dice": dice, "val_iou": dice / 2, "val_dice_gray_matter": dice + 0.1}
        for step, dice in ((20, 0.5), (40, 0.7), (60, 0.6))
    ]
    if test:
        each = {"test_dice_gray_matter": 0.875, "test_dice_white_|_matter": 0.625}
        rows.append({"step": 60, "best_step": 40, "test_dice": 0.75, "test_iou": None, **each})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 8')
    for name in pictures:
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / name)
    return folder


def card_of(folder):
    """The YAML and the prose."""
    _, front, prose = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), prose


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def change(repo, **values):
    content = json.loads((repo / CONFIG).read_text())
    (repo / CONFIG).write_text(json.dumps(content | values))
