"""HD95, ASSD and NSD equal those of the packages with the same definitions, also on masks at the edges."""

import functools
import itertools
import warnings

import numpy as np
import pytest

from flaxunet.metrics import surface

EXACT = 1e-6  # of the larger value; MONAI reckons in float32


def blobs(seed, shape):
    """Smooth random masks, one a part of the other with other edges."""
    from scipy import ndimage

    noise = np.random.RandomState(seed).normal(size=(2, *shape))  # whose numbers no version changes
    noise = ndimage.gaussian_filter(noise, (0,) + (1.5,) * len(shape))
    return noise[0] > 0.1, noise[0] + noise[1] / 2 > 0.1


def masks():
    """Name, prediction, truth and spacing."""
    rng = np.random.RandomState(0)
    for seed, shape in enumerate(((24, 31), (17, 40), (10, 12, 14), (7, 15, 9))):
        for spacing in ((1.0,) * len(shape), (0.7, 3.0, 1.2)[: len(shape)]):
            yield f"blobs {shape} {spacing}", *blobs(seed, shape), spacing
            noise = rng.random_sample((2, *shape))
            yield f"noise {shape} {spacing}", noise[0] < 0.3, noise[1] < 0.1, spacing
    for shape in ((9, 11), (6, 7, 8)):
        spacing = (2.5, 1.0, 0.4)[: len(shape)]
        one, corner, full, two = (np.zeros(shape, bool) for _ in range(4))
        one[(3,) * len(shape)] = True
        corner[(slice(0, 4),) * len(shape)] = True
        full[:] = True
        two[(slice(0, 2),) * len(shape)] = two[(slice(4, 6),) * len(shape)] = True
        for first, second in itertools.product(
            {"pixel": one, "corner": corner, "full": full, "two": two}.items(), repeat=2
        ):
            yield f"{first[0]}, {second[0]} {shape}", first[1], second[1], spacing


CASES = {name: case for name, *case in masks()}
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def agree(ours, theirs):
    assert float(ours) == pytest.approx(float(theirs), rel=EXACT, abs=EXACT)


@functools.cache
def monai():
    return pytest.importorskip("monai.metrics")


def batch(mask):
    import torch

    return torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32))


@each
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of MONAI's own calls
def test_the_defaults_are_those_of_monai(case):
    prediction, truth, spacing = case
    distances = surface.surface_distances(prediction, truth, spacing)
    arguments = {
        "y_pred": batch(prediction),
        "y": batch(truth),
        "spacing": list(spacing),
        "include_background": False,
    }
    agree(surface.hausdorff(distances), monai().compute_hausdorff_distance(**arguments, percentile=95))
    agree(surface.hausdorff(distances, 100), monai().compute_hausdorff_distance(**arguments))
    agree(surface.assd(distances), monai().compute_average_surface_distance(**arguments, symmetric=True))
    for tolerance in (0.0, 1.01, 2.51):
        agree(
            surface.nsd(distances, tolerance),
            monai().compute_surface_dice(**arguments, class_thresholds=[tolerance]),
        )


# hd95, hd and assd of these cases by medpy.metric.binary 0.5.2, to 9 digits.
MEDPY = {
    "blobs (24, 31) (1.0, 1.0)": (2.23606798, 7.0, 0.676592299),
    "noise (24, 31) (1.0, 1.0)": (3.60555128, 6.08276253, 1.60354833),
    "blobs (24, 31) (0.7, 3.0)": (3.5, 8.7, 0.825676521),
    "noise (24, 31) (0.7, 3.0)": (5.16139516, 7.7, 2.09198707),
    "blobs (17, 40) (1.0, 1.0)": (1.41421356, 2.23606798, 0.410912231),
    "noise (17, 40) (1.0, 1.0)": (3.16227766, 5.38516481, 1.40747485),
    "blobs (17, 40) (0.7, 3.0)": (2.1, 6.0, 0.43386345),
    "noise (17, 40) (0.7, 3.0)": (4.10365691, 6.0, 1.86922317),
    "blobs (10, 12, 14) (1.0, 1.0, 1.0)": (3.0, 5.38516481, 0.877933934),
    "noise (10, 12, 14) (1.0, 1.0, 1.0)": (2.0, 3.0, 1.03796696),
    "blobs (10, 12, 14) (0.7, 3.0, 1.2)": (4.23368276, 7.32393337, 1.22593131),
    "noise (10, 12, 14) (0.7, 3.0, 1.2)": (3.08058436, 4.37835586, 1.30305021),
    "blobs (7, 15, 9) (1.0, 1.0, 1.0)": (2.0, 3.0, 0.417019898),
    "noise (7, 15, 9) (1.0, 1.0, 1.0)": (2.23606798, 3.0, 1.06444175),
    "blobs (7, 15, 9) (0.7, 3.0, 1.2)": (3.02417531, 6.0, 0.509025979),
    "noise (7, 15, 9) (0.7, 3.0, 1.2)": (3.08058436, 3.85356977, 1.28537743),
    "pixel, corner (9, 11)": (7.88835129, 8.07774721, 4.1647911),
    "full, two (9, 11)": (8.925, 9.01387819, 5.05649714),
    "two, pixel (6, 7, 8)": (8.12709135, 8.16639455, 5.33184535),
    "corner, full (6, 7, 8)": (5.38516481, 6.04648658, 2.14098171),
}


