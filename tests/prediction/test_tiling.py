"""Windows put together are the image, whatever its size; their shapes are few; seams vanish."""

import itertools
from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from flaxunet.models.decoders.unet import UNetDecoder
from flaxunet.models.encoders.plain import PlainEncoder
from flaxunet.models.segmenter import Segmenter
from flaxunet.prediction import tiling
from flaxunet.prediction.tiling import Tiling
from flaxunet.prediction.tta import TURNS, turn
from tests.support.networks import fill

SIZES = [(1, 1), (1, 70), (5, 3), (37, 50), (64, 64), (65, 64), (200, 150), (40, 190)]


def random_image(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("blend", "overlap"), [("gaussian", 0.25), ("flat", 0.5), ("gaussian", 0.0)])
@pytest.mark.parametrize("tta", TURNS)
def test_what_changes_nothing_gives_the_image(size, blend, overlap, tta):
    image = random_image(*size, 2)
    for batch in (1, 4):
        result = tiling.predict(lambda x: x, image, Tiling(64, overlap, blend, batch, tta))
        assert result.shape == image.shape
        assert result.dtype == np.float32
        assert np.abs(result - image).max() < 1e-6  # the weights of a pixel sum to 1 in float32


def test_shapes_are_few_for_any_mix_of_sizes():
    shapes = []

    @jax.jit
    def function(x):
        shapes.append(x.shape)  # while it is traced: once for each that is compiled
        return x

    sizes = np.random.default_rng(0).integers(1, 400, (150, 2))
    for height, width in sizes:
        tiling.predict(function, np.zeros((height, width, 1), np.float32), Tiling(128, batch=4))
    assert len(shapes) == len(set(shapes)) <= 18
    sides = {32, 64, 96, 128}
    assert all({height, width} <= sides for _, height, width, _ in shapes)
    assert {batch for batch, *_ in shapes} == {1, 2, 4}


@pytest.mark.parametrize(
    ("size", "batches"), [((20, 30), [4, 1]), ((70, 40), [4, 4, 2]), ((130, 130), [4] * 20)]
)
def test_pictures_of_one_size_share_batches_and_keep_their_numbers(size, batches):
    pictures, sizes = random_image(5, *size, 2), []

    def function(x):
        sizes.append(len(x))
        return np.cumsum(x, 1) / x.shape[1]

    how = Tiling(64, batch=4)
    together = tiling.predict(function, pictures, how)
    assert sizes == batches
    assert np.array_equal(together, np.stack([tiling.predict(function, one, how) for one in pictures]))


def test_windows_begin_on_the_grid_and_share_what_was_asked():
    for length, overlap in itertools.product((129, 160, 333, 1000), (0, 0.25, 0.5, 0.9)):
        axis = tiling._axis(length, Tiling(128, overlap))
        starts = np.array(axis.starts)
        assert (starts % 32 == 0).all()
        assert starts[0] == 0
        assert length <= starts[-1] + 128 < length + 32
        assert (np.diff(starts) <= max(128 * (1 - overlap), 32)).all()
        total = np.zeros(starts[-1] + 128)
        for start, weights in zip(starts, axis.weights, strict=True):
            total[start : start + 128] += weights
        assert np.abs(total - 1).max() < 1e-6


@nnx.jit
def probabilities(model, x):
    return jax.nn.softmax(model(x))


def test_tiled_equals_untiled_away_from_the_padding():
    """The network's receptive field reaches 12 pixels; a quarter of this overlap is 16."""
    rngs = nnx.Rngs(0)
    encoder = PlainEncoder(3, (4, 8), rngs=rngs)
    model = fill(Segmenter(encoder, UNetDecoder((4, 8), (1, 2), rngs=rngs), 2, rngs=rngs))
    model.eval()
    image = random_image(160, 140, 3)
    expected = probabilities(model, image[None])[0]
    for blend in ("gaussian", "flat"):
        result = tiling.predict(partial(probabilities, model), image, Tiling(128, 0.5, blend))
        # To the right 140 pixels are padded to 160: mirrored here, with zeros there. All else is compared.
        assert np.abs(result[:, :128] - expected[:, :128]).max() <= 1e-5
        assert np.abs(result - expected).max() > 1e-3  # so the padding can be seen
    seams = tiling.predict(partial(probabilities, model), image, Tiling(64, 0.0))
    assert np.abs(seams[:, :128] - expected[:, :128]).max() > 1e-3  # without overlap they can be seen


def test_the_mean_over_the_symmetries_has_them():
    image = random_image(96, 64, 1)

    def function(x):  # which has none
        return np.cumsum(np.cumsum(x**2, 1), 2) / 6000

    how = Tiling(64, tta="d4")
    result = tiling.predict(function, image, how)
    assert np.abs(result - tiling.predict(function, image, Tiling(64))).max() > 0.01
    for each in TURNS["d4"]:
        turned = tiling.predict(function, turn(image[None], each)[0], how)
        assert np.abs(turned - turn(result[None], each)[0]).max() < 1e-5
    mirrored = tiling.predict(function, image[::-1], Tiling(64, tta="flips"))
    assert np.abs(mirrored - tiling.predict(function, image, Tiling(64, tta="flips"))[::-1]).max() < 1e-5


def test_bands_are_the_same_wherever_they_start_and_rows_are_read_once():
    image, asked = random_image(333, 130, 1), []

    def rows(top, bottom):
        asked.append((top, bottom))
        return image[top:bottom]

    def function(x):
        return np.cumsum(x, 1) / x.shape[1]

    how, batches = Tiling(64, 0.5, batch=4), []

    def recorded(x):
        batches.append(x.tobytes())
        return function(x)

    whole = tiling.predict(recorded, image, how)
    usual = set(batches)
    for start in (0, 1, 100, 332):
        asked.clear()
        batches.clear()
        bands = list(tiling.bands(recorded, rows, (333, 130), how, start=start))
        assert bands[0][0] == start
        assert set(batches) <= usual  # so the numbers cannot differ, whatever a device makes of a batch
        assert all(later == first + len(band) for (first, band), (later, _) in itertools.pairwise(bands))
        assert np.array_equal(np.concatenate([band for _, band in bands]), whole[start:])
        assert all(before[1] == after[0] for before, after in itertools.pairwise(asked))
        assert asked[-1][1] == 333
        assert max(bottom - top for top, bottom in asked) <= 64


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": 100}, "window is 100; expected a multiple of 32"),
        ({"window": 0}, "window is 0"),
        ({"overlap": 1.0}, "overlap is 1.0; expected 0 to 0.9"),
        ({"overlap": float("nan")}, "overlap is nan"),
        ({"batch": 3}, "batch is 3; expected 1, 2, 4"),
        ({"blend": "linear"}, "unknown blend 'linear'; expected one of gaussian, flat"),
        ({"tta": "d8"}, "unknown tta 'd8'; expected one of none, flips, d4"),
    ],
)
def test_what_cannot_be_used_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        Tiling(**wrong)
