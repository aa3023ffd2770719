"""A file with an image of any size enters; a file of labels or probabilities leaves, written as they come."""

from collections.abc import Callable
from pathlib import Path

from flaxunet.predictor import Predictor


def predict_file(
    predictor: Predictor,
    path_in: str | Path,
    path_out: str | Path,
    *,
    what: str = "labels",
    threshold: float = 0.5,
    page: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Predicts an image that need not fit into memory.

    Args:
      predictor: of `flaxunet.predictor.load`.
      path_in: a TIFF, tiled or in strips, which is read in parts (of a pyramid level 0); any other file that
        `flaxunet.images.read_image` reads, as a whole.
      path_out: ends with .tif or .tiff (tiled) or .zarr (a folder; needs the zarr extra); an older one is
        replaced. Until it is whole, what is finished lies beside it, and the same call goes on from there.
      what: "labels", uint8 (H, W), uint16 if there are more than 256; "probabilities", float32 (H, W, K).
      threshold: of the foreground's probability where K = 1.
      page: which picture of several, as in `read_image`.
      progress: told the rows that are finished, and all, after each band.
    Raises: ImageError if the input cannot be read or the output cannot be written; ValueError for other
      arguments, and for what the predictor refuses.
    """
    raise NotImplementedError
