"""Stored networks that the tests of `evaluate` share."""

import pytest

import flaxunet
from flaxunet.weights.store import leaves
from tests.support.networks import network, shallow


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The folders of two stored networks of two classes."""
    root = tmp_path_factory.mktemp("networks")
    model = network("unet", "shallow", in_channels=1)
    flaxunet.save(model, root / "one")
    bias = leaves(model)["heads.0.bias"]
    bias[...] = bias[...] - 1.5  # which predicts less foreground
    flaxunet.save(model, root / "other")
    with shallow():
        yield root / "one", root / "other"
