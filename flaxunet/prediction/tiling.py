"""Covers an image with overlapping windows and blends what a function predicts for each of them.

An image that fits into one window is predicted whole. Any other is covered by square windows that overlap,
and their probabilities are averaged with weights where they do.

Windows begin at multiples of `ALIGN` pixels, and the outer quarter of their overlap has no weight, so that
networks whose receptive field reaches no further give the numbers of the whole image. Beyond the image they
have it mirrored. Few shapes occur, because each is compiled: sides of images that fit are rounded up to
quarters of the window. docs/explanation/tiling.md has the reasons and measurements.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from flaxunet.lookahead import lookahead
from flaxunet.prediction.tta import TURNS, Function, augment

ALIGN = 32  # pixels: the stride of the deepest map of all our networks
SPREAD = 1 / 8  # standard deviation of the Gaussian weights, in windows
AHEAD = 1  # batches that the device has besides the one that is waited for
BLENDS = ("gaussian", "flat")

Window = tuple[tuple[int, int], np.ndarray]  # its row and column, and its pixels or its probabilities
Prepare = Callable[[np.ndarray], np.ndarray] | None
Rows = Callable[[int, int], np.ndarray]  # (top, bottom) to the stored numbers (bottom - top, W, ...)


@dataclass(frozen=True)
class Tiling:
    """Settings of windows: their size, overlap and blending, and test-time augmentation.

    Attributes:
      window: side in pixels, a multiple of 32.
      overlap: what neighbours share at least, as a fraction of the window; 0 to 0.9.
      blend: "gaussian", whose weights fall from the centre of a window; "flat", all the same.
      batch: windows that are computed at once, a power of two; None means 1, and in a `Predictor` as many as
        suit its devices.
      tta: "none"; "flips", the mean over 4 mirror images; "d4", the mean over all 8 mirror images and turns.
    Raises: ValueError for any other value.
    """

    window: int = 512
    overlap: float = 0.25
    blend: str = "gaussian"
    batch: int | None = None
    tta: str = "none"

    def __post_init__(self):
        if self.window < ALIGN or self.window % ALIGN:
            raise ValueError(f"window is {self.window}; expected a multiple of {ALIGN} pixels")
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(f"overlap is {self.overlap}; expected 0 to 0.9")
        if self.batch is not None and (self.batch < 1 or self.batch & (self.batch - 1)):
            raise ValueError(f"batch is {self.batch}; expected 1, 2, 4, 8, ...")
        for what, value, known in (("blend", self.blend, BLENDS), ("tta", self.tta, TURNS)):
            if value not in known:
                raise ValueError(f"unknown {what} {value!r}; expected one of {', '.join(known)}")


def predict(function: Function, image: np.ndarray, tiling: Tiling) -> np.ndarray:
    """Probabilities of an image in memory, or of several of one size, whose windows share batches.

    Args:
      function, tiling: computes probabilities of windows, and their settings.
      image: (H, W, C) float32, any H, W >= 1; or (N, H, W, C), N >= 1.
    Returns: (H, W, K) float32; or (N, H, W, K).
    """
    if image.ndim == 3:
        return predict(function, image[None], tiling)[0]
    count, height, width, _ = image.shape
    grid = _grid((height, width), tiling)
    windows = itertools.chain.from_iterable(
        _windows(lambda top, bottom, one=one: one[top:bottom], None, grid) for one in image
    )
    results = _computed(function, windows, tiling)
    out = np.empty((0,))
    for place in range(count):
        for top, band in _blended(itertools.islice(results, grid.windows), grid):
            if not place and not top:
                out = np.empty((count, height, width, band.shape[-1]), np.float32)
            out[place, top : top + len(band)] = band
    return out


def bands(
    function: Function,
    rows: Rows,
    size: tuple[int, int],
    tiling: Tiling,
    *,
    prepare: Prepare = None,
    start: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """Probabilities of an image band by band, from the top, in bounded memory.

    Only the rows of one window over the whole width and their probabilities are held. The numbers of a row do
    not depend on `start`, because windows are computed in the same batches.

    Args:
      function, tiling: as of `predict`.
      rows: reads rows of the image; each is read once, in order.
      size: (H, W) of the image.
      prepare: converts what `rows` returned of a window to float32 (h, w, C).
      start: the first row to be predicted.
    Yields: the first row of the band, and its (h, W, K) float32 in [0, 1], an array of its own.
    """
    grid, batch = _grid(size, tiling), tiling.batch or 1
    first = next(i for i, top in enumerate(grid.down.starts) if top + grid.down.side > start)
    # The batches are those that a start at the top makes, so windows above row `first` may be among them.
    begin = first * len(grid.across.starts) // batch * batch
    return _blended(_computed(function, _windows(rows, prepare, grid, begin), tiling), grid, start)


class _Axis(NamedTuple):
    """Windows along one axis: their side, their first pixels, and the weights of each one's pixels."""

    side: int
    starts: Sequence[int]
    weights: Sequence[np.ndarray]


