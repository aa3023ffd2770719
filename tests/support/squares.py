"""A folder of small images and masks that any network learns."""

from pathlib import Path

import numpy as np
from PIL import Image


def make_data(root: Path, side: int = 4) -> Path:
    """Twelve images of 5 x 6 squares of a side in pixels, the bright ones of which are the foreground."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(12):
        mask = np.kron(rng.integers(0, 2, (5, 6)), np.ones((side, side))).astype(np.uint8)
        image = np.clip(60 + 120 * mask + rng.normal(0, 20, mask.shape), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(root / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number:02}.png")
    return root
