"""Fills polygons and decodes COCO's run lengths.

A pixel is covered if its centre is inside a polygon, by the even-odd rule. A centre on an edge belongs to
what lies right of the edge or below it, so polygons that share an edge cover no pixel twice.
`skimage.draw.polygon` covers such pixels twice, and is slow for many corners; `PIL.ImageDraw` also covers the
outline.
"""

from collections.abc import Sequence

import numpy as np

from flaxunet.io.pixels import MAX_VALUES


def fill(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fills a polygon.

    Args:
      corners: (N, 2) float x and y in pixels; (0, 0) is the upper left corner of the upper left pixel.
    Returns: (height, width) bool.
    """
    x, y = corners.T.astype(np.float64)
    # Within the bounding box: a large image may have thousands of small polygons.
    box = np.floor(corners.min(0)), np.ceil(corners.max(0))
    (left, top), (right, bottom) = np.clip(box, 0, (width, height)).astype(int)
    crossings = np.zeros((bottom - top, right - left + 1), np.uint8)
    for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
        first, last = np.clip(np.ceil([min(y0, y1) - 0.5, max(y0, y1) - 0.5]), top, bottom).astype(int)
        rows = np.arange(first, last)  # centres between the ends of the edge, the upper one included
        if rows.size:
            crossing = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            crossings[rows - top, np.clip(np.ceil(crossing - 0.5), left, right).astype(int) - left] ^= 1
    covered = np.zeros((height, width), bool)
    covered[top:bottom, left:right] = np.bitwise_xor.accumulate(crossings, axis=1)[:, :-1]
    return covered


def decode(counts: Sequence[int] | str, height: int, width: int) -> np.ndarray:
    """Decodes COCO's run lengths, which go down the columns and begin with a run of background.

    Args:
      counts: the lengths, or their compressed text.
    Returns: (height, width) bool.
    Raises: ValueError if the runs are not those of so many pixels.
    """
    if not 0 < height * width <= MAX_VALUES:
        raise ValueError(f"a mask of {height} x {width} pixels; expected 1 to {MAX_VALUES}")
    runs = np.asarray(_decompress(counts) if isinstance(counts, str) else counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"run lengths of {runs.sum()} pixels; expected {height} x {width}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _decompress(text: str) -> list[int]:
    """Decompresses runs of five bits a letter, lowest first; the fourth and later add to the last but one.

    Source: pycocotools, rleFrString.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text.encode("ascii"):
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"the letter {chr(letter)!r} in run lengths; expected COCO's compressed text")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("run lengths that end early; expected COCO's compressed text")
    return runs
