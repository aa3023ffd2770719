"""A file with an image of any size enters; a file of labels or probabilities leaves, written as they come."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxunet.io import images, tiff
from flaxunet.io.images import ImageError
from flaxunet.io.pixels import DecodedPixels, DecodeError, error_reason, to_image
from flaxunet.prediction import tiling
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.resumable import Growing


class WriteError(ImageError):
    """An output cannot be written; the message is one line."""


_ACCEPTED = "accepted is a TIFF of gray, RGB or other channels, in integers or finite floats"


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

    Held are the rows of one window over the whole width, and their probabilities.

    Args:
      predictor: of `flaxunet.prediction.predictor.load`.
      image: a TIFF, tiled or in strips, which is read in parts (of a pyramid level 0); any other file that
        `flaxunet.io.read_image` reads, as a whole. So is every image if the predictor resizes it.
      labels: where labels go, uint8 (H, W), uint16 if there are more than 256.
      probabilities: where probabilities go, float32 (H, W, K). Both names end with .tif or .tiff (tiled) or
        .zarr (a folder; needs the zarr extra); older ones are replaced. Until a file is whole, what is
        finished lies beside it, and the same call goes on from there.
      threshold: of the foreground's probability where K = 1.
      page: which picture of several, as in `read_image`.
      progress: told the rows that are finished, and all, after each band.
    Raises: ImageError if the input cannot be read or used; WriteError if an output cannot be written;
      ValueError for other arguments, and if another process writes the same output.
    """
    if labels is None and probabilities is None:
        raise ValueError("nothing is to be written; accepted are labels, probabilities or both")
    path = Path(image)
    try:
        with ExitStack() as stack:
            source = stack.enter_context(_source(predictor, path, page))
            outs = [
                (stack.enter_context(out), make)
                for out, make in _outs(predictor, path, source.size, labels, probabilities, threshold, page)
            ]
            begun, height = [out.finished for out, _ in outs], source.size[0]
            for top, band in source.bands(min(begun)) if min(begun) < height else ():
                for (out, make), start in zip(outs, begun, strict=True):
                    missing = band[max(start - top, 0) :]  # one of two may have got further than the other
                    if len(missing):
                        out.add(make(missing))
                if progress is not None:
                    progress(top + len(band), height)
            for out, _ in outs:
                out.finish()
    except OSError as error:
        where = error.filename or labels or probabilities
        raise WriteError(f"{where}: {error.strerror or error}; accepted is what can be written") from None


def _outs(
    predictor: Predictor,
    image: Path,
    size: tuple[int, int],
    labels: str | Path | None,
    probabilities: str | Path | None,
    threshold: float,
    page: int | None,
) -> Iterator[tuple[Growing, Callable[[np.ndarray], np.ndarray]]]:
    """The files to be written, and what they have of probabilities."""
    job = {**_job(predictor, image), "page": page}
    if labels is not None:
        dtype = np.min_scalar_type(max(predictor.outputs - 1, 1))
        made = {**job, "what": "labels", "threshold": threshold}
        growing = Growing(Path(labels), size, dtype, made, predictor.colors)
        yield growing, lambda band: predictor.labels(band, threshold)
    if probabilities is not None:
        shape, dtype = (*size, predictor.outputs), np.dtype(np.float32)
        yield Growing(Path(probabilities), shape, dtype, {**job, "what": "probabilities"}), lambda band: band


class _Source(NamedTuple):
    """(H, W) of an image, and its probabilities band by band from a row on."""

    size: tuple[int, int]
    bands: Callable[[int], Iterator[tuple[int, np.ndarray]]]


@contextmanager
def _source(predictor: Predictor, path: Path, page: int | None) -> Iterator[_Source]:
    with ExitStack() as stack:
        parts = None
        if page is None and path.is_file() and images.file_format(path) == "tiff":
            with _named(path):
                file = stack.enter_context(path.open("rb"))
                parts = stack.enter_context(tiff.open_regions(file))
        if parts is None or predictor.side is not None:
            # Beside the picture of a slide scanner there are others.
            yield _whole(predictor, path, images.read_image(path, page=page if parts is None else 0))
        else:
            yield _in_parts(predictor, path, parts)


def _whole(predictor: Predictor, path: Path, image: np.ndarray) -> _Source:
    size = image.shape[0], image.shape[1]

    def bands(start: int) -> Iterator[tuple[int, np.ndarray]]:
        with _usable(path):
            x = predictor.prepare(image) if predictor.side is None else predictor(image)
        if predictor.side is None:
            yield from tiling.bands(
                predictor.windows, lambda top, bottom: x[top:bottom], size, predictor.tiling, start=start
            )
        else:
            yield start, x[start:]

    return _Source(size, bands)


def _in_parts(predictor: Predictor, path: Path, parts: tiff.RegionReader) -> _Source:
    def rows(top: int, bottom: int) -> np.ndarray:
        with _named(path):
            stored = parts.read_rows(top, bottom)
            if stored.dtype.kind == "f" and not np.isfinite(stored).all():
                row, column = np.argwhere(~np.isfinite(stored).all(-1))[0]
                raise DecodeError(f"NaN or infinite pixels, first at row {top + row}, column {column}")
            return stored

    def bands(start: int) -> Iterator[tuple[int, np.ndarray]]:
        scaled = tiff.normalizer_by_rows(rows, parts.size, predictor.intensity)

        def prepare(window: np.ndarray) -> np.ndarray:
            with _usable(path):
                return scaled(predictor.match_channels(to_image(DecodedPixels(window))))

        yield from tiling.bands(
            predictor.windows, rows, parts.size, predictor.tiling, prepare=prepare, start=start
        )

    return _Source(parts.size, bands)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of reading become one that names the file."""
    try:
        yield
    except Exception as error:  # damaged files make decoders raise anything
        raise ImageError(f"{path}: {error_reason(error)}; {_ACCEPTED}") from error


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Refusals of the predictor become errors that name the file."""
    try:
        yield
    except ValueError as error:
        raise ImageError(f"{path}: {error}") from error


def _job(predictor: Predictor, path: Path) -> dict[str, Any]:
    """What the output depends on: the file as it lies there, the numbers of the networks, the settings."""
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
    """In which it computes; its numbers are float32 in any case."""
    parts = [vars(part) for _, part in nnx.iter_modules(model)]
    return sorted({jnp.dtype(part["dtype"] or jnp.float32).name for part in parts if "dtype" in part})
