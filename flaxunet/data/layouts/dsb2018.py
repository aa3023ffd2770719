"""A folder for each image enters, as in the 2018 Data Science Bowl; images with numbered objects leave.

ID/images/ holds one picture, ID/masks/ one for each object, in which all that is not 0 is the object. IDs lie
in the folder itself, or in train/, val/ and test/ below it. Objects are numbered in the order of their files'
names; where two overlap, the later one wins.

Source: Caicedo et al. 2019, Nucleus segmentation across imaging experiments, Nature Methods 16.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from flaxunet.data.layouts.folders import image_files
from flaxunet.data.record import (
    SPLITS,
    DataError,
    Listing,
    Options,
    Pair,
    Record,
    check_sizes,
    existing_folder,
    parse_split,
    read_or_refuse,
)
from flaxunet.io.images import ImageError, read_mask


def recognize(root: Path) -> str | None:
    """What makes it this layout, or None."""
    place = next((folder for _, folder in _parts(root, []) if any(_samples(folder))), None)
    return None if place is None else f"{next(_samples(place)).name}/ with images/ and masks/"


def find(root: Path, options: Options) -> Listing:
    """A sample for each ID."""
    problems: list[str] = []
    interpretation, records = [], []
    for split, folder in _parts(root, problems):
        mine = list(filter(None, (_record(one, split, problems) for one in _samples(folder))))
        if mine:
            count = sum(len(record.files) - 1 for record in mine)
            interpretation.append(f"{folder}: {len(mine)} folders as images, {count} masks as their objects")
        records += mine
    if not records and not problems:
        problems.append(f"{root}: no folder with images/ and masks/ in it; accepted is one for each image")
    return Listing(root, "dsb2018", tuple(interpretation), tuple(records), tuple(problems), instances=True)


def _parts(root: Path, problems: list[str]) -> Iterator[tuple[str | None, Path]]:
    """Where the samples of each split lie."""
    folders = {split: existing_folder(root, names, problems) for split, names in SPLITS.items()}
    given = {split: folder for split, folder in folders.items() if folder is not None}
    yield from given.items() if given else ((None, root),)


def _samples(folder: Path) -> Iterator[Path]:
    for one in sorted(folder.iterdir()) if folder.is_dir() else ():
        if parse_split(one.name) is None and (one / "images").is_dir() and (one / "masks").is_dir():
            yield one


def _record(folder: Path, split: str | None, problems: list[str]) -> Record | None:
    images, masks = (list(image_files(folder / kind, problems).values()) for kind in ("images", "masks"))
    if len(images) > 1:
        problems.append(f"{folder / 'images'}: {len(images)} images; accepted is one")
    if not images or not masks:
        return None
    read = partial(_read, images[0], tuple(masks))
    return Record(folder.name, images[0], folder / "masks", read, split, files=(images[0], *masks))


def _read(image: Path, masks: tuple[Path, ...]) -> Pair:
    array = read_or_refuse(image)
    objects, problems = np.zeros(array.shape[:2], np.int32), []
    for number, path in enumerate(masks, 1):
        try:
            mask = read_mask(path)
            check_sizes(array.shape, mask.shape, str(path))
            objects[mask != 0] = number
        except ImageError as error:
            problems.append(str(error))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return array, objects
