"""Predicts whole-slide TIFF files, and others that need not fit into memory, part by part."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tifffile
from flax import nnx

from flaxunet.io import images, tiff
from flaxunet.io.images import ImageError
from flaxunet.io.pixels import DecodedPixels, DecodeError, name_errors, to_image
from flaxunet.prediction import tiling
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.resumable import ResumableWriter

LARGE = 2**26  # pixels beyond which a TIFF is read in parts

Bands = Iterator[tuple[int, np.ndarray]]  # probabilities of an image, as `tiling.bands` yields them
Source = tuple[tuple[int, int], Callable[[int], Bands]]  # of an image, and its probabilities from a row on


class WriteError(ImageError):
    """An output cannot be written; the message is one line."""


def predict_file(
    predictor: Predictor,
    image: str | Path,
    labels: str | Path | None = None,
    *,
    probabilities: str | Path | None = None,
    threshold: float = 0.5,
    page: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Predicts an image that need not fit into memory.

    Only the rows of one window over the whole width and their probabilities are held. What is finished lies
    beside an output until that is whole; after an interruption the same call continues from there.

    Args:
      predictor: as `flaxunet.Predictor.load` makes it.
      image: a TIFF, tiled or in strips, which is read in parts (of a pyramid level 0); any other file that
        `flaxunet.read_image` reads is read as a whole, as is every image if the predictor resizes it.
      labels, probabilities: files of uint8 (H, W), or uint16 for more than 256 labels; of float32 (H, W, K).
        They end with .tif, .tiff, or .zarr for a folder (needs the zarr extra); older ones are replaced.
      threshold: of the foreground's probability where K = 1.
      page: which picture of several, as in `flaxunet.read_image`.
      progress: called with the finished rows and all rows after each band.
    Raises: ImageError if the image cannot be read or used; WriteError if an output cannot be written;
      ValueError for other arguments, and if another process writes the same output.
    """
    if labels is None and probabilities is None:
        raise ValueError("nothing to write; expected a file for labels, for probabilities or for both")
    path = Path(image)
    try:
        with ExitStack() as stack:
            size, bands = _open(stack, predictor, path, page)
            job = {**_job(predictor, path), "page": page}
            outputs: list[tuple[ResumableWriter, Callable[[np.ndarray], np.ndarray]]] = []
            if labels is not None:
                dtype = np.min_scalar_type(max(predictor.outputs - 1, 1))
                of_labels = {**job, "what": "labels", "threshold": threshold}
                writer = ResumableWriter(Path(labels), size, dtype, of_labels, predictor.colors)
                outputs.append((stack.enter_context(writer), lambda band: predictor.labels(band, threshold)))
            if probabilities is not None:
                shape, dtype = (*size, predictor.outputs), np.dtype(np.float32)
                writer = ResumableWriter(Path(probabilities), shape, dtype, {**job, "what": "probabilities"})
                outputs.append((stack.enter_context(writer), lambda band: band))
            finished, height = [writer.finished for writer, _ in outputs], size[0]
            for top, band in bands(min(finished)) if min(finished) < height else ():
                for (writer, convert), start in zip(outputs, finished, strict=True):
                    missing = band[max(start - top, 0) :]  # one of two may have got further than the other
                    if len(missing):
                        writer.add(convert(missing))
                if progress is not None:
                    progress(top + len(band), height)
            for writer, _ in outputs:
                writer.finish()
    except OSError as error:
        where = error.filename or labels or probabilities
        raise WriteError(f"{where}: {error.strerror or error}") from None


def large_size(path: Path) -> tuple[int, int] | None:
    """(H, W) of a TIFF that can be read in parts and has more than `LARGE` pixels or is from a slide scanner.

    None for others, and for what cannot be read: reading it will say why.
    """
    try:
        with path.open("rb") as file, tiff.open_regions(file) as regions:
            if regions is None or regions.size[0] * regions.size[1] > LARGE:
                return regions and regions.size
            file.seek(0)
            return regions.size if tiff.page_count(file) > 1 else None
    except Exception:  # damaged files make decoders raise anything
        return None


def thumbnail(path: Path, step: int) -> np.ndarray:
    """Every so many rows and columns of a large TIFF, as `flaxunet.read_image` reads them."""
    with path.open("rb") as file, tiff.open_regions(file) as regions:
        assert regions is not None
        height = regions.size[0]
        parts = ((top, regions.read_rows(top, min(top + 1024, height))) for top in range(0, height, 1024))
        rows = [part[-top % step :: step, ::step].copy() for top, part in parts]  # not to keep the parts
    return to_image(DecodedPixels(np.concatenate(rows)))


