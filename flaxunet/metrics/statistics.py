"""Scores of images enter; their means with intervals, and what two networks differ by, leave.

Images of one patient, or whatever a group is, are alike, so groups are drawn whole. Means are over images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES, CONFIDENCE = 2000, 0.95
_AT_ONCE = 1_000_000  # numbers that are drawn


class Mean(NamedTuple):
    """A mean over images, the ends of its interval, and how many images were scored; NaN for none."""

    mean: float
    low: float
    high: float
    images: int


class Difference(NamedTuple):
    """The mean of differences with its interval, of how many images and groups it is, and the test's p."""

    mean: float
    low: float
    high: float
    images: int
    groups: int
    p: float


def means(
    values: np.ndarray, groups: Sequence[str] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Mean]:
    """Means with bootstrap intervals: percentiles 2.5 and 97.5 of means over groups drawn with replacement.

    Args:
      values: (N, M) M scores of each image; NaN is left out.
      groups: (N,) what images have in common, such as a patient; each image is its own if left out.
      resamples: how often as many groups as there are are drawn; they are the same for all scores.
      seed: of the draws.
    Returns: M of them; an interval of NaN where fewer than two groups were scored.
    Source: Efron and Tibshirani 1993, An introduction to the bootstrap.
    """
    sums, counts = _by_group(values, groups)
    drawn = []
    rng, size = np.random.default_rng(seed), max(len(sums), 1)
    for first in range(0, resamples if len(sums) else 0, max(_AT_ONCE // size, 1)):
        rows = min(resamples - first, max(_AT_ONCE // size, 1))
        times = rng.multinomial(size, np.full(size, 1 / size), size=rows)
        drawn.append(_divide(times @ sums, times @ counts))
    rest = (1 - CONFIDENCE) / 2
    found = []
    for column, middle in enumerate(_divide(sums.sum(0), counts.sum(0)).tolist()):
        low = high = float("nan")
        if (counts[:, column] > 0).sum() > 1:
            resampled = np.concatenate([part[:, column] for part in drawn])
            low, high = np.nanquantile(resampled, (rest, 1 - rest)).tolist()
        found.append(Mean(middle, low, high, int(counts[:, column].sum())))
    return found


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
      others: (N, M) of the other one; where either is NaN, the image is left out.
      groups, resamples, seed: as of `means`.
    Returns: for each score the mean of `values - others`, and p of Wilcoxon's signed-rank test, two-sided, on
      the groups' means. p is 1 where all are equal, and NaN without any. It is not corrected for the number
      of scores.
    Source: Wilcoxon 1945, Individual comparisons by ranking methods, Biometrics Bulletin 1.
    """
    # What is equal but for rounding would else have a rank and a sign.
    between = np.round(np.asarray(values, np.float64) - others, 12)
    sums, counts = _by_group(between, groups)
    found = []
    for column, one in enumerate(means(between, groups, resamples=resamples, seed=seed)):
        scored = counts[:, column] > 0
        each = np.round(sums[scored, column] / counts[scored, column], 12)
        found.append(Difference(*one, int(scored.sum()), _signed_rank(each)))
    return found


def _signed_rank(between: np.ndarray) -> float:
    from scipy import stats

    if not between.size:
        return float("nan")
    if not between.any():
        return 1.0
    return float(np.asarray(stats.wilcoxon(between[between != 0]))[1])


def _by_group(values: np.ndarray, groups: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Sums (G, M) of the scores of each group, and their numbers."""
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values)
    scores, counts = np.where(known, values, 0), known.astype(np.float64)
    if groups is None:
        return scores, counts
    _, places = np.unique(np.asarray(groups), return_inverse=True)
    of_group = (places[None] == np.arange(places.max(initial=-1) + 1)[:, None]).astype(np.float64)
    return of_group @ scores, of_group @ counts


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)
