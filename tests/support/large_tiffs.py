"""TIFF files that count as too large to be read at once."""

import numpy as np
import tifffile

from flaxunet.data import large_images


def lower_limits(monkeypatch):
    """Small images count as large, and are cut into patches of 64 x 64 pixels."""
    for name, value in (("LARGE", 10_000), ("SMALL", 0), ("SIDE", 64)):
        monkeypatch.setattr(large_images, name, value)


def write_tiffs(folder, name, image, mask, **options):
    """Writes an image and a mask, and returns their paths."""
    for kind, array in (("images", image), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        colour = {"photometric": "rgb" if array.ndim == 3 else "minisblack"}
        tifffile.imwrite(folder / kind / f"{name}.tif", array, **options, **colour)
    return folder / "images" / f"{name}.tif", folder / "masks" / f"{name}.tif"


def arrays(dtype=np.uint8, shape=(150, 200, 3)):
    """A random image, and a mask of the labels 0 to 2."""
    rng = np.random.default_rng(0)
    image = rng.random(shape)
    image = (image * np.iinfo(dtype).max).astype(dtype) if dtype != np.float32 else image.astype(dtype)
    return image, rng.integers(0, 3, shape[:2]).astype(np.uint8)