class _Grid(NamedTuple):
    """Windows of an image along both axes; `size` is the image's (H, W)."""

    size: tuple[int, int]
    down: _Axis
    across: _Axis

    @property
    def windows(self) -> int:
        return len(self.down.starts) * len(self.across.starts)


def _grid(size: tuple[int, int], tiling: Tiling) -> _Grid:
    if max(size) > tiling.window:
        return _Grid(size, *(_axis(length, tiling) for length in size))
    quarter = _up(tiling.window // 4, ALIGN)
    sides = (min(_up(length, quarter), tiling.window) for length in size)
    return _Grid(size, *(_Axis(side, [0], [np.ones(side, np.float32)]) for side in sides))


def _axis(length: int, tiling: Tiling) -> _Axis:
    window, last = tiling.window, max(_up(length, ALIGN) - tiling.window, 0)
    step = max(int(window * (1 - tiling.overlap)) // ALIGN * ALIGN, ALIGN)
    gaps = -(-last // step)
    starts = [last * i // gaps // ALIGN * ALIGN for i in range(gaps)] + [last]
    place = (np.arange(window) + 0.5) / window - 0.5
    profile = np.exp(-0.5 * (place / SPREAD) ** 2) if tiling.blend == "gaussian" else np.ones(window)
    margin = (window - step) // 4
    total, weights = np.zeros(last + window), []
    for start in starts:
        weight = profile.copy()
        weight[: margin if start else 0] = 0
        weight[window - margin if start < last else window :] = 0
        total[start : start + window] += weight
        weights.append(weight)
    shares = [w / total[start : start + window] for start, w in zip(starts, weights, strict=True)]
    return _Axis(window, starts, [share.astype(np.float32) for share in shares])


def _windows(rows: Rows, prepare: Prepare, grid: _Grid, begin: int = 0) -> Iterator[Window]:
    """Cuts an image into windows, row by row, starting with the window numbered `begin`."""
    (height, _), down, across = grid
    end, strip, strip_top = 0, np.empty((0,)), -1
    for row, column in (divmod(i, len(across.starts)) for i in range(begin, grid.windows)):
        top, bottom = down.starts[row], min(down.starts[row] + down.side, height)
        if top != strip_top:
            fresh = rows(max(top, end), bottom)
            strip = np.concatenate([strip[top - strip_top :], fresh]) if end > top else fresh
            strip_top, end = top, bottom
        part = strip[:, across.starts[column] : across.starts[column] + across.side]
        part = part if prepare is None else prepare(part)
        missing = [(0, down.side - part.shape[0]), (0, across.side - part.shape[1]), (0, 0)]
        yield (row, column), np.pad(part, missing, mode="reflect")  # which repeats an only row or column


def _computed(function: Function, windows: Iterator[Window], tiling: Tiling) -> Iterator[Window]:
    """Computes batches of windows, the last one filled up to a power of two; yields results in order."""
    function = augment(function, tiling.tta)

    def started() -> Iterator[tuple[Sequence[Any], Any]]:
        while batch := list(itertools.islice(windows, tiling.batch or 1)):
            places, pixels = zip(*batch, strict=True)
            missing = (1 << (len(batch) - 1).bit_length()) - len(batch)
            yield places, function(np.stack([*pixels, *[np.zeros_like(pixels[0])] * missing]))

    for places, results in lookahead(started(), AHEAD):
        yield from zip(places, np.asarray(results), strict=False)


def _blended(results: Iterator[Window], grid: _Grid, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """Adds up the results of weighted windows into bands as `bands` yields them; skips rows above `start`."""
    (height, width), down, across = grid
    sums = np.empty((0,))
    for (row, column), window in results:
        top, left = down.starts[row], across.starts[column]
        if top + down.side <= start:
            continue
        rest = min(down.side, height - top)
        if not len(sums):
            sums = np.zeros((rest, width, window.shape[-1]), np.float32)
        elif not column:
            gap = top - down.starts[row - 1]
            for upper in range(len(sums) - gap):  # row by row, because NumPy would copy overlapping rows
                sums[upper] = sums[upper + gap]
            sums[len(sums) - gap :] = 0
            sums = sums[:rest]
        part = sums[:, left : left + across.side]
        weight = down.weights[row][:rest, None] * across.weights[column][: part.shape[1]]
        part += window[:rest, : part.shape[1]] * weight[..., None]
        if column + 1 == len(across.starts):
            end, begin = [*down.starts, height][row + 1], max(top, start)
            if begin < end:
                yield begin, np.clip(sums[begin - top : end - top], 0, 1)


def _up(length: int, unit: int) -> int:
    return math.ceil(length / unit) * unit
