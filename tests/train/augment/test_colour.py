"""Colours change as their sources say: dyes by their own absorption, hues about gray, blur as a Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from train.augment.colour import (
    DARKEST,
    STAINS,
    YIQ,
    blur,
    jitter_colours,
    jitter_hue_and_saturation,
    jitter_stains,
    white_noise,
)
from train.augment.ranges import Ranges

KEYS = jax.random.split(jax.random.key(0), 512)
RESTAIN = jax.jit(jax.vmap(jitter_stains, in_axes=(0, None, None)), static_argnums=2)


def stained(amounts):
    """What light is left behind these amounts (H, W, 3) of hematoxylin, eosin and DAB."""
    return np.exp(-np.asarray(amounts) @ STAINS).astype(np.float32)


def test_the_published_stains_are_unit_vectors():
    # Ruifrok and Johnston give normalised densities; a wrong digit would show.
    np.testing.assert_allclose(np.linalg.norm(STAINS, axis=1), 1, atol=2e-3)


def test_each_dye_is_scaled_and_shifted_by_itself():
    amounts = np.random.default_rng(0).uniform(0.2, 1.0, (4, 4, 3))
    image = stained(amounts)
    for changed in np.asarray(RESTAIN(KEYS, image, 0.2))[:8]:
        found = -np.log(changed.astype(np.float64)) @ np.linalg.inv(STAINS)
        for dye in range(3):
            slope, offset = np.polyfit(amounts[..., dye].ravel(), found[..., dye].ravel(), 1)
            assert 0.8 - 1e-3 < slope < 1.2 + 1e-3
            assert abs(offset) < 0.2 + 1e-3
            np.testing.assert_allclose(found[..., dye], slope * amounts[..., dye] + offset, atol=2e-4)


def test_stain_jitter_is_centred_and_reaches_its_range():
    changed = np.asarray(RESTAIN(KEYS, stained(np.full((4, 4, 3), 0.5)), 0.2))
    found = (-np.log(changed[:, 0, 0].astype(np.float64)) @ np.linalg.inv(STAINS)) - 0.5
    # 0.5 f + o with f and o uniform in [-0.2, 0.2]: at most 0.3, deviation 0.13 and so 0.006 for the mean.
    assert np.abs(found.mean(axis=0)).max() < 0.02
    assert (np.abs(found).max(axis=0) > 0.25).all()
    assert np.abs(found).max() < 0.3 + 1e-3


def test_black_and_white_stay_finite_under_stain_jitter():
    image = np.stack([np.zeros((4, 3), np.float32), np.ones((4, 3), np.float32)] * 2)
    changed = np.asarray(RESTAIN(KEYS, image, 0.2))
    assert np.isfinite(changed).all()
    assert 0 <= changed.min() <= changed.max() <= 1
    assert changed[:, ::2].max() < DARKEST**0.5


def test_hue_and_saturation_keep_luma_and_gray():
    ranges = Ranges(hue=30, saturation=1.5)
    image = np.random.default_rng(1).uniform(0.3, 0.7, (6, 6, 3)).astype(np.float32)
    image[0] = 0.4  # gray
    for changed in np.asarray(
        jax.jit(jax.vmap(lambda key: jitter_hue_and_saturation(key, image, ranges)))(KEYS[:8])
    ):
        np.testing.assert_allclose(changed @ YIQ[0], image @ YIQ[0], atol=1e-5)
        np.testing.assert_allclose(changed[0], 0.4, atol=1e-5)
        there, here = (np.moveaxis(array @ YIQ.T, -1, 0)[1:] for array in (image, changed))
        before, after = (colour[0] + 1j * colour[1] for colour in (there[:, 1:], here[:, 1:]))
        ratio = after / before
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-2)  # one turn and one factor for all pixels
        assert 1 / 1.5 - 1e-3 < abs(ratio.mean()) < 1.5 + 1e-3
        assert abs(np.degrees(np.angle(ratio.mean()))) < 30 + 0.1


@pytest.mark.parametrize("channels", [1, 4])
def test_other_than_three_channels_have_no_colours(channels):
    image = jnp.full((4, 4, channels), 0.3)
    changed = jax.jit(jitter_colours, static_argnums=3)(
        KEYS[0], image, 0.3, Ranges(hue=90, saturation=2, stain=0.4)
    )
    np.testing.assert_allclose(changed, image, atol=1e-6)


def test_blur_is_a_gaussian_of_each_image_by_itself():
    images = np.random.default_rng(2).random((3, 20, 31, 2), dtype=np.float32)
    widest = 1.5
    blurred = np.asarray(jax.jit(blur, static_argnums=2)(KEYS[3], images, widest))
    found, reach = [], int(np.ceil(2.5 * widest))
    for image, result in zip(images, blurred, strict=True):
        fits = {
            deviation: np.abs(
                ndimage.gaussian_filter(
                    image, (deviation, deviation, 0), radius=(reach, reach, 0), mode="nearest"
                )
                - result
            ).max()
            for deviation in np.linspace(0.01, widest, 300)
        }
        found.append(min(fits, key=fits.get))
        assert fits[found[-1]] < 5e-3  # as near as the steps of 0.005 come
    assert len(set(found)) == 3


def test_gamma_mirrors_what_lies_below_zero():
    image = jnp.asarray(np.linspace(-2, 2, 16, dtype=np.float32).reshape(4, 4, 1))
    changed = np.asarray(jax.jit(jitter_colours, static_argnums=3)(KEYS[4], image, 0.0, Ranges(gamma=1.5)))
    assert np.isfinite(changed).all()
    np.testing.assert_allclose(changed, -changed[::-1, ::-1], atol=1e-6)
    assert (np.diff(changed.ravel()) > 0).all()


def test_noise_is_white_and_nearly_normal():
    noise = np.asarray(jax.jit(jax.vmap(lambda key: white_noise(key, (48, 32, 3))))(KEYS[:64]))
    flat = noise.reshape(64, -1)
    assert abs(flat.mean()) < 0.01  # 295,000 numbers tell it to 0.002
    assert abs(flat.std() - 1) < 0.01
    assert np.abs(flat).max() <= 3.5
    assert abs(stats.kurtosis(flat.ravel())) < 0.4  # -0.3 for a sum of four
    for shifted in (noise[:, 1:], noise[:, :, 1:], noise[..., 1:], noise[1:]):
        other = noise[tuple(slice(size) for size in shifted.shape)]
        assert (
            abs((shifted * other).mean()) < 0.01
        )  # neighbours, channels and images know nothing of each other
    assert len({one.tobytes() for one in flat}) == 64
