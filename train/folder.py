"""A folder of images and masks enters; pairs of files and their arrays leave, and a line for each problem.

A folder holds images/ and masks/ (or labels/), paired by file name without suffix. They lie in the folder
itself, or in train/, val/ (or validation/) and test/ below it. Each of the last two that does not exist is
cut from train: 15 % of it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flaxunet.images import SUFFIXES, ImageError, read_image, read_mask

CUT = 0.15
LISTED = 20  # problems that an error prints

LAYOUT = "a folder with images/ and masks/ (or labels/), or with train/, val/ and test/ that each have those"

Files = dict[str, tuple[Path, Path]]


class DataError(ValueError):
    """All that is wrong with a dataset: one line for each of `problems`, of which `LISTED` are printed."""

    def __init__(self, problems: Sequence[str]):
        self.problems = tuple(problems)
        more = [f"... and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        super().__init__("\n".join([*problems[:LISTED], *more]))


def find(root: Path, *, seed: int, problems: list[str], fold: tuple[int, int] = (1, 1)) -> dict[str, Files]:
    """Find the image and the mask of every sample; nothing is opened.

    Args:
      root: the folder.
      seed: of the cut; the same seed and file names give the same splits.
      problems: a line is appended for each missing, extra or ambiguous file and folder.
      fold: (i, k): validation becomes part i of k of train and validation together, cut by the seed.
    Returns: for "train", "validation" and "test", the files of each name, sorted by name.
    """
    train = root / "train"
    if not train.is_dir():
        train = root
    elif (root / "images").is_dir():
        problems.append(f"{root}: has both images/ and train/; accepted is {LAYOUT}")
    if not (train / "images").is_dir():
        missing = "no such folder" if not root.is_dir() else f"no images/ in {train}"
        problems.append(f"{root}: {missing}; accepted is {LAYOUT}")
        return {"train": {}, "validation": {}, "test": {}}
    splits = {"train": _pairs(train, problems)}
    for split, names in {"validation": ("val", "validation"), "test": ("test",)}.items():
        folder = _one_of(root, names, problems)
        if folder is not None:
            splits[split] = _pairs(folder, problems)
    missing = [split for split in ("validation", "test") if split not in splits]
    if missing:
        if 0 < len(splits["train"]) <= len(missing):
            problems.append(f"{train}: too few pairs to split; accepted are {len(missing) + 1} or more")
        splits |= _cut(splits["train"], missing, seed)
    return splits if fold == (1, 1) else splits | _fold(root, splits, fold, seed, problems)


def read(image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image (H, W, C) and its mask (H, W) as `flaxunet.images` does.

    Raises: DataError if one or both cannot be read or their sizes differ.
    """
    problems, arrays = [], []
    for read_file, path in ((read_image, image), (read_mask, mask)):
        try:
            arrays.append(read_file(path))
        except ImageError as error:
            problems.append(str(error))
    if problems:
        raise DataError(problems)
    image_array, mask_array = arrays
    if image_array.shape[:2] != mask_array.shape:
        sizes = [f"{height} x {width}" for height, width, *_ in (mask_array.shape, image_array.shape)]
        raise DataError([f"{mask}: {sizes[0]} pixels, its image has {sizes[1]}; accepted are equal sizes"])
    return image_array, mask_array


def _one_of(parent: Path, names: Sequence[str], problems: list[str]) -> Path | None:
    """The folder that exists among several spellings."""
    found = [parent / name for name in names if (parent / name).is_dir()]
    if len(found) > 1:
        both = " and ".join(f"{folder.name}/" for folder in found)
        problems.append(f"{parent}: has both {both}; accepted is one of them")
    return found[0] if found else None


def _pairs(folder: Path, problems: list[str]) -> Files:
    """Image and mask of every name that has both, sorted by name."""
    images_folder, masks_folder = folder / "images", _one_of(folder, ("masks", "labels"), problems)
    if masks_folder is None:
        problems.append(f"{folder}: no masks/ or labels/; accepted is {LAYOUT}")
        return {}
    images, masks = _files(images_folder, problems), _files(masks_folder, problems)
    if images and masks:
        problems += [
            f"{images[name]}: no mask of this name in {masks_folder}" for name in images if name not in masks
        ]
        problems += [
            f"{masks[name]}: no image of this name in {images_folder}" for name in masks if name not in images
        ]
    return {name: (image, masks[name]) for name, image in images.items() if name in masks}


def _files(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Image files by name without suffix; hidden files, other suffixes and folders are passed over."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in files:
            problems.append(
                f"{path}: the same name as {files[path.stem].name}; accepted is one file of a name"
            )
        files[path.stem] = path
    if not files:
        problems.append(f"{folder}: no image files; accepted are {', '.join(SUFFIXES)}")
    return dict(sorted(files.items()))


def _cut(pairs: Files, missing: Sequence[str], seed: int) -> dict[str, Files]:
    """Divide pairs among the missing splits and train."""
    # The legacy generator's streams never change: a new numpy must not move test images into train.
    order = np.random.RandomState(seed).permutation(len(pairs))
    names, count = list(pairs), max(1, round(CUT * len(pairs)))
    ends = [count * (place + 1) for place in range(len(missing))]
    chosen = zip((*missing, "train"), np.split(order, ends), strict=True)
    return {split: {names[i]: pairs[names[i]] for i in sorted(places)} for split, places in chosen}


def _fold(
    root: Path, splits: dict[str, Files], fold: tuple[int, int], seed: int, problems: list[str]
) -> dict[str, Files]:
    """Train and validation of a fold: the parts differ by one pair at most, and each pair is in one."""
    train, validation = splits["train"], splits["validation"]
    problems += [
        f"{validation[name][0]}: the same name as {train[name][0]}; accepted with --fold are different names"
        for name in validation
        if name in train
    ]
    pool, (number, count) = dict(sorted((train | validation).items())), fold
    if len(pool) < count:
        problems.append(
            f"{root}: {len(pool)} pairs to fold; accepted with --fold {number}/{count} are {count} or more"
        )
    parts = np.array_split(np.random.RandomState(seed).permutation(len(pool)), count)
    held = set(parts[number - 1].tolist())
    places = dict(enumerate(pool.items()))
    return {
        "train": dict(pair for place, pair in places.items() if place not in held),
        "validation": dict(pair for place, pair in places.items() if place in held),
    }
