"""Intensities: exact on known numbers, finite on all, kept with the network, and refused by file."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flaxunet import preprocessing
from flaxunet.io.images import read_image
from flaxunet.models.segmenter import Segmenter
from flaxunet.models.spec import IMAGENET_MEAN, Spec
from flaxunet.weights import store
from tests.support.datasets import load_dataset, problems
from tests.support.squares import make_data
from train import setup, weights
from train.augment.geometry import Ranges, jitter_colours
from train.config import arguments, checks
from train.config.settings import Config, ConfigError, Network

RAMP = np.linspace(-3, 5, 201, dtype=np.float32).reshape(3, 67, 1) * [1, 100]


def test_dtype_gives_back_the_image_itself():
    image = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 3, 2)
    assert preprocessing.normalize_intensity(image, "dtype") is image


@pytest.mark.parametrize("change", [-1, 2])
def test_dtype_refuses_what_leaves_zero_to_one(change):
    image = np.zeros((2, 3, 1), np.float32)
    image[1, 1] = change
    with pytest.raises(ValueError, match=r"pixels between .* 0 to 1 with intensity dtype"):
        preprocessing.normalize_intensity(image, "dtype")


def test_percentiles_become_the_ends_of_each_channel():
    image = preprocessing.normalize_intensity(RAMP, "percentile")
    assert (image.dtype, image.shape) == (np.float32, RAMP.shape)
    # Of 201 equal steps, one lies below the 0.5th percentile and one above the 99.5th.
    expected = np.clip((np.arange(201) - 1) / 198, 0, 1).reshape(3, 67)
    for channel in range(2):
        np.testing.assert_allclose(image[..., channel], expected, atol=1e-5)


def test_an_almost_empty_image_is_stretched_to_its_ends():
    image = np.zeros((40, 40, 1), np.float32)
    image[3, 4], image[5, 6] = 0.25, 0.5  # 2 of 1600 pixels: both percentiles are 0
    stretched = preprocessing.normalize_intensity(image, "percentile")
    np.testing.assert_array_equal(stretched, 2 * image)


def test_z_scores_have_mean_zero_and_deviation_one_in_each_channel():
    image = preprocessing.normalize_intensity(RAMP, "zscore")
    np.testing.assert_allclose(image.mean((0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(image.std((0, 1)), 1, atol=1e-6)
    np.testing.assert_allclose(image[..., 0], image[..., 1], atol=1e-5)


@pytest.mark.parametrize("name", ["percentile", "zscore"])
@pytest.mark.parametrize("value", [0.0, 0.1, -7.3e30, 1e-45])
def test_constant_images_become_zero(name, value):
    image = preprocessing.normalize_intensity(np.full((5, 7, 2), value, np.float32), name)
    np.testing.assert_array_equal(image, np.zeros((5, 7, 2)))


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)), elements=FLOATS)
)
def test_any_numbers_become_finite_ones(image):
    for name in ("percentile", "zscore"):
        out = preprocessing.normalize_intensity(image, name)
        assert np.isfinite(out).all()
        assert out.shape == image.shape
        # No z-score of n numbers is beyond the square root of n - 1.
        assert np.abs(out).max() <= (1 if name == "percentile" else np.sqrt(image[..., 0].size))


@pytest.mark.parametrize("name", ["percentile", "zscore"])
def test_intensities_of_parts_are_those_of_the_whole(name):
    rng = np.random.default_rng(0)
    for image in (
        rng.normal(3, 100, (301, 203, 2)),
        rng.integers(0, 4095, (301, 203, 3)) / 65535,
        np.full((20, 30, 1), 5.0),
        np.concatenate([np.zeros((400, 300, 1)), np.ones((1, 300, 1))]),  # both percentiles are 0
        -(rng.random((1, 1, 1))),
    ):
        image = image.astype(np.float32)
        parts = [image[top : top + 37] for top in range(0, len(image), 37)]
        scaled = preprocessing.normalizer_of_parts(lambda parts=parts: parts, name)
        assert np.abs(scaled(image) - preprocessing.normalize_intensity(image, name)).max() <= 1e-6


@pytest.mark.parametrize("name", ["dtype", "percentile", "zscore"])
def test_nan_is_refused(name):
    with pytest.raises(ValueError, match="NaN or infinite"):
        preprocessing.normalize_intensity(np.array([[[0.5], [np.nan]]], np.float32), name)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"'minmax'.*dtype, percentile, zscore"):
        preprocessing.normalize_intensity(np.zeros((1, 1, 1), np.float32), "minmax")
    with pytest.raises(ValueError, match=r"'minmax'.*dtype, percentile, zscore"):
        Spec("unet", "plain", intensity="minmax")
    with pytest.raises(ConfigError, match=r"'minmax'.*dtype, percentile, zscore"):
        checks.check(Config.from_flat(intensity="minmax"))


def test_the_earlier_name_type_still_reads(tmp_path):
    image = np.ones((1, 1, 1), np.float32)
    assert preprocessing.normalize_intensity(image, "type") is image
    assert Spec("unet", "plain", intensity="type") == Spec("unet", "plain", intensity="dtype")
    config = kept(tmp_path / "network", "dtype") / store.CONFIG
    config.write_text(config.read_text().replace('"dtype"', '"type"'))
    assert '"intensity": "type"' in config.read_text()
    assert store.read(tmp_path / "network").spec.intensity == "dtype"
    assert arguments.parse(["--intensity", "type"]) == Config()
    (tmp_path / "config.json").write_text(json.dumps({"config": {"intensity": "type"}}))
    assert checks.read(tmp_path) == Config()


def test_z_scores_are_not_normalised_again():
    spec = Spec("unet", "plain", intensity="zscore")
    assert (spec.mean, spec.std) == ((0.0,) * 3, (1.0,) * 3)
    assert Spec("unet", "plain", intensity="percentile").mean == IMAGENET_MEAN
    model = Segmenter.normalize
    given = type("Normalised", (), {"mean": spec.mean, "std": spec.std})()
    scores = np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(given, scores), scores)


class Scale(nnx.Module):
    """The smallest thing that can be stored."""

    def __init__(self):
        self.scale = nnx.Param(np.ones(3, np.float32))


def kept(folder, intensity, **options):
    store.save(Scale(), folder, spec=Spec("unet", "resnet18", intensity=intensity, **options))
    return folder


def test_a_stored_network_keeps_its_intensity(tmp_path):
    kept(tmp_path / "a", "zscore")
    assert store.read(tmp_path / "a").spec.intensity == "zscore"
    # A folder of an earlier version says nothing of intensities.
    content = json.loads((tmp_path / "a" / store.CONFIG).read_text())
    del content["model"]["intensity"]
    (tmp_path / "a" / store.CONFIG).write_text(json.dumps(content))
    assert store.read(tmp_path / "a").spec.intensity == "dtype"


def test_a_normalisation_is_taken_over_among_images_of_one_unit(tmp_path):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    stretched = store.read(kept(tmp_path / "a", "percentile", mean=mean, std=std))
    assert stretched.normalisation(3, "dtype") == (mean, std)
    assert stretched.normalisation(3, "zscore") == ((), ())
    scores = store.read(kept(tmp_path / "b", "zscore"))
    assert scores.normalisation(1, "zscore") == ((0.0,), (1.0,))
    assert scores.normalisation(3, "dtype") == ((), ())


def test_a_whole_network_is_trained_on_with_its_own_intensity(tmp_path):
    folder = str(kept(tmp_path / "a", "zscore"))
    with pytest.raises(ConfigError, match=f"--intensity is dtype.*zscore.*{folder}"):
        weights.find_stored(Network(weights=folder), "dtype")
    assert weights.find_stored(Network(weights=folder), "zscore") is not None
    assert weights.find_stored(Network(encoder_weights=folder), "dtype") is not None


def test_a_run_passes_its_intensity_to_the_network(tmp_path):
    data = load_dataset(make_data(tmp_path), intensity="zscore")
    spec = setup.make_spec(Config.from_flat(intensity="zscore"), data.channels, data.classes)
    assert (spec.intensity, spec.mean, spec.std) == ("zscore", (0.0,), (1.0,))


def with_float_images(root):
    """The squares, with images of a CT's numbers."""
    for path in (make_data(root) / "images").glob("*.png"):
        units = 3000 * read_image(path) - 1000
        tifffile.imwrite(path.with_suffix(".tif"), units[..., 0])
        path.unlink()
    return root


def test_floats_of_any_range_are_refused_by_file_unless_an_intensity_takes_them(tmp_path):
    lines = problems(with_float_images(tmp_path))
    assert len(lines) == 12
    assert all(".tif: pixels between -" in line and "percentile and zscore" in line for line in lines)
    for sample in load_dataset(tmp_path, intensity="percentile").train:
        assert (sample["image"].min(), sample["image"].max()) == (0, 1)
    scores = load_dataset(tmp_path, intensity="zscore").train
    np.testing.assert_allclose([sample["image"].mean() for sample in scores], 0, atol=1e-6)


def test_resizing_does_not_clip_z_scores(tmp_path):
    image = load_dataset(make_data(tmp_path, side=8), intensity="zscore", fit="resize", size=40).train[0][
        "image"
    ]
    assert image.min() < -0.5
    assert image.max() > 1


def test_gamma_leaves_z_scores_finite_and_in_their_order():
    scores = np.linspace(-4, 4, 33, dtype=np.float32).reshape(1, 33, 1)
    out = np.asarray(jitter_colours(jax.random.key(1), jnp.asarray(scores), jnp.zeros(()), Ranges(gamma=2.0)))
    assert np.isfinite(out).all()
    assert (np.diff(out[0, :, 0]) > 0).all()
