"""`flaxunet.predict` folds and uploads a network in memory once, and sees its changes."""

import gc
import weakref

import jax
import numpy as np
import pytest
from flax import nnx

import flaxunet
from flaxunet.models.layers import BatchNorm
from flaxunet.prediction import networks
from flaxunet.prediction.tiling import Tiling
from tests.support.networks import fill, network, random_image


def test_arrays_are_predicted_by_networks_in_memory(narrow):
    model = network("unet", encoder="shallow", in_channels=3, classes=1)
    gray, tiling = random_image(50, 90, 1), Tiling(32, 0.5, tta="flips")
    result = flaxunet.predict(model, gray, tiling=tiling)
    assert result.shape == (50, 90, 1)
    assert result.min() >= 0
    assert result.max() <= 1
    repeated = flaxunet.predict([model, model], np.repeat(gray, 3, -1), tiling=tiling)
    assert np.array_equal(result, repeated)
    with pytest.raises(ValueError, match="2 channels; expected 3 or 1"):
        flaxunet.predict(model, random_image(8, 8, 2))
    with pytest.raises(ValueError, match="pixels between 0 and 2"):
        flaxunet.predict(model, 2 * (random_image(8, 8, 3) > 0.5).astype(np.float32))
    with pytest.raises(ValueError, match="without a spec"):
        flaxunet.predict(flaxunet.fold(model), gray)
    with pytest.raises(ValueError, match="expected equal ones"):
        flaxunet.predict([model, network("unet", encoder="shallow", classes=2)], gray)


@pytest.fixture
def foldings(monkeypatch):
    """The models that `flaxunet.predict` folds from here on, and the arrays that are uploaded."""
    done = {"folded": [], "uploaded": []}
    fold, put = networks.fold, jax.device_put

    def counted(x, *where):
        done["uploaded"] += [leaf for leaf in jax.tree.leaves(x) if isinstance(leaf, jax.Array)]
        return put(x, *where)

    monkeypatch.setattr(networks, "fold", lambda model: done["folded"].append(id(model)) or fold(model))
    monkeypatch.setattr(networks.jax, "device_put", counted)
    return done


def test_predicting_in_a_loop_folds_and_uploads_each_model_once(narrow, foldings):
    first, second = (fill(network("unet", encoder="shallow"), seed) for seed in (1, 2))
    image, tiling = random_image(40, 50, 3), Tiling(64)
    expected = flaxunet.predict(first, image, tiling=tiling)
    uploaded = len(foldings["uploaded"])
    assert uploaded > 0
    for _ in range(3):
        assert np.array_equal(flaxunet.predict(first, image, tiling=tiling), expected)
    assert foldings["folded"] == [id(first)]
    assert len(foldings["uploaded"]) == uploaded
    alone = flaxunet.predict(second, image, tiling=tiling)
    together = flaxunet.predict([first, second], image, tiling=tiling)
    assert np.abs(together - (expected + alone) / 2).max() < 1e-6
    assert foldings["folded"] == [id(first), id(second)]
    assert len(foldings["uploaded"]) == 2 * uploaded


def test_a_changed_model_is_folded_again(narrow, foldings):
    model = fill(network("unet", encoder="shallow"))
    image, tiling = random_image(40, 50, 3), Tiling(64)

    def changed(change):
        before, count = flaxunet.predict(model, image, tiling=tiling), len(foldings["folded"])
        change()
        after = flaxunet.predict(model, image, tiling=tiling)
        assert len(foldings["folded"]) == count + 1
        return np.abs(after - before).max()

    def moved_statistics():
        norm = next(module for _, module in nnx.iter_modules(model) if isinstance(module, BatchNorm))
        norm.mean[...] += 1

    assert changed(lambda: model.heads[0].bias.set_value(model.heads[0].bias[...] + 1)) > 0.01
    assert changed(moved_statistics) > 0
    assert changed(lambda: setattr(model, "mean", (0.1, 0.2, 0.3))) > 0
    assert changed(lambda: nnx.update(model, nnx.state(fill(model, 5)))) > 0.01


def test_a_model_that_was_predicted_with_can_be_deleted(narrow):
    model = fill(network("unet", encoder="shallow"))
    flaxunet.predict(model, random_image(40, 50, 3), tiling=Tiling(64))
    kept, arrays = networks._FOLDED[model][2], weakref.ref(jax.tree.leaves(model)[0])
    kept, model_ref = weakref.ref(kept), weakref.ref(model)
    del model
    gc.collect()
    assert model_ref() is kept() is arrays() is None
