"""Augmentation: image and label move as one, each image by its own draw, padding says that it is padding."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flaxunet.labels import IGNORE
from train.augment import geometry as module
from train.augment.colour import jitter_colours
from train.augment.geometry import augment, cut_out, move, warp
from train.augment.ranges import RANGES, Ranges

EXTREMES = ("light", "strong")  # medium runs the code of strong; each costs seconds of compilation
KEY = jax.random.key(0)
JITTED = jax.jit(augment, static_argnames="strength")


def batch(shape=(8, 24, 20, 3), classes=3, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.random(shape, dtype=np.float32)
    return jnp.asarray(image), jnp.asarray(rng.integers(0, classes, shape[:3], dtype=np.int32))


def numbered(height, width):
    """An image and a label whose pixels all differ, and agree with each other."""
    label = np.arange(height * width, dtype=np.int32).reshape(height, width)
    return label[..., None].astype(np.float32), label


def moved(image, label, ranges, draws):
    keys = jax.random.split(KEY, draws)
    result = jax.jit(jax.vmap(lambda key: move(key, jnp.asarray(image), jnp.asarray(label), ranges)))(keys)
    return [np.asarray(array) for array in result]


def symmetries(array, quarter_turns):
    turns = range(4) if quarter_turns else (0, 2)
    return [np.rot90(a, k) for a in (array, array[:, ::-1]) for k in turns]


@pytest.mark.parametrize(
    ("height", "width", "ranges"),
    [
        (8, 8, Ranges(quarter_turns=True)),
        (7, 7, Ranges(quarter_turns=True)),
        (7, 7, Ranges()),
        (6, 9, Ranges(quarter_turns=True)),
        (1, 5, Ranges()),
    ],
)
def test_mirrors_and_turns_permute_pixels_exactly(height, width, ranges):
    image, label = numbered(height, width)
    expected = symmetries(label, quarter_turns=ranges.quarter_turns and height == width)
    images, labels = moved(image, label, ranges, draws=64)
    np.testing.assert_array_equal(images[..., 0], labels)
    distinct = {tuple(symmetry.ravel()) for symmetry in expected}
    assert {tuple(result.ravel()) for result in labels} == distinct


@pytest.mark.parametrize("shape", [(24, 24), (20, 29)])
def test_image_and_label_move_together(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    label = ((y - 8) ** 2 + (x - 12) ** 2 < 36).astype(np.int32)
    images, labels = moved(label[..., None].astype(np.float32), label, RANGES["strong"], draws=32)
    pure = np.minimum(images, 1 - images)[..., 0] < 1e-4  # all four neighbours were of one class
    known = labels != IGNORE - 1
    np.testing.assert_array_equal(labels[pure & known], images[..., 0][pure & known].round())
    assert (pure & known).mean() > 0.5
    assert 0.02 < (labels == 1).mean() < 0.5


def test_warp_is_a_similarity_within_its_ranges():
    ranges, size = dataclasses.replace(RANGES["medium"], elastic=0), 33
    position = np.stack(np.mgrid[:size, :size], axis=-1).astype(np.float32)  # bilinear reads it exactly
    images, _ = moved(position, np.zeros((size, size), np.int32), ranges, draws=64)
    centre = size // 2
    read = images[:, centre, centre] - centre
    rows = images[:, centre + 4, centre] - images[:, centre - 4, centre]
    columns = images[:, centre, centre + 4] - images[:, centre, centre - 4]
    lengths = np.linalg.norm(np.stack([rows, columns]), axis=-1) / 8
    np.testing.assert_allclose(lengths[0], lengths[1], atol=1e-5)
    np.testing.assert_allclose((rows * columns).sum(1), 0, atol=1e-3)
    assert 1 / ranges.scale - 1e-5 <= lengths.min() < 0.95
    assert 1.05 < lengths.max() <= ranges.scale + 1e-5
    angles = np.abs(np.degrees(np.arctan2(rows[:, 1], np.abs(rows[:, 0]))))
    assert 10 < angles.max() <= ranges.degrees + 1e-3
    reach = ranges.shift * size * ranges.scale * np.sqrt(2)
    assert 0.5 < np.abs(read).max() <= reach


def test_outside_is_black_and_ignored():
    image, label = jnp.full((8, 24, 24, 2), 0.7), jnp.ones((8, 24, 24), jnp.int32)
    image, label = (np.asarray(a) for a in JITTED(KEY, image, label, "strong"))
    outside = label == IGNORE
    assert 0.01 < outside.mean() < 0.6
    assert np.all(image[outside] == 0)
    assert np.all(label[~outside] == 1)
    assert (image[~outside] > 0.2).mean() > 0.99


@pytest.mark.parametrize("strength", ["none", *EXTREMES])
def test_padding_stays_black_and_unlabelled_tissue_stays_visible(strength):
    image = np.full((8, 24, 24, 1), 0.5, np.float32)
    label = np.zeros((8, 24, 24), np.int32)
    image[:, :, 16:], label[:, :, 16:] = 0, IGNORE  # padding
    label[:, 6:18, 2:10] = IGNORE  # content that nobody labelled
    image, label = (np.asarray(a) for a in JITTED(KEY, jnp.asarray(image), jnp.asarray(label), strength))
    ignored = image[label == IGNORE]
    assert (ignored == 0).any()
    assert (ignored > 0.2).mean() > 0.05
    assert image[label == IGNORE - 1].size == 0


def test_elastic_warps_are_smooth_bounded_and_never_fold():
    limit, zoom, shape = 0.08, 1.5, (40, 64)
    fields = np.asarray(jax.jit(jax.vmap(lambda key: warp(key, *shape)))(jax.random.split(KEY, 256)))
    assert 0.5 < np.abs(fields).max() <= 1
    assert np.abs(fields.mean(axis=0)).max() < 0.15  # no direction is preferred
    y, x = (limit * side * fields[:, axis] for axis, side in enumerate(shape))
    rows, columns = np.gradient(y, axis=(1, 2)), np.gradient(x, axis=(1, 2))
    determinant = (1 / zoom + rows[0]) * (1 / zoom + columns[1]) - rows[1] * columns[0]
    assert determinant.min() > 0
    assert max(r.elastic for r in RANGES.values() if r) < limit


def test_a_warp_without_displacement_leaves_every_pixel(monkeypatch):
    image, label = numbered(9, 12)
    monkeypatch.setattr(module, "warp", lambda key, H, W: jnp.zeros((2, H, W)))
    images, labels = moved(image, label, Ranges(elastic=0.1), draws=8)
    np.testing.assert_array_equal(images[..., 0], labels)
    assert {tuple(result.ravel()) for result in labels} == {
        tuple(s.ravel()) for s in symmetries(label, False)
    }


def test_an_elastic_warp_moves_image_and_label_by_one_grid():
    size = 48
    # Wide stripes, so that most pixels have four neighbours of their own class.
    label = np.broadcast_to(np.arange(size, dtype=np.int32)[:, None] // 12 % 2, (size, size))
    images, labels = moved(label[..., None].astype(np.float32), label, Ranges(elastic=0.06), draws=16)
    pure = (np.minimum(images, 1 - images)[..., 0] < 1e-4) & (labels != module.PADDING)
    np.testing.assert_array_equal(labels[pure], images[..., 0][pure].round())
    assert pure.mean() > 0.6
    straight = np.ptp(np.where(labels == module.PADDING, 0, labels), axis=2).max(axis=1) == 0
    assert not straight.any()  # every draw bends the stripes


def test_what_is_cut_out_is_one_rectangle_of_padding():
    label = jnp.ones((30, 40), jnp.int32)
    cut = jax.jit(jax.vmap(lambda key: cut_out(key, label, 0.5)))(jax.random.split(KEY, 200))
    holes = np.asarray(cut) == module.PADDING
    assert (np.asarray(cut)[~holes] == 1).all()
    heights, widths = holes.any(axis=2).sum(axis=1), holes.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(holes.sum((1, 2)), heights * widths)
    assert 12 <= heights.max() <= 15
    assert 16 <= widths.max() <= 20
    assert holes.any(axis=0).mean() > 0.95  # anywhere, corners included


def test_none_changes_nothing():
    image, label = batch()
    same = JITTED(KEY, image, label, "none")
    np.testing.assert_array_equal(same[0], image)
    np.testing.assert_array_equal(same[1], label)


@pytest.mark.parametrize("strength", ["light", pytest.param("strong", marks=pytest.mark.long)])
def test_an_image_is_changed_by_key_and_place_alone(strength):
    image, label = batch()
    whole = JITTED(KEY, image, label, strength)
    part = JITTED(KEY, image[:3], label[:3], strength)
    again = JITTED(KEY, image, label, strength)
    other = JITTED(jax.random.key(1), image, label, strength)
    # Another size is another program, which rounds positions on the warped grid by a unit in the last place.
    np.testing.assert_allclose(part[0], whole[0][:3], atol=1e-5)
    np.testing.assert_array_equal(part[1], whole[1][:3])
    np.testing.assert_array_equal(again[0], whole[0])
    assert not np.array_equal(other[0], whole[0])
    twins = JITTED(KEY, jnp.stack([image[0]] * 8), jnp.stack([label[0]] * 8), strength)[0]
    assert len({np.asarray(twin).tobytes() for twin in twins}) == 8


@pytest.mark.parametrize("strength", EXTREMES)
def test_sharding_the_batch_changes_nothing_and_costs_no_communication(strength):
    image, label = batch()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    step = jax.jit(partial(augment, strength=strength), out_shardings=split)
    shards = jax.device_put((image, label), split)
    compiled = step.lower(KEY, *shards).compile()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in compiled.as_text()
    result, expected = step(KEY, *shards), JITTED(KEY, image, label, strength)
    np.testing.assert_allclose(result[0], expected[0], atol=1e-5)
    np.testing.assert_array_equal(result[1], expected[1])


@pytest.mark.long
def test_jit_changes_nothing():
    image, label = batch((2, 12, 12, 1))
    eager, jitted = augment(KEY, image, label, "light"), JITTED(KEY, image, label, "light")
    np.testing.assert_allclose(eager[0], jitted[0], atol=1e-5)
    np.testing.assert_array_equal(eager[1], jitted[1])


def test_intensities_do_not_touch_labels(monkeypatch):
    image, label = batch()
    monkeypatch.setitem(
        module.RANGES,
        "bright",
        Ranges(degrees=20, hue=90, saturation=2, brightness=0.5, gamma=2, contrast=2, blur=1, noise=1),
    )
    monkeypatch.setitem(module.RANGES, "plain", Ranges(degrees=20))
    bright, plain = (JITTED(KEY, image, label, strength) for strength in ("bright", "plain"))
    np.testing.assert_array_equal(bright[1], plain[1])
    assert not np.allclose(bright[0], plain[0], atol=0.1)


@pytest.mark.parametrize("strength", EXTREMES)
@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (2, 1, 7, 3)])
def test_images_stay_finite_and_near_their_range(strength, shape):
    for fill in (0.0, 0.5, 1.0):
        image, label = JITTED(KEY, jnp.full(shape, fill), jnp.ones(shape[:3], jnp.int32), strength)
        assert image.dtype == jnp.float32
        assert label.dtype == jnp.int32
        assert np.isfinite(image).all()
        assert -2 < image.min() <= image.max() < 3  # contrast, brightness and five deviations of noise
        assert set(np.unique(label)) <= {IGNORE, 1}


def test_noise_has_the_documented_scale():
    ranges = Ranges(noise=0.1)
    gray = jnp.full((32, 32, 1), 0.5)
    noise = jax.jit(jax.vmap(lambda key: jitter_colours(key, gray, jnp.float32(0.5), ranges)))
    noisy = noise(jax.random.split(KEY, 256))
    deviations = np.asarray(noisy).reshape(256, -1).std(axis=1)
    # 1024 pixels tell a deviation to 2 %; 256 uniform draws in [0, 1] have a mean within 0.05 of 1/2.
    assert deviations.max() < ranges.noise * 1.1
    assert abs(deviations.mean() / ranges.noise - 0.5) < 0.06
    np.testing.assert_allclose(np.asarray(noisy).mean(), 0.5, atol=1e-3)


def test_brightness_contrast_and_gamma_do_what_they_say():
    ramp = jnp.linspace(0.3, 0.7, 16).reshape(4, 4, 1)
    keys = jax.random.split(KEY, 64)

    def relit(ranges):
        return np.asarray(jax.vmap(lambda key: jitter_colours(key, ramp, jnp.mean(ramp), ranges))(keys))

    bright = relit(Ranges(brightness=0.2)) - np.asarray(ramp)
    assert np.ptp(bright, axis=(1, 2)).max() < 1e-6
    assert 0.15 < np.abs(bright).max() <= 0.2 + 1e-6
    contrast = relit(Ranges(contrast=1.5))
    np.testing.assert_allclose(contrast.mean((1, 2)), 0.5, atol=1e-6)
    spread = (contrast.max((1, 2)) - contrast.min((1, 2))) / 0.4
    assert 1 / 1.5 - 1e-5 <= spread.min() < 0.75
    assert 1.4 < spread.max() <= 1.5 + 1e-5
    exponents = np.log(relit(Ranges(gamma=1.5))) / np.log(np.asarray(ramp))
    assert np.ptp(exponents, axis=(1, 2)).max() < 1e-4
    assert 1 / 1.5 - 1e-4 <= exponents.min() < 0.75
    assert 1.4 < exponents.max() <= 1.5 + 1e-4


def test_refuses_what_does_not_fit():
    image, label = batch()
    with pytest.raises(ValueError, match=r"'heavy'.*none, light, medium, strong"):
        augment(KEY, image, label, "heavy")
    with pytest.raises(ValueError, match=r"\(8, 24, 20, 3\).*\(8, 24, 10\)"):
        augment(KEY, image, label[:, :, :10], "light")
    with pytest.raises(ValueError, match="B, H, W, C"):
        augment(KEY, image[0], label[0], "light")
