"""Multi-scale structural similarity equals a pixel by pixel computation in float64."""

import numpy as np
import pytest

from flaxunet import losses
from flaxunet.labels import IGNORE
from flaxunet.losses import ssim
from tests.support.losses import random_logits, value_of


def ms_ssim_reference(x, y, counted):
    """MS-SSIM of one map pair in float64, pixel by pixel."""
    height, width = x.shape
    scales = next(m for m in (5, 4, 3, 2, 1) if m == 1 or -(-min(height, width) // 2 ** (m - 1)) >= 11)
    exponents = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales])
    exponents /= exponents.sum()
    result = 1.0
    for scale in range(scales):
        if scale:
            x, y, counted = halved(x, y, counted)
        terms = []
        for i, j in zip(*np.nonzero(counted), strict=True):
            rows, columns = np.nonzero(counted)
            near = (abs(rows - i) <= 5) & (abs(columns - j) <= 5)
            rows, columns = rows[near], columns[near]
            weight = np.exp(-((rows - i) ** 2 + (columns - j) ** 2) / (2 * 1.5**2))
            weight /= weight.sum()
            a, b = x[rows, columns], y[rows, columns]
            mean_a, mean_b = weight @ a, weight @ b
            variance_a, variance_b = weight @ (a - mean_a) ** 2, weight @ (b - mean_b) ** 2
            covariance = weight @ ((a - mean_a) * (b - mean_b))
            term = (2 * covariance + 0.03**2) / (variance_a + variance_b + 0.03**2)
            if scale == scales - 1:
                term *= (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
            terms.append(term)
        result *= max(np.mean(terms), 1e-6) ** exponents[scale]
    return result


def halved(x, y, counted):
    height, width = (-(-side // 2) for side in x.shape)
    a, b, kept = np.zeros((height, width)), np.zeros((height, width)), np.zeros((height, width), bool)
    for i in range(height):
        for j in range(width):
            block = np.s_[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            if counted[block].any():
                kept[i, j] = True
                a[i, j], b[i, j] = x[block][counted[block]].mean(), y[block][counted[block]].mean()
    return a, b, kept


@pytest.mark.parametrize("ignored", [0.0, 0.4])
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (24, 21), (42, 47)])
def test_ms_ssim_matches_float64_pixel_by_pixel(size, ignored):
    shape = (1, *size)
    smooth = np.add.outer(np.arange(size[0]), np.arange(size[1]))[None]
    labels = np.where(smooth % 17 < 8, 1, 0) if min(size) > 1 else np.ones(shape, int)
    labels = np.where(np.random.default_rng(3).random(shape) < ignored, IGNORE, labels)
    labels[0, 0, 0] = 1
    logits = random_logits(1, shape) + 2 * (labels[..., None] == 1) - 1
    counted = labels[0] != IGNORE
    probabilities = 1 / (1 + np.exp(-logits[0, ..., 0].astype(np.float64)))
    expected = ms_ssim_reference(probabilities, (labels[0] == 1).astype(np.float64), counted)
    # variances are differences of float32 squares: some 1e-8 against a constant of 9e-4
    assert 1 - value_of(losses.ms_ssim, logits.astype(np.float32), labels) == pytest.approx(
        expected, rel=1e-4
    )


def test_ms_ssim_uses_as_many_scales_as_the_window_fits():
    assert [ssim.scales(side, 500) for side in (1, 20, 21, 41, 81, 160, 161, 1000)] == [
        1,
        1,
        2,
        3,
        4,
        4,
        5,
        5,
    ]
