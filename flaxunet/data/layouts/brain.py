"""Lists the embedded data: axial slices of an average human brain MRI with gray and white matter, at 1 mm.

The maps are the ICBM 152 2009a symmetric averages of 152 healthy adults: T1-weighted MRI, skull-stripped, and
the probabilities of gray and white matter, 197 x 233 x 189 voxels of uint8. The nilearn package carries them.

Source: Fonov et al. 2011, Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54.
"""

from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path

import numpy as np

from flaxunet.data.record import Listing, Options, Pair, Record
from flaxunet.io import planes, volumes

ROOT = Path("brain")  # the path that stands for this data
NAME = "ICBM 152 average brain MRI"
CLASS_NAMES = ("background", "gray matter", "white matter")

# Neighbouring slices are nearly copies, so each split is made of whole slabs, with 10 unused slices (10 mm)
# between it and the others. Training has slabs on both sides of the other two, and sees the deep gray matter,
# around slice 75, which looks like nothing else in the brain.
TRAIN = (*range(15, 85), *range(137, 151))
VALIDATION = tuple(range(95, 104))
TEST = tuple(range(114, 127))
GAP = 10
FOLDED = (*range(15, 104), *range(137, 151))  # all that is far enough from the test

# The brain lies in rows 25..205 and columns 26..170; what else the scan holds is black.
ROWS, COLUMNS = slice(20, 212), slice(18, 178)


def recognize(root: Path) -> str | None:
    """Names this data if the path is `ROOT` and no folder has that name; else returns None."""
    return f"the {NAME}" if root == ROOT and not root.exists() else None


def find(root: Path, options: Options) -> Listing:
    """Lists a sample for each slice, in the splits of the default training."""
    listing = Listing(root, "brain", class_names=CLASS_NAMES)
    if root != ROOT:
        listing.problems.append(f"{root}: is not the {NAME}; expected {ROOT} with --layout brain")
    if options.axis != "axial":
        listing.problems.append(f"{root}: --axis is {options.axis}; expected axial")
    t1, gray, _ = maps = tuple(map(_map_file, ("t1", "gm", "wm")))
    for split, slab in splits().items():
        for z in slab:
            read, part = partial(_read_slice, z), f"axial slice {z}"
            listing.records.append(Record(f"slice{z:03}", t1, gray, read, split, None, part, part, maps))
    count = len(listing.records)
    listing.interpretation.append(f"{NAME}, which comes with nilearn: {count} axial slices")
    return listing


def splits(fold: tuple[int, int] = (1, 1)) -> dict[str, tuple[int, ...]]:
    """Splits the axial slices.

    Args:
      fold: (i, k): all slices but those near the test are cut into k stacks of neighbours. Validation is the
        i-th, counted from 1, and training what is far enough from it. (1, 1) is the fixed cut.
    Returns: the numbers of the slices of each split.
    """
    if fold == (1, 1):
        return {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    validation = np.array_split(FOLDED, fold[1])[fold[0] - 1]
    train = tuple(z for z in FOLDED if np.abs(validation - z).min() > GAP)
    return {"train": train, "validation": tuple(validation.tolist()), "test": TEST}


def read() -> tuple[np.ndarray, np.ndarray]:
    """Reads all axial slices, from the neck up, as a radiologist looks at them.

    The front of the head is up and the patient's right is on the left. A pixel's class is the most probable
    of gray matter, white matter and, for what remains of the probability, background (which holds the fluid).

    Returns: image (189, 192, 160, 1) float32 in [0, 1] and label (189, 192, 160) int32 in 0..2.
    Raises: FileNotFoundError if the installed nilearn keeps its maps elsewhere.
    """
    intensity, gray, white = map(_read_map, ("t1", "gm", "wm"))
    background = 255 - np.minimum(gray.astype(np.int16) + white, 255)
    label = np.argmax(np.stack([background, gray, white]), axis=0).astype(np.int32)
    return intensity[..., None].astype(np.float32) / np.float32(255), label


_read_once = lru_cache(maxsize=1)(read)


def _read_slice(z: int) -> Pair:
    image, label = _read_once()
    return image[z], label[z]


def _map_file(name: str) -> Path:
    # The files themselves: nilearn's loaders give the same numbers but take two seconds to import.
    folder = Path(str(files("nilearn"))) / "datasets" / "data"
    return folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"


def _read_map(name: str) -> np.ndarray:
    """(189, 192, 160) uint8: slice, row, column."""
    voxels = volumes.read_ras_voxels(_map_file(name))[..., 0]
    return np.ascontiguousarray(planes.slices(voxels, "axial")[:, ROWS, COLUMNS])
