"""Lists folders of image files and of mask files: one set of pairs, or a set for each split.

Images lie in images/ and masks in masks/ or labels/ under equal names, or the masks' names end with one of
`MASK_SUFFIXES`; then both may lie in one folder. There may be one such set, or one for each of train/, val/
and test/, which lie above or below images/ and masks/.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from flaxunet.data.record import Listing, Options, of_files, unmatched
from flaxunet.data.split import SPLIT_NAMES, SPLITS, existing_folder
from flaxunet.io.images import SUFFIXES

MASK_SUFFIXES = ("_mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt")
MASKS = ("masks", "labels")
CLASS_NAMES = "class_names.txt"
EXPECTED = (
    "expected a folder with images/ and masks/ (or labels/), or with train/, val/ and test/ that each have "
    "those, or another layout of docs/reference/layouts.md"
)


def recognize_single(root: Path) -> str | None:
    """Names the evidence for one set of images and masks; None if there is none."""
    if any(_nested(root)):
        return None
    masks, endings = _masks_folder(root), _mask_endings(root)
    if masks is not None:
        return f"images/ with {masks.name}/"
    return f"names that end with {endings}" if endings else None


def recognize_splits(root: Path) -> str | None:
    """Names the evidence for a set for each split; None if there is none."""
    nested = [f"images/{folder.name}/" for folder, _ in _nested(root)]
    plain = [f"{one}/" for one in SPLIT_NAMES if _masks_folder(root / one) or _mask_endings(root / one)]
    return ", ".join(nested or plain) or None


def find_single(root: Path, options: Options) -> Listing:
    """Lists the pairs of one set; the split is not known."""
    listing = Listing(root, "folders")
    _list_set(root, None, listing)
    return _with_class_names(listing)


def find_splits(root: Path, options: Options) -> Listing:
    """Lists the pairs of a set for each split."""
    listing, nested = Listing(root, "splits"), dict(_nested(root))
    for split, names in SPLITS.items():
        folder = existing_folder(root / "images" if nested else root, names, listing.problems)
        if folder is None:
            if split == "train":
                listing.problems.append(f"{root}: no train/; {EXPECTED}")
        elif nested:
            _list_pairs(folder, nested[folder], split, listing)
        else:
            _list_set(folder, split, listing)
    return _with_class_names(listing)


def find_instances(root: Path, options: Options) -> Listing:
    """Lists the pairs of either, whose masks hold numbers of objects."""
    listing = (find_splits if recognize_splits(root) else find_single)(root, options)
    return dataclasses.replace(listing, layout="instances", class_names=None, instances=True)


def image_files(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Lists image files by name without suffix; hidden files, other suffixes and folders are skipped."""
    files: dict[str, Path] = {}
    for path in _images_in(folder):
        if path.stem in files:
            problems.append(f"{path}: the same name as {files[path.stem].name}; expected one file of a name")
        files[path.stem] = path
    if not files:
        problems.append(f"{folder}: no image files; expected {', '.join(SUFFIXES)}")
    return dict(sorted(files.items()))


def without_ending(name: str) -> str:
    """Strips a mask's name of its suffix of `MASK_SUFFIXES`, if it has one."""
    ending = next((end for end in MASK_SUFFIXES if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)] or name


def _with_class_names(listing: Listing) -> Listing:
    path = listing.root / CLASS_NAMES
    if path.is_file():
        names = tuple(line.strip() for line in path.read_text("utf-8").split("\n") if line.strip())
        listing.class_names = names
        listing.interpretation.append(f"{path.name} for the names of {len(names)} classes")
    return listing


def _list_set(folder: Path, split: str | None, listing: Listing) -> None:
    """Lists the pairs of a folder, where masks lie beside images/ or beside their images."""
    if (folder / "images").is_dir():
        masks = existing_folder(folder, MASKS, listing.problems)
        if masks is None:
            listing.problems.append(f"{folder}: no masks/ or labels/; {EXPECTED}")
        else:
            _list_pairs(folder / "images", masks, split, listing)
    elif _mask_endings(folder) is None:
        lack = "a file" if folder.is_file() else "no images/ in it" if folder.is_dir() else "no such folder"
        listing.problems.append(f"{folder}: {lack}; {EXPECTED}")
    else:
        _list_pairs(folder, folder, split, listing)


def _list_pairs(images_folder: Path, masks_folder: Path, split: str | None, listing: Listing) -> None:
    """Lists each image with the mask of its name, or of its name and a suffix."""
    problems, beside = listing.problems, images_folder == masks_folder
    images = image_files(images_folder, problems)
    if beside:
        masks = {name: images.pop(name) for name in list(images) if without_ending(name) != name}
    else:
        masks = image_files(masks_folder, problems)
    by_image: dict[str, Path] = {}
    for name, path in masks.items() if images else ():
        image = name if name in images else without_ending(name)
        if image in by_image:
            problems.append(f"{path}: the same image as {by_image[image].name}; expected one mask per image")
        by_image[image] = path
    if images and masks:
        problems += unmatched(images, by_image, "mask", masks_folder)
        problems += unmatched(by_image, images, "image", images_folder)
    names = [name for name in images if name in by_image]
    listing.records += [of_files(name, images[name], by_image[name], split) for name in names]
    about = f"{images_folder} as images, {masks_folder} as masks: {len(names)} pairs"
    if beside:
        endings = _mask_endings(images_folder)
        about = f"{images_folder}: {len(names)} files as images, those that end with {endings} as masks"
    listing.interpretation.append(about)


def _mask_endings(folder: Path) -> str | None:
    """The suffixes of masks that lie beside their images, or None."""
    names = {path.stem for path in _images_in(folder)}
    images = {name: without_ending(name) for name in names}
    endings = {name[len(one) :] for name, one in images.items() if one != name and one in names}
    return ", ".join(sorted(endings)) or None


def _images_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path


def _masks_folder(folder: Path) -> Path | None:
    """The masks beside images/, unless they are text, which is another layout's."""
    masks = next((folder / name for name in MASKS if (folder / name).is_dir()), None)
    if masks is None or not (folder / "images").is_dir():
        return None
    return None if any(masks.rglob("*.txt")) and not any(_images_in(masks)) else masks


def _nested(root: Path) -> Iterator[tuple[Path, Path]]:
    """Folders of images below images/ that are named as splits, with those of their masks."""
    for masks in (root / name for name in MASKS):
        for name in SPLIT_NAMES:
            if (root / "images" / name).is_dir() and any(_images_in(masks / name)):
                yield root / "images" / name, masks / name