@pytest.mark.parametrize("name", MEDPY)
def test_pooled_distances_are_those_of_medpy(name):
    distances = surface.surface_distances(*CASES[name])
    values = (
        surface.hausdorff(distances, pooled=True),
        surface.hausdorff(distances, 100),
        surface.assd(distances),
    )
    assert values == pytest.approx(MEDPY[name], rel=EXACT)


@each
def test_pieces_are_those_of_surface_distance(case):
    package = pytest.importorskip("surface_distance")
    prediction, truth, spacing = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # names that scipy keeps until its 2.0
        theirs = package.compute_surface_distances(truth, prediction, spacing)
    distances = surface.surface_distances(prediction, truth, spacing, surface="pieces")
    for percentile in (50, 95, 100):
        agree(surface.hausdorff(distances, percentile), package.compute_robust_hausdorff(theirs, percentile))
    directed = package.compute_average_surface_distance(theirs)
    agree(surface.assd(distances, pooled=False), np.mean(directed))
    areas = [theirs[f"surfel_areas_{kind}"].sum() for kind in ("gt", "pred")]
    agree(surface.assd(distances), np.average(directed, weights=areas))
    for tolerance in (0.0, 0.99, 2.5):
        agree(surface.nsd(distances, tolerance), package.compute_surface_dice_at_tolerance(theirs, tolerance))


@pytest.mark.parametrize("kind", surface.SURFACES)
def test_squares_that_are_moved_are_as_far_apart_as_they_were_moved(kind):
    mask = np.zeros((40, 60), bool)
    mask[10:20, 10:20] = True
    distances = surface.surface_distances(np.roll(mask, 5, axis=1), mask, (3.0, 2.0), surface=kind)
    assert surface.hausdorff(distances) == 10
    assert surface.nsd(distances, 10) == 1
    assert surface.nsd(distances, 9.9) < 1
    same = surface.surface_distances(mask, mask, (3.0, 2.0), surface=kind)
    assert (surface.hausdorff(same), surface.assd(same), surface.nsd(same, 0)) == (0, 0, 1)


def test_pieces_have_the_length_and_the_area_of_what_they_surround():
    mask = np.zeros((8, 9), bool)
    mask[2:6, 1:8] = True  # corners are cut, each by the diagonal of half a pixel
    distances = surface.surface_distances(mask, mask, (3.0, 2.0), surface="pieces")
    assert distances.truth_weights.sum() == pytest.approx(2 * 3 * 3 + 2 * 6 * 2 + 4 * np.hypot(3, 2) / 2)
    block = np.ones((4, 5, 6), bool)
    area = surface.surface_distances(block, block, surface="pieces").truth_weights.sum()
    edges, faces = 4 * (3 + 4 + 5) * np.sqrt(0.5), 2 * (3 * 4 + 3 * 5 + 4 * 5)
    assert area == pytest.approx(edges + faces + 8 * np.sqrt(3) / 8)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_any_number_of_dimensions(dimensions):
    one, other = (np.zeros((7,) * dimensions, bool) for _ in range(2))
    one[(1,) * dimensions] = other[(5,) * dimensions] = True
    assert surface.hausdorff(surface.surface_distances(one, other)) == pytest.approx(4 * np.sqrt(dimensions))


@pytest.mark.parametrize("kind", surface.SURFACES)
@pytest.mark.parametrize("which", [(0, 0), (0, 1), (1, 0)])
def test_empty_masks(which, kind):
    one, other = (np.full((5, 6), bool(filled)) for filled in which)
    distances = surface.surface_distances(one, other, surface=kind)
    values = (
        surface.hausdorff(distances),
        surface.hausdorff(distances, pooled=True),
        surface.assd(distances),
        surface.nsd(distances, 1),
    )
    nan, inf = float("nan"), float("inf")
    np.testing.assert_equal(values, (inf, inf, inf, 0.0) if any(which) else (nan, nan, nan, nan))


def test_what_cannot_be_measured_is_refused():
    mask = np.ones((3, 4), bool)
    for arguments, message in (
        ((mask, mask.T), "shapes"),
        ((mask, mask, (1.0,)), "expected 2 numbers > 0"),
        ((mask, mask, (1.0, 0.0)), "expected 2 numbers > 0"),
        ((mask, mask, (1.0, float("nan"))), "expected 2 numbers > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            surface.surface_distances(*arguments)
    with pytest.raises(ValueError, match="expected one of border"):
        surface.surface_distances(mask, mask, surface="skin")
    with pytest.raises(ValueError, match="tolerance -1"):
        surface.nsd(surface.surface_distances(mask, mask), -1)
