"""Stored networks predict images of any size, together, at the scale that they were trained at."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import flaxunet
from flaxunet.prediction import networks
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.tiling import Tiling
from flaxunet.weights import store
from flaxunet.weights.store import StoreError
from tests.support.networks import fill, network, random_image
from train.storage.folder import model_source


def stored(folder, *, seed=0, source=None, **options):
    model = fill(network("unet", encoder="shallow", **options), seed)
    flaxunet.save(model, folder, source=source)
    return folder


def test_a_stored_network_predicts_what_it_is(narrow, tmp_path):
    folder = stored(tmp_path / "model", classes=3, source={"classes": ["background", "a", "b"]})
    predict = Predictor.load([folder], tiling=Tiling(64))
    model, image = store.load(folder), random_image(64, 32, 3)
    assert predict.classes == ("background", "a", "b")
    expected = nnx.jit(lambda model, x: jax.nn.softmax(model(model.normalize(x))))(model, image[None])[0]
    assert np.abs(predict(image) - expected).max() <= 1e-5
    assert np.abs(Predictor.load([folder], tiling=Tiling(64), fold=False)(image) - expected).max() <= 1e-5
    assert np.array_equal(predict.labels(predict(image)), expected.argmax(-1))
    half = Predictor.load([folder], tiling=Tiling(64), dtype=jnp.bfloat16)(image)
    assert 0 < np.abs(half - expected).max() < 0.1  # bfloat16 keeps 8 bits


@pytest.mark.parametrize("colors", [[[1, 2]], [[1, 2, 300]], "red", [["a", "b", "c"]]])
def test_colours_that_are_none_are_refused(narrow, tmp_path, colors):
    folder = stored(tmp_path / "model", source={"colors": colors})
    with pytest.raises(StoreError, match="expected triples of 0 to 255"):
        Predictor.load([folder])


def test_windows_are_spread_over_the_devices(narrow, tmp_path):
    """Of which the tests have eight."""
    predict = Predictor.load([stored(tmp_path / "model")], tiling=Tiling(64))
    assert predict.tiling.batch == 8 * 16
    windows = random_image(8, 64, 64, 3)
    for count in (8, 4, 2, 1):
        result = predict.windows(windows[:count])
        assert len(result.sharding.device_set) == count
        alone = np.concatenate([predict.windows(one[None]) for one in windows[:count]])
        assert np.abs(np.asarray(result) - alone).max() <= 1e-6
    assert len(predict.windows(windows[:6]).sharding.device_set) == 2


def test_members_of_an_ensemble_are_averaged_and_share_what_is_compiled(narrow, tmp_path):
    folders = [stored(tmp_path / f"run{seed}" / "model", seed=seed).parent for seed in range(3)]
    image = random_image(40, 70, 3)
    alone = [Predictor.load([folder], tiling=Tiling(64))(image) for folder in folders]
    before = networks._probabilities._cache_size()
    together = Predictor.load(folders, tiling=Tiling(64))(image)
    assert networks._probabilities._cache_size() == before  # networks that are alike are one program
    assert np.abs(together - np.mean(alone, 0)).max() < 1e-6
    assert np.abs(alone[0] - alone[1]).max() > 0.01


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"classes": 2},
            "classes background, foreground in 1 channels, and background, class 1 in 2 channels",
        ),
        ({"source": {"classes": ["background", "cell"]}}, "and background, cell in 1 channels"),
        ({"in_channels": 1}, "channels of the image 3, and 1"),
        ({"intensity": "percentile"}, "intensity dtype, and percentile"),
        ({"source": {"fit": "resize", "size": 64}}, "side of the resized image None, and 64"),
    ],
)
def test_networks_that_do_not_belong_together_are_refused(narrow, tmp_path, other, message):
    first, second = stored(tmp_path / "a"), stored(tmp_path / "b", **other)
    with pytest.raises(StoreError, match=message) as caught:
        Predictor.load([first, second])
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_a_run_on_resized_images_predicts_at_their_scale(narrow, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(
        '{"config": {"fit": "resize", "size": 48}, "model": {"class_names": ["background", "cell"]}, '
        '"data": {"axis": "sagittal", "colors": [[250, 10, 20]]}}'
    )
    source = model_source(run, {"best_step": 5, "test_dice": 0.5})
    folder = stored(run / "model", source=source)
    predict = Predictor.load([run])
    assert (predict.side, predict.axis, predict.colors) == (48, "sagittal", ((250, 10, 20),))
    image = random_image(100, 150, 3)
    result = predict(image)
    assert result.shape == (100, 150, 1)
    small = np.stack(
        [
            np.asarray(Image.fromarray(channel).resize((48, 32), Image.Resampling.BILINEAR))
            for channel in np.moveaxis(image, -1, 0)
        ],
        axis=-1,
    )
    at_scale = dataclasses.replace(predict, side=None)(small)
    expected = np.asarray(Image.fromarray(at_scale[..., 0]).resize((150, 100), Image.Resampling.BILINEAR))
    assert np.abs(result[..., 0] - expected).max() < 1e-6
    assert Predictor.load([stored(tmp_path / "cropped", source=source | {"fit": "crop"})]).side is None
    assert folder.is_dir()


@pytest.mark.parametrize("intensity", ["dtype", "percentile"])
@pytest.mark.parametrize("side", [None, 48])
def test_several_images_at_once_are_what_they_are_alone(narrow, intensity, side):
    """Also where each has intensities of its own, or is predicted at another scale."""
    model = network("unet", encoder="shallow", in_channels=3, classes=2, intensity=intensity)
    predict = Predictor((model,), ("background", "cell"), 3, intensity, side, Tiling(32, batch=4))
    images = random_image(3, 50, 40, 1) * np.array([0.2, 0.5, 1], np.float32)[:, None, None, None]
    together = predict(images)
    assert together.shape == (3, 50, 40, 2)
    assert np.abs(together - np.stack([predict(image) for image in images])).max() <= 1e-6
    assert predict.labels(together).shape == (3, 50, 40)


def test_nothing_to_load_is_said():
    with pytest.raises(StoreError, match="no network is given"):
        Predictor.load([])
