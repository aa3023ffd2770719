"""Lists folders of image files and of mask files: one set of pairs, or a set for each split.

Images lie in images/ and masks in masks/ or labels/ under equal names, or the masks' names end with one of
`MASK_SUFFIXES`; then both may lie in one folder. There may be one such set, or one for each of train/, val/
and test/, which lie above or below images/ and masks/.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from flaxunet.data.record import SPLITS, Listing, Options, Record, existing_folder, read_pair, unmatched
from flaxunet.io.images import SUFFIXES

MASK_SUFFIXES = ("_mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt")
MASKS = ("masks", "labels")
CLASS_NAMES = "class_names.txt"
EXPECTED = (
    "expected a folder with images/ and masks/ (or labels/), or with train/, val/ and test/ that each have "
    "those, or another layout of docs/reference/layouts.md"
)

Pairs = dict[str, tuple[Path, Path]]


def recognize_single(root: Path) -> str | None:
    """Names the evidence for one set of images and masks; None if there is none."""
    if not root.is_dir() or any(_nested(root)):
        return None
    masks = _masks_folder(root)
    if masks is not None:
        return f"images/ with {masks.name}/"
    endings = _mask_endings(root)
    return f"names that end with {endings}" if endings else None


def recognize_splits(root: Path) -> str | None:
    """Names the evidence for a set for each split; None if there is none."""
    if not root.is_dir():
        return None
    nested = [f"images/{folder.name}/" for folder, _ in _nested(root)]
    folders = [root / name for names in SPLITS.values() for name in names]
    plain = [f"{folder.name}/" for folder in folders if _masks_folder(folder) or _mask_endings(folder)]
    return ", ".join(nested or plain) or None


def find_single(root: Path, options: Options) -> Listing:
    """Lists the pairs of one set; the split is not known."""
    problems: list[str] = []
    interpretation, pairs = _pairs(root, problems)
    return _listing(root, "folders", interpretation, {None: pairs}, problems)


def find_splits(root: Path, options: Options) -> Listing:
    """Lists the pairs of a set for each split."""
    problems: list[str] = []
    interpretation: list[str] = []
    splits: dict[str | None, Pairs] = {}
    nested = dict(_nested(root))
    for split, names in SPLITS.items():
        folder = existing_folder(root / "images" if nested else root, names, problems)
        if folder is not None:
            lines, splits[split] = (
                _match_folders(folder, nested[folder], problems) if nested else _pairs(folder, problems)
            )
            interpretation += lines
        elif split == "train":
            problems.append(f"{root}: no train/; {EXPECTED}")
    return _listing(root, "splits", interpretation, splits, problems)


def find_instances(root: Path, options: Options) -> Listing:
    """Lists the pairs of either, whose masks hold numbers of objects."""
    plain = (find_splits if recognize_splits(root) else find_single)(root, options)
    return Listing(root, "instances", plain.interpretation, plain.records, plain.problems, instances=True)


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


def _listing(
    root: Path,
    layout: str,
    interpretation: list[str],
    splits: Mapping[str | None, Pairs],
    problems: list[str],
) -> Listing:
    records = [
        Record(name, image, mask, partial(read_pair, image, mask), split, files=(image, mask))
        for split, pairs in splits.items()
        for name, (image, mask) in pairs.items()
    ]
    path, names = root / CLASS_NAMES, None
    if path.is_file():
        names = tuple(line.strip() for line in path.read_text("utf-8").split("\n") if line.strip())
        interpretation = [*interpretation, f"{path.name} for the names of {len(names)} classes"]
    return Listing(root, layout, tuple(interpretation), tuple(records), tuple(problems), names)


def _pairs(folder: Path, problems: list[str]) -> tuple[list[str], Pairs]:
    """The interpretation of a folder, and the image and mask of every name that has both, sorted by name."""
    if (folder / "images").is_dir():
        masks = existing_folder(folder, MASKS, problems)
        if masks is not None:
            return _match_folders(folder / "images", masks, problems)
        problems.append(f"{folder}: no masks/ or labels/; {EXPECTED}")
        return [], {}
    endings = _mask_endings(folder)
    if endings is None:
        missing = (
            "a file" if folder.is_file() else "no images/ in it" if folder.is_dir() else "no such folder"
        )
        problems.append(f"{folder}: {missing}; {EXPECTED}")
        return [], {}
    files = image_files(folder, problems)
    masks = {name: path for name, path in files.items() if without_ending(name) != name}
    images = {name: path for name, path in files.items() if name not in masks}
    pairs = _match(images, masks, folder, folder, problems)
    return [f"{folder}: {len(pairs)} files as images, those that end with {endings} as masks"], pairs


def _match_folders(images: Path, masks: Path, problems: list[str]) -> tuple[list[str], Pairs]:
    files = image_files(images, problems), image_files(masks, problems)
    pairs = _match(*files, images, masks, problems) if all(files) else {}
    return [f"{images} as images, {masks} as masks: {len(pairs)} pairs"], pairs


def _match(
    images: dict[str, Path],
    masks: dict[str, Path],
    images_folder: Path,
    masks_folder: Path,
    problems: list[str],
) -> Pairs:
    """Matches each image with the mask of its name, or of its name and a suffix."""
    by_image: dict[str, Path] = {}
    for name, path in masks.items():
        image = name if name in images else without_ending(name)
        if image in by_image:
            problems.append(f"{path}: the same image as {by_image[image].name}; expected one mask per image")
        by_image[image] = path
    problems += unmatched(images, by_image, "mask", masks_folder)
    problems += unmatched(by_image, images, "image", images_folder)
    return {name: (image, by_image[name]) for name, image in images.items() if name in by_image}


def _mask_endings(folder: Path) -> str | None:
    """The suffixes of masks that lie beside their images, or None."""
    names = {path.stem for path in _images_in(folder)}
    endings = {
        name[len(without_ending(name)) :]
        for name in names
        if without_ending(name) != name and without_ending(name) in names
    }
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
        for name in (name for names in SPLITS.values() for name in names):
            if (root / "images" / name).is_dir() and any(_images_in(masks / name)):
                yield root / "images" / name, masks / name
