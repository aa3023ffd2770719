"""Folders of image files and of mask files enter; their pairs leave.

Images lie in images/ and masks in masks/ or labels/ under equal names, or the masks' names end with one of
`MASK_SUFFIXES`; then both may lie in one folder too. There may be one such set, or one for each of train/,
val/ and test/, which lie above or below images/ and masks/.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from flaxunet.data.record import SPLITS, Listing, Options, Record, existing_folder, read_pair
from flaxunet.io.images import SUFFIXES

MASK_SUFFIXES = ("_mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt")
MASKS = ("masks", "labels")
CLASS_NAMES = "class_names.txt"
ACCEPTED = (
    "a folder with images/ and masks/ (or labels/), or with train/, val/ and test/ that each have those, "
    "or another layout of docs/reference/layouts.md"
)

Files = dict[str, tuple[Path, Path]]


def recognize_single(root: Path) -> str | None:
    """What makes it one set of images and masks, or None."""
    if not root.is_dir() or any(_nested(root)):
        return None
    masks = _masks_folder(root)
    if masks is not None:
        return f"images/ with {masks.name}/"
    ending = _flat(root)
    return f"names that end with {ending}" if ending else None


def recognize_split(root: Path) -> str | None:
    """What makes it a set for each split, or None."""
    if not root.is_dir():
        return None
    nested = [f"images/{folder.name}/" for folder, _ in _nested(root)]
    folders = [root / name for names in SPLITS.values() for name in names]
    seen = [f"{folder.name}/" for folder in folders if _masks_folder(folder) or _flat(folder)]
    return ", ".join(nested or seen) or None


def find_single(root: Path, options: Options) -> Listing:
    """The pairs of one set; the split is not known."""
    problems: list[str] = []
    interpretation, pairs = _pairs(root, problems)
    return _found(root, "folders", interpretation, {None: pairs}, problems)


def find_split(root: Path, options: Options) -> Listing:
    """The pairs of a set for each split."""
    problems: list[str] = []
    interpretation: list[str] = []
    splits: dict[str | None, Files] = {}
    nested = dict(_nested(root))
    for split, names in SPLITS.items():
        folder = existing_folder(root / "images" if nested else root, names, problems)
        if folder is not None:
            more, splits[split] = (
                _set(folder, nested[folder], problems) if nested else _pairs(folder, problems)
            )
            interpretation += more
        elif split == "train":
            problems.append(f"{root}: no train/; accepted is {ACCEPTED}")
    return _found(root, "splits", interpretation, splits, problems)


def find_instances(root: Path, options: Options) -> Listing:
    """The pairs of either, whose masks hold numbers of objects."""
    found = (find_split if recognize_split(root) else find_single)(root, options)
    return Listing(root, "instances", found.interpretation, found.records, found.problems, instances=True)


def image_files(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Image files by name without suffix; hidden files, other suffixes and folders are passed over."""
    files: dict[str, Path] = {}
    for path in _listed(folder):
        if path.stem in files:
            problems.append(
                f"{path}: the same name as {files[path.stem].name}; accepted is one file of a name"
            )
        files[path.stem] = path
    if not files:
        problems.append(f"{folder}: no image files; accepted are {', '.join(SUFFIXES)}")
    return dict(sorted(files.items()))


def _found(
    root: Path, layout: str, interpretation: list[str], splits: dict[str | None, Files], problems: list[str]
) -> Listing:
    records = [
        Record(name, image, mask, partial(read_pair, image, mask), split, files=(image, mask))
        for split, pairs in splits.items()
        for name, (image, mask) in pairs.items()
    ]
    names = root / CLASS_NAMES
    class_names = tuple(names.read_text("utf-8").split("\n")) if names.is_file() else None
    if class_names is not None:
        class_names = tuple(name.strip() for name in class_names if name.strip())
        interpretation = [*interpretation, f"{names.name} for the names of {len(class_names)} classes"]
    return Listing(root, layout, tuple(interpretation), tuple(records), tuple(problems), class_names)


def _pairs(folder: Path, problems: list[str]) -> tuple[list[str], Files]:
    """Image and mask of every name that has both, sorted by name, and the lines of the interpretation."""
    if (folder / "images").is_dir():
        masks = existing_folder(folder, MASKS, problems)
        if masks is not None:
            return _set(folder / "images", masks, problems)
        problems.append(f"{folder}: no masks/ or labels/; accepted is {ACCEPTED}")
        return [], {}
    ending = _flat(folder)
    if ending is None:
        missing = f"no images/ in {folder}" if folder.is_dir() else "no such folder"
        missing = "a file" if folder.is_file() else missing
        problems.append(f"{folder}: {missing}; accepted is {ACCEPTED}")
        return [], {}
    files = image_files(folder, problems)
    masks = {name: path for name, path in files.items() if without_ending(name) != name}
    images = {name: path for name, path in files.items() if name not in masks}
    pairs = _match(images, masks, folder, folder, problems)
    return [f"{folder}: {len(pairs)} files as images, those that end with {ending} as masks"], pairs


def _set(images: Path, masks: Path, problems: list[str]) -> tuple[list[str], Files]:
    found = image_files(images, problems), image_files(masks, problems)
    pairs = _match(*found, images, masks, problems) if all(found) else {}
    return [f"{images} as images, {masks} as masks: {len(pairs)} pairs"], pairs


def _match(
    images: dict[str, Path], masks: dict[str, Path], here: Path, there: Path, problems: list[str]
) -> Files:
    """Each image with the mask of its name, or of its name and a suffix."""
    by_image: dict[str, Path] = {}
    for name, path in masks.items():
        wanted = name if name in images else without_ending(name)
        if wanted in by_image:
            problems.append(
                f"{path}: a mask of the same name as {by_image[wanted].name}; accepted is one for an image"
            )
        by_image[wanted] = path
    problems += [
        f"{path}: no mask of this name in {there}" for n, path in images.items() if n not in by_image
    ]
    problems += [
        f"{path}: no image of this name in {here}" for n, path in by_image.items() if n not in images
    ]
    return {name: (image, by_image[name]) for name, image in images.items() if name in by_image}


def without_ending(name: str) -> str:
    """A mask's name without its suffix; a name without one as it is."""
    ending = next((end for end in MASK_SUFFIXES if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)] or name


def _flat(folder: Path) -> str | None:
    """The endings of masks that lie beside their images, or None."""
    names = {path.stem for path in _listed(folder)}
    endings = {
        name[len(without_ending(name)) :]
        for name in names
        if without_ending(name) != name and without_ending(name) in names
    }
    return ", ".join(sorted(endings)) or None


def _listed(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path


def _masks_folder(folder: Path) -> Path | None:
    """The masks beside images/, unless they are text, which is another layout's."""
    masks = next((folder / name for name in MASKS if (folder / name).is_dir()), None)
    if masks is None or not (folder / "images").is_dir():
        return None
    return None if any(masks.rglob("*.txt")) and not any(_listed(masks)) else masks


def _nested(root: Path) -> Iterator[tuple[Path, Path]]:
    """Folders of images below images/ that are named as splits, with those of their masks."""
    for masks in (root / name for name in MASKS):
        for name in (name for names in SPLITS.values() for name in names):
            if (root / "images" / name).is_dir() and any(_listed(masks / name)):
                yield root / "images" / name, masks / name
