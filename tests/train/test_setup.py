"""What `train.setup` makes of settings and data."""

from types import SimpleNamespace

import numpy as np
import pytest

from train import setup
from train.config.settings import Config


def test_balanced_weights_give_every_class_the_same_part():
    label = np.array([[0, 0, 0, 0, 0, 0, 1, 1, 3, -1]])
    dataset = SimpleNamespace(
        train=[{"label": label}, {"label": label}], class_names=("a", "b", "c", "d"), classes=4, channels=1
    )
    config = Config.from_flat(arch="unet", class_weights="balanced")
    weights = setup.make_program(
        config, dataset, setup.make_spec(config, dataset.channels, dataset.classes)
    ).class_weights
    np.testing.assert_allclose(weights, [9 / 18, 9 / 6, 0, 9 / 3])
    counts = np.array([6, 2, 0, 1])
    assert np.dot(weights, counts) == pytest.approx(counts.sum())
