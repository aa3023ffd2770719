"""A folded network predicts what the network does, with fewer arrays and without batch norms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxunet
from flaxunet.models.layers import BatchNorm
from tests.support.networks import network

predict = nnx.jit(lambda model, image: model(image))


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        pytest.param("unet", {}, marks=pytest.mark.long),
        ("unet", {"encoder": "shallow"}),
        ("unetplusplus", {"encoder": "shallow", "deep_supervision": True, "upsample": "bilinear"}),
        ("unet3plus", {"encoder": "shallow", "guidance": True, "classes": 3}),
        pytest.param(
            "unetplusplus", {"deep_supervision": True, "upsample": "bilinear"}, marks=pytest.mark.long
        ),
        pytest.param(
            "unet3plus", {"encoder": "plain", "guidance": True, "classes": 3}, marks=pytest.mark.long
        ),
    ],
)
def test_folding_changes_nothing_but_the_work(arch, options):
    model = network(arch, **options)
    folded = flaxunet.fold(model)
    image = np.random.default_rng(0).normal(size=(1, 37, 50, 3)).astype(np.float32)
    expected = predict(model, image)
    assert jnp.abs(predict(folded, image) - expected).max() <= 1e-5 * jnp.abs(expected).max()
    kinds = {type(module) for _, module in nnx.iter_modules(folded)}
    assert BatchNorm not in kinds
    assert len(jax.tree.leaves(nnx.state(folded))) < len(jax.tree.leaves(nnx.state(model)))
    assert any(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(model))  # a copy was folded


def test_group_norms_stay():
    model = network("unet", norm="group")
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(predict(flaxunet.fold(model), image), predict(model, image))


def test_a_folded_network_is_not_stored(tmp_path):
    with pytest.raises(ValueError, match="was not built from a spec"):
        flaxunet.save(flaxunet.fold(network("unet")), tmp_path / "model")