def count_labels(mask: Path, classes: int, longest: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts the labels of a mask that `predict_file` wrote as TIFF, and thins it out, tile by tile.

    Args:
      mask, classes: the file, and K.
      longest: pixels that the longer side of the thinned mask has at most.
    Returns: pixels of each label (K,) int64; every so many rows and columns (h, w) int32; how many.
    """
    pixels = np.zeros(classes, np.int64)
    with tifffile.TiffFile(mask) as file:
        page = file.pages.first
        step = -(-max(page.shape) // longest)
        small = np.zeros([-(-side // step) for side in page.shape], np.int32)
        for tile, (_, _, top, left, _), _ in page.segments():
            if tile is None:  # nothing is stored where all is background
                continue
            labels = tile[0, : page.shape[0] - top, : page.shape[1] - left, 0]
            pixels += np.bincount(labels.ravel(), minlength=classes)
            thin = labels[-top % step :: step, -left % step :: step]
            row, column = -(-top // step), -(-left // step)
            small[row : row + thin.shape[0], column : column + thin.shape[1]] = thin
    return pixels, small, step


def _open(stack: ExitStack, predictor: Predictor, path: Path, page: int | None) -> Source:
    regions = None
    if page is None and path.is_file() and images.file_format(path) == "tiff":
        with name_errors(path):
            regions = stack.enter_context(tiff.open_regions(stack.enter_context(path.open("rb"))))
    if regions is not None and predictor.side is None:
        return regions.size, partial(_bands_in_parts, predictor, path, regions)
    # A slide scanner's file has other images after the slide.
    image = images.read_image(path, page=page if regions is None else 0)
    return image.shape[:2], partial(_bands_of_whole, predictor, path, image)


def _bands_of_whole(predictor: Predictor, path: Path, image: np.ndarray, start: int) -> Bands:
    with _name_errors(path):
        if predictor.side is not None:
            return iter([(start, predictor(image)[start:])])
        x = predictor.prepare(image)
    size, how = image.shape[:2], predictor.tiling
    return tiling.bands(predictor.windows, lambda top, bottom: x[top:bottom], size, how, start=start)


def _bands_in_parts(predictor: Predictor, path: Path, regions: tiff.RegionReader, start: int) -> Bands:
    def rows(top: int, bottom: int) -> np.ndarray:
        with name_errors(path):
            stored = regions.read_rows(top, bottom)
            if stored.dtype.kind == "f" and not np.isfinite(stored).all():
                row, column = np.argwhere(~np.isfinite(stored).all(-1))[0]
                raise DecodeError(f"NaN or infinite pixels, first at row {top + row}, column {column}")
            return stored

    normalize = tiff.normalizer_by_rows(rows, regions.size, predictor.intensity)

    def prepare(window: np.ndarray) -> np.ndarray:
        with _name_errors(path):
            return normalize(predictor.match_channels(to_image(DecodedPixels(window))))

    return tiling.bands(predictor.windows, rows, regions.size, predictor.tiling, prepare=prepare, start=start)


@contextmanager
def _name_errors(path: Path) -> Iterator[None]:
    """Turns a predictor's ValueError into one that names the file."""
    try:
        yield
    except ValueError as error:
        raise ImageError(f"{path}: {error}") from error


def _job(predictor: Predictor, path: Path) -> dict[str, Any]:
    """What an output depends on: the state of the file, the numbers of the networks, and the settings."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves([nnx.state(model) for model in predictor.models]):
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            digest.update(np.ascontiguousarray(leaf).data)
    stat = path.stat()
    return {
        "image": [str(path.resolve()), stat.st_size, stat.st_mtime_ns],
        "networks": digest.hexdigest(),
        "intensity": predictor.intensity,
        "dtypes": [_dtypes(model) for model in predictor.models],
        "side": predictor.side,
        "tiling": asdict(predictor.tiling),
    }


def _dtypes(model: nnx.Module) -> list[str]:
    """The dtypes that a network computes in; its parameters are float32 in any case."""
    parts = [vars(part) for _, part in nnx.iter_modules(model)]
    return sorted({jnp.dtype(part["dtype"] or jnp.float32).name for part in parts if "dtype" in part})
