"""Pictures enter one by one; a TIFF file with a page for each leaves, whole or not at all."""

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
from flaxunet.prediction.resumable import CLASSIC


class Stack:
    """A TIFF file that is being written beside its place; `close` moves it there.

    Args:
      path: ends with .tif.
      pages: how many pictures are expected: if they may exceed 4 GB, it becomes a BigTIFF.
    """

    def __init__(self, path: Path, pages: int):
        self._path, self._pages = path, pages
        self._part = temporary_sibling(path)
        self._file: tifffile.TiffWriter | None = None

    def add(
        self, picture: np.ndarray, *, orientation: int = 1, palette: Sequence[Color] | None = None
    ) -> None:
        """Appends a page.

        Args:
          picture: upright (H, W), (H, W, K), or (H, W, 3) uint8 colours.
          orientation: EXIF's, of the picture that it belongs to: it is stored as that is, with the same tag.
          palette: colours of uint8 labels from 1 on; None for gray.
        Raises: OSError if it cannot be written.
        """
        picture = undo_orientation(picture, orientation)
        options: dict[str, Any] = {"photometric": "minisblack"}
        if picture.ndim == 3 and picture.dtype == np.uint8:
            options = {"photometric": "rgb"}
        elif picture.ndim == 3:
            picture = np.moveaxis(picture, -1, 0)
            options |= {"planarconfig": "separate"} if len(picture) > 1 else {}
            picture = picture[0] if len(picture) == 1 else picture
        elif palette is not None:
            options = tiff.palette_options(palette)
        if orientation != 1:
            options["extratags"] = [(EXIF_ORIENTATION, "H", 1, orientation, True)]
        with self._named():
            if self._file is None:
                self._file = tifffile.TiffWriter(self._part, bigtiff=self._pages * picture.nbytes > CLASSIC)
            stored = np.ascontiguousarray(picture)
            self._file.write(stored, compression="zlib", metadata=None, contiguous=False, **options)

    def close(self) -> None:
        """Makes it the file. Raises OSError if that cannot be done."""
        with self._named():
            if self._file is not None:
                self._file.close()
                self._part.replace(self._path)

    def abandon(self) -> None:
        """Leaves nothing behind, if it was not closed."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of the disk have the name of the file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self._path)) from None
