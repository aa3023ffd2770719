"""Writes images one by one as the pages of a TIFF file."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from flaxunet.files import temporary_sibling
from flaxunet.io import tiff
from flaxunet.io.pixels import undo_orientation
from flaxunet.io.png_jpeg import EXIF_ORIENTATION
from flaxunet.labels import Color

# Bytes of pixels that a TIFF of 32-bit offsets may hold, with room for the rest; more need a BigTIFF.
CLASSIC_BYTES = 2**32 - 2**25


class TiffStack:
    """A TIFF file that is written beside its place, until `close` moves it there.

    Args:
      path: ends with .tif.
      pages: how many images there will be; if they may exceed 4 GB, the file is a BigTIFF.
    """

    def __init__(self, path: Path, pages: int):
        self._path, self._pages = path, pages
        self._part = temporary_sibling(path)
        self._file: tifffile.TiffWriter | None = None

    def add(self, image: np.ndarray, *, orientation: int = 1, palette: Sequence[Color] | None = None) -> None:
        """Appends a page.

        Args:
          image: upright (H, W), (H, W, K), or (H, W, 3) uint8 colours.
          orientation: the EXIF orientation of the image that it belongs to; the page is stored with the same.
          palette: colours of uint8 labels from 1 on; None for gray.
        Raises: OSError if it cannot be written.
        """
        image = undo_orientation(image, orientation)
        options: dict[str, Any] = {"photometric": "minisblack"}
        if image.ndim == 3 and image.dtype == np.uint8:
            options = {"photometric": "rgb"}
        elif image.ndim == 3 and image.shape[-1] == 1:
            image = image[..., 0]
        elif image.ndim == 3:
            image, options["planarconfig"] = np.moveaxis(image, -1, 0), "separate"
        elif palette is not None:
            options = tiff.palette_options(palette)
        if orientation != 1:
            options["extratags"] = [(EXIF_ORIENTATION, "H", 1, orientation, True)]
        with self._name_errors():
            is_big = self._pages * image.nbytes > CLASSIC_BYTES
            self._file = self._file or tifffile.TiffWriter(self._part, bigtiff=is_big)
            image = np.ascontiguousarray(image)
            self._file.write(image, compression="zlib", metadata=None, contiguous=False, **options)

    def close(self) -> None:
        """Finishes the file and moves it to its place. Raises OSError if that cannot be done."""
        with self._name_errors():
            if self._file is not None:
                self._file.close()
                self._part.replace(self._path)

    def abandon(self) -> None:
        """Removes what was written, unless the file was closed."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _name_errors(self) -> Iterator[None]:
        """Gives errors of the disk the name of the file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self._path)) from None
