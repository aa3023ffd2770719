"""Means, intervals and comparisons equal those of scipy; groups are resampled whole."""

import warnings

import numpy as np
import pytest

from flaxunet.metrics import statistics

RNG = np.random.default_rng(0)
NAN = float("nan")


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_intervals_are_those_of_scipy(scale):
    from scipy import stats

    values = 0.8 + scale * RNG.normal(size=40) / 10
    ours = statistics.means(values[:, None], resamples=20_000)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are all equal
        theirs = stats.bootstrap(
            (values,), np.mean, n_resamples=20_000, method="percentile"
        ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    # Percentiles of drawn means differ by about a hundredth of their deviation.
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=scale * 0.002 + 1e-12)
    assert ours == statistics.means(values[:, None], resamples=20_000)[0]


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        one = statistics.means(rng.normal(size=(30, 1)), resamples=500, seed=seed)[0]
        covered += one.low <= 0 <= one.high
    assert 0.88 <= covered / 200 <= 0.99


def test_groups_are_drawn_whole_and_missing_scores_are_left_out():
    groups = np.repeat([f"patient {n}" for n in range(8)], 10)
    values = np.repeat(RNG.random(8), 10)[:, None]
    alone, together = statistics.means(values)[0], statistics.means(values, groups)[0]
    assert alone.mean == pytest.approx(together.mean)
    # Ten copies of an image say no more than one.
    once = statistics.means(values[::10])[0]
    assert together.high - together.low == pytest.approx(once.high - once.low)
    assert together.high - together.low > 2 * (alone.high - alone.low)
    holes = np.array([[1.0, NAN], [NAN, NAN], [3.0, NAN]])
    first, second = statistics.means(holes)
    assert (first.mean, first.images, second.images) == (2.0, 2, 0)
    assert np.isnan([second.mean, second.low, second.high]).all()
    single = statistics.means(np.array([[0.5], [0.7]]), ["a", "a"])[0]
    assert single.mean == pytest.approx(0.6)
    assert np.isnan([single.low, single.high]).all()
    assert statistics.means(np.empty((0, 1)))[0].images == 0


def test_two_networks_are_compared_as_scipy_does():
    from scipy import stats

    values, others = RNG.random((2, 25, 2))
    values[3, 0] = others[4, 0] = NAN
    first, second = statistics.differences(values, others)
    kept = ~np.isnan(values[:, 0] - others[:, 0])
    assert first.p == pytest.approx(stats.wilcoxon(values[kept, 0], others[kept, 0]).pvalue)
    assert second.p == pytest.approx(stats.wilcoxon(values[:, 1], others[:, 1]).pvalue)
    assert (first.images, first.groups, second.images) == (23, 23, 25)
    assert first.low < first.mean < first.high
    better = statistics.differences(others + 0.1, others)[1]
    assert (better.mean, better.low, better.high) == pytest.approx((0.1, 0.1, 0.1))
    assert better.p < 1e-6
    same = statistics.differences(values, values)[1]
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    none = statistics.differences(np.full((3, 1), NAN), others[:3, :1])[0]
    assert (none.images, none.groups) == (0, 0)
    assert np.isnan(none.p)


def test_the_test_is_on_groups():
    values, groups = np.repeat(RNG.random(6), 9)[:, None], np.repeat(list("abcdef"), 9)
    difference = statistics.differences(values, np.zeros_like(values), groups)[0]
    assert (difference.images, difference.groups) == (54, 6)
    assert difference.p == pytest.approx(2 / 2**6)  # all six are better
