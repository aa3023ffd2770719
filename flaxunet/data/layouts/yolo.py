"""Lists images with Ultralytics YOLO's polygons as text, filled as classes or as numbered objects.

Each line is a class, from 0, and x and y of the corners as fractions of the image's width and height. The
text has the image's name and lies in labels/ instead of images/, or beside the image; an image without one is
background. Class c becomes label c + 1. Where polygons overlap, the later line wins.

Source: https://docs.ultralytics.com/datasets/segment/.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from flaxunet.data.layouts.folders import image_files
from flaxunet.data.layouts.polygons import fill
from flaxunet.data.record import DataError, Listing, Options, Pair, Record, load_image, unmatched
from flaxunet.data.split import SPLITS

NAMES = ("data.yaml", "data.yml", "dataset.yaml")
SKIPPED = ("classes", "train", "val", "test", "readme", "class_names", "notes")  # .txt that are no labels
EXPECTED = "expected a class, then x and y in [0, 1] of three corners or more"


def recognize(root: Path) -> str | None:
    """Names the first text with an image of its name; None if there is none."""
    for _, images, labels in _splits(root):
        stems = image_files(images, [])
        for name in _texts(labels):
            if name in stems:
                return f"{name}.txt in {labels.relative_to(root)}/" if labels != root else f"{name}.txt"
    return None


def find(root: Path, options: Options) -> Listing:
    """Lists a sample for each image."""
    listing, top = Listing(root, "yolo", instances=options.objects), -1
    names = _names(root, listing.problems)
    count = len(names) - 1 if names else None
    kind = "numbered objects" if options.objects else "classes"
    for split, images, labels in _splits(root):
        files, texts = image_files(images, listing.problems), _texts(labels)
        listing.problems += unmatched(texts, files, "image", images)
        words = (line.split()[0] for text in texts.values() for line in _lines(text))
        top = max([top, *(int(word) for word in words if word.isdecimal())])
        for name, image in files.items():
            text = texts.get(name)
            read = partial(_read, image, text, count, options.objects)
            mask, paths = (text, (image, text)) if text else (labels / f"{name}.txt", (image,))
            listing.records.append(Record(name, image, mask, read, split, files=paths))
        about = f"{sum(name in texts for name in files)} of them with polygons in {labels} as {kind}"
        listing.interpretation.append(f"{images}: {len(files)} images, {about}")
    listing.class_names = names or ("background", *(f"class {label}" for label in range(1, top + 2)))
    return listing


def _splits(root: Path) -> Iterator[tuple[str | None, Path, Path]]:
    """Splits with their folders of images and of labels: above or below images/ and labels/, or one set."""
    has_splits = False
    for split, name in ((split, name) for split, names in SPLITS.items() for name in names):
        for pattern in ("{split}/{kind}", "{kind}/{split}", "{split}"):
            images, labels = (root / pattern.format(split=name, kind=kind) for kind in ("images", "labels"))
            both = images.is_dir() and labels.is_dir()
            if both and any(images.iterdir()) and not (images / "images").is_dir():
                has_splits = True
                yield split, images, labels
                break
    if not has_splits and root.is_dir():
        yield None, *((root / "images", root / "labels") if (root / "images").is_dir() else (root, root))


def _texts(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.txt")) if path.stem.lower() not in SKIPPED}


def _names(root: Path, problems: list[str]) -> tuple[str, ...] | None:
    """Class names of data.yaml, background first, or None without that file."""
    path = next((root / name for name in NAMES if (root / name).is_file()), None)
    if path is None:
        return None
    import yaml

    try:
        names = yaml.safe_load(path.read_bytes())["names"]
        pairs = dict(enumerate(names)) if isinstance(names, list) else {int(key): names[key] for key in names}
        return ("background", *(str(pairs[place]) for place in range(len(pairs))))
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        problems.append(f"{path}: no class names; expected a list of names, or a table of numbers from 0")
        return None


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip()]


def _read(path: Path, text: Path | None, count: int | None, objects: bool) -> Pair:
    image = load_image(path)
    height, width = image.shape[:2]
    mask, problems = np.zeros((height, width), np.int32), []
    for number, line in enumerate(_lines(text) if text else (), 1):
        where = f"{text}, line {number}: "
        try:
            first, *rest = line.split()
            category, corners = int(first), np.array(rest, np.float64)
        except ValueError:
            problems.append(f"{where}{line[:40]!r}; {EXPECTED}")
            continue
        if len(corners) == 4:
            problems.append(f"{where}a box; {EXPECTED}")
        elif len(corners) < 6 or len(corners) % 2 or not ((corners >= -0.01) & (corners <= 1.01)).all():
            problems.append(f"{where}{len(corners)} numbers; {EXPECTED}")
        elif category < 0 or (count is not None and category >= count):
            highest = "up" if count is None else f"to {count - 1}"
            problems.append(f"{where}class {category}; expected 0 {highest}")
        else:
            covered = fill(corners.reshape(-1, 2) * [[width, height]], height, width)
            mask[covered] = number if objects else category + 1
    if problems:
        raise DataError(problems)
    return image, mask
