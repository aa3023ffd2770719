"""Computes means of scores with bootstrap intervals, and compares two networks by a signed-rank test.

Images of one group, such as a patient, resemble each other, so groups are resampled whole. Means are over
images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flaxunet.metrics.overlap import quotient

RESAMPLES, CONFIDENCE = 2000, 0.95
CHUNK = 1_000_000  # random numbers drawn at once


class Mean(NamedTuple):
    """A mean over images, the ends of its interval, and the number of scored images; NaN without any."""

    mean: float
    low: float
    high: float
    images: int


class Difference(NamedTuple):
    """A mean of differences, the ends of its interval, the numbers of images and groups, and the test's p."""

    mean: float
    low: float
    high: float
    images: int
    groups: int
    p: float


def means(
    values: np.ndarray, groups: Sequence[str] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Mean]:
    """Compute means with bootstrap intervals, percentiles 2.5 and 97.5 over resampled groups.

    Args:
      values: (N, M) scores of N images; NaN is left out.
      groups: (N,) the group of each image, such as its patient; each image is its own if left out.
      resamples: the number of resamples with replacement, the same for all scores.
      seed: of the resamples.
    Returns: M means; the interval is NaN where fewer than two groups were scored.
    Source: Efron and Tibshirani 1993, An introduction to the bootstrap.
    """
    sums, counts = _by_group(values, groups)
    rng, size, drawn = np.random.default_rng(seed), max(len(sums), 1), []
    chunk = max(CHUNK // size, 1)
    for first in range(0, resamples if len(sums) else 0, chunk):
        rows = min(resamples - first, chunk)
        multiplicity = rng.multinomial(size, np.full(size, 1 / size), size=rows)
        drawn.append(quotient(multiplicity @ sums, multiplicity @ counts))
    tail, result = (1 - CONFIDENCE) / 2, []
    for column, mean in enumerate(quotient(sums.sum(0), counts.sum(0)).tolist()):
        low = high = float("nan")
        if (counts[:, column] > 0).sum() > 1:
            resampled = np.concatenate([part[:, column] for part in drawn])
            low, high = np.nanquantile(resampled, (tail, 1 - tail)).tolist()
        result.append(Mean(mean, low, high, int(counts[:, column].sum())))
    return result


def differences(
    values: np.ndarray,
    others: np.ndarray,
    groups: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Difference]:
    """Compare two networks on the same images.

    Args:
      values: (N, M) scores of one network.
      others: (N, M) scores of the other; where either is NaN, the image is left out.
      groups, resamples, seed: as in `means`.
    Returns: for each score the mean of `values - others`, and p of Wilcoxon's signed-rank test, two-sided, on
      the groups' means. p is 1 where all are equal, and NaN without any; it is not corrected for the number
      of scores.
    Source: Wilcoxon 1945, Individual comparisons by ranking methods, Biometrics Bulletin 1.
    """
    # Without rounding, scores that are equal but for their last bits would have a rank and a sign.
    paired = np.round(np.asarray(values, np.float64) - others, 12)
    sums, counts = _by_group(paired, groups)
    result = []
    for column, mean in enumerate(means(paired, groups, resamples=resamples, seed=seed)):
        scored = counts[:, column] > 0
        group_means = np.round(sums[scored, column] / counts[scored, column], 12)
        result.append(Difference(*mean, int(scored.sum()), _signed_rank(group_means)))
    return result


def _signed_rank(differences: np.ndarray) -> float:
    from scipy import stats

    if not differences.any():
        return 1.0 if differences.size else float("nan")
    return float(np.asarray(stats.wilcoxon(differences[differences != 0]))[1])


def _by_group(values: np.ndarray, groups: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """(G, M) sums of each group's scores, and (G, M) counts of them."""
    values = np.asarray(values, np.float64)
    scored = ~np.isnan(values)
    scores, counts = np.where(scored, values, 0), scored.astype(np.float64)
    if groups is None:
        return scores, counts
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    members = (index[None] == np.arange(index.max(initial=-1) + 1)[:, None]).astype(np.float64)
    return members @ scores, members @ counts
