"""Stored networks predict images of any size, together, at the scale that they were trained at."""

import dataclasses
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import flaxunet
from flaxunet.models.layers import BatchNorm
from flaxunet.prediction import networks
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.tiling import Tiling
from flaxunet.weights import store
from flaxunet.weights.store import StoreError
from tests.support.networks import fill, network, shallow
from train.storage.folder import model_source


def random_image(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.fixture(scope="module")
def narrow():
    """Networks are stored and loaded with three narrow levels."""
    with shallow():
        yield


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
        found = predict.windows(windows[:count])
        assert len(found.sharding.device_set) == count
        alone = np.concatenate([predict.windows(one[None]) for one in windows[:count]])
        assert np.abs(np.asarray(found) - alone).max() <= 1e-6
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
    ("other", "told"),
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
def test_networks_that_do_not_belong_together_are_refused(narrow, tmp_path, other, told):
    first, second = stored(tmp_path / "a"), stored(tmp_path / "b", **other)
    with pytest.raises(StoreError, match=told) as caught:
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
    found = predict(image)
    assert found.shape == (100, 150, 1)
    small = np.stack(
        [
            np.asarray(Image.fromarray(channel).resize((48, 32), Image.Resampling.BILINEAR))
            for channel in np.moveaxis(image, -1, 0)
        ],
        axis=-1,
    )
    at_scale = dataclasses.replace(predict, side=None)(small)
    expected = np.asarray(Image.fromarray(at_scale[..., 0]).resize((150, 100), Image.Resampling.BILINEAR))
    assert np.abs(found[..., 0] - expected).max() < 1e-6
    assert Predictor.load([stored(tmp_path / "cropped", source=source | {"fit": "crop"})]).side is None
    assert folder.is_dir()


def test_arrays_are_predicted_by_networks_in_memory(narrow):
    model = network("unet", encoder="shallow", in_channels=3, classes=1)
    gray, tiling = random_image(50, 90, 1), Tiling(32, 0.5, tta="flips")
    found = flaxunet.predict(model, gray, tiling=tiling)
    assert found.shape == (50, 90, 1)
    assert found.min() >= 0
    assert found.max() <= 1
    repeated = flaxunet.predict([model, model], np.repeat(gray, 3, -1), tiling=tiling)
    assert np.array_equal(found, repeated)
    with pytest.raises(ValueError, match="2 channels; expected 3 or 1"):
        flaxunet.predict(model, random_image(8, 8, 2))
    with pytest.raises(ValueError, match="pixels between 0 and 2"):
        flaxunet.predict(model, 2 * (random_image(8, 8, 3) > 0.5).astype(np.float32))
    with pytest.raises(ValueError, match="without a spec"):
        flaxunet.predict(flaxunet.fold(model), gray)
    with pytest.raises(ValueError, match="expected equal ones"):
        flaxunet.predict([model, network("unet", encoder="shallow", classes=2)], gray)


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
