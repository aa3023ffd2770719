"""A model folder written before the modules moved still loads and predicts the same numbers."""

import jax.numpy as jnp
import numpy as np

import flaxunet
from flaxunet import preprocessing
from flaxunet.io.images import read_image
from flaxunet.weights import store
from tests.support.before_the_move import unpack_model


def test_it_loads_and_gives_the_same_logits_and_probabilities(tmp_path):
    folder, image, expected = unpack_model(tmp_path)
    model = flaxunet.load(folder)
    pixels = read_image(image)
    logits = np.asarray(model(model.normalize(jnp.asarray(pixels)[None])))[0]
    peak = np.abs(expected["logits"]).max()
    # Another processor sums in another order.
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-5 * peak)
    np.testing.assert_allclose(flaxunet.predict(model, pixels), expected["probabilities"], rtol=0, atol=1e-4)


def test_what_config_json_says_of_the_network_is_kept(tmp_path):
    folder, _, _ = unpack_model(tmp_path)
    stored = store.read(folder)
    assert (stored.spec.arch, stored.spec.encoder, stored.spec.pruned) == ("unetplusplus", "resnet18", 1)
    assert (stored.spec.mean, stored.spec.std, stored.spec.upsample) == ((0.4,), (0.25,), "bilinear")
    assert stored.content["source"]["classes"] == ["background", "cell"]
    image = np.full((4, 5, 1), 0.2, np.float32)
    np.testing.assert_array_equal(
        preprocessing.normalize_intensity(image, stored.spec.intensity), image
    )  # "type" of then
