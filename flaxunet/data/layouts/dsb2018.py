"""Lists a folder for each image, as in the 2018 Data Science Bowl, with a mask for each object.

ID/images/ holds one picture, ID/masks/ one for each object, in which every value but 0 is the object. IDs lie
in the folder itself, or in train/, val/ and test/ below it. Objects are numbered in the order of their files'
names; where two overlap, the later one wins.

Source: Caicedo et al. 2019, Nucleus segmentation across imaging experiments, Nature Methods 16.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from flaxunet.data.layouts.folders import image_files
from flaxunet.data.record import DataError, Listing, Options, Pair, Record, check_sizes, load_image
from flaxunet.data.split import SPLITS, existing_folder, parse_split
from flaxunet.io.images import ImageError, read_mask


def recognize(root: Path) -> str | None:
    """Names the first folder of an image and its masks; None if there is none."""
    first = next((one for _, folder in _splits(root, []) for one in _samples(folder)), None)
    return None if first is None else f"{first.name}/ with images/ and masks/"


def find(root: Path, options: Options) -> Listing:
    """Lists a sample for each ID."""
    listing = Listing(root, "dsb2018", instances=True)
    problems = listing.problems
    for split, folder in _splits(root, problems):
        records = list(filter(None, (_record(one, split, problems) for one in _samples(folder))))
        if records:
            about = f"{sum(len(record.files) - 1 for record in records)} masks as their objects"
            listing.interpretation.append(f"{folder}: {len(records)} folders as images, {about}")
        listing.records += records
    if not listing.records and not problems:
        problems.append(f"{root}: no folder with images/ and masks/ in it; expected one for each image")
    return listing


def _splits(root: Path, problems: list[str]) -> Sequence[tuple[str | None, Path]]:
    """The folder of each split, or the root where there are none."""
    folders = [(split, existing_folder(root, names, problems)) for split, names in SPLITS.items()]
    return [(split, folder) for split, folder in folders if folder] or [(None, root)]


def _samples(folder: Path) -> Iterator[Path]:
    for one in sorted(folder.iterdir()) if folder.is_dir() else ():
        if parse_split(one.name) is None and (one / "images").is_dir() and (one / "masks").is_dir():
            yield one


def _record(folder: Path, split: str | None, problems: list[str]) -> Record | None:
    images, masks = (list(image_files(folder / kind, problems).values()) for kind in ("images", "masks"))
    if len(images) > 1:
        problems.append(f"{folder / 'images'}: {len(images)} images; expected one")
    if not images or not masks:
        return None
    read = partial(_read, images[0], tuple(masks))
    return Record(folder.name, images[0], folder / "masks", read, split, files=(images[0], *masks))


def _read(path: Path, masks: tuple[Path, ...]) -> Pair:
    image = load_image(path)
    objects, problems = np.zeros(image.shape[:2], np.int32), []
    for number, mask_path in enumerate(masks, 1):
        try:
            mask = read_mask(mask_path)
            check_sizes(image.shape, mask.shape, str(mask_path))
            objects[mask != 0] = number
        except (ImageError, DataError) as error:
            problems.append(str(error))
    if problems:
        raise DataError(problems)
    return image, objects
