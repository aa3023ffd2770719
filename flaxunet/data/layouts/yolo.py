"""Ultralytics YOLO's polygons as text enter; images with classes, or with numbered objects, leave.

Each line is a class, from 0, and x and y of the corners in parts of the image's width and height. The text
has the image's name and lies in labels/ instead of images/, or beside the image; an image without one is
background. Class c becomes label c + 1. Where polygons overlap, the later line wins.

Source: https://docs.ultralytics.com/datasets/segment/.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from flaxunet.data.layouts.folders import image_files
from flaxunet.data.layouts.polygons import fill
from flaxunet.data.record import SPLITS, DataError, Listing, Options, Pair, Record, read_or_refuse

NAMES = ("data.yaml", "data.yml", "dataset.yaml")
PASSED_OVER = (
    "classes.txt",
    "train.txt",
    "val.txt",
    "test.txt",
    "readme.txt",
    "class_names.txt",
    "notes.txt",
)
ACCEPTED = "accepted is a class and x, y of three corners or more in [0, 1]"


def recognize(root: Path) -> str | None:
    """What makes it this layout, or None."""
    for _, images, labels in _parts(root):
        stems = image_files(images, [])
        for name in _texts(labels):
            if name in stems:
                return f"{name}.txt in {labels.relative_to(root)}/" if labels != root else f"{name}.txt"
    return None


def find(root: Path, options: Options) -> Listing:
    """A sample for each image."""
    problems: list[str] = []
    interpretation, records, top = [], [], -1
    names = _names(root, problems)
    for split, images, labels in _parts(root):
        files, texts = image_files(images, problems), _texts(labels)
        problems += [
            f"{path}: no image of this name in {images}" for n, path in texts.items() if n not in files
        ]
        for text in texts.values():
            top = max([top, *(int(line.split()[0]) for line in _lines(text) if line.split()[0].isdecimal())])
        for name, image in files.items():
            text = texts.get(name)
            count = len(names) - 1 if names else None
            read = partial(_read, image, text, count, options.objects)
            opened = (image,) if text is None else (image, text)
            records.append(Record(name, image, text or labels / f"{name}.txt", read, split, files=opened))
        kind = "numbered objects" if options.objects else "classes"
        with_text = sum(name in texts for name in files)
        interpretation.append(
            f"{images}: {len(files)} images, {with_text} of them with polygons in {labels} as {kind}"
        )
    if names is None:
        names = ("background", *(f"class {label}" for label in range(1, top + 2)))
    return Listing(
        root, "yolo", tuple(interpretation), tuple(records), tuple(problems), names, options.objects
    )


def _parts(root: Path) -> Iterator[tuple[str | None, Path, Path]]:
    """Splits with their folders of images and of labels: above or below images/ and labels/, or one set."""
    found = False
    for split, spelt in SPLITS.items():
        for name in spelt:
            for images, labels in (
                (root / name / "images", root / name / "labels"),
                (root / "images" / name, root / "labels" / name),
                (root / name, root / name),
            ):
                if (
                    images.is_dir()
                    and labels.is_dir()
                    and any(images.iterdir())
                    and not (images / "images").is_dir()
                ):
                    found = True
                    yield split, images, labels
                    break
    if not found and root.is_dir():
        apart = (root / "images").is_dir()
        yield None, *((root / "images", root / "labels") if apart else (root, root))


def _texts(folder: Path) -> dict[str, Path]:
    paths = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    return {path.stem: path for path in paths if path.name.lower() not in PASSED_OVER}


def _names(root: Path, problems: list[str]) -> tuple[str, ...] | None:
    """Class names of data.yaml, background first."""
    path = next((root / name for name in NAMES if (root / name).is_file()), None)
    if path is None:
        return None
    import yaml

    try:
        names = yaml.safe_load(path.read_bytes())["names"]
        pairs = dict(enumerate(names)) if isinstance(names, list) else {int(key): names[key] for key in names}
        return ("background", *(str(pairs[place]) for place in range(len(pairs))))
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        problems.append(f"{path}: no names that are numbered from 0; accepted is a list or a table of them")
        return None


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip()]


def _read(image: Path, text: Path | None, count: int | None, objects: bool) -> Pair:
    array = read_or_refuse(image)
    height, width = array.shape[:2]
    mask, problems = np.zeros((height, width), np.int32), []
    for number, line in enumerate(_lines(text) if text else (), 1):
        try:
            first, *rest = line.split()
            kind, corners = int(first), np.array(rest, np.float64)
        except ValueError:
            problems.append(f"{text}, line {number}: {line[:40]!r}; {ACCEPTED}")
            continue
        if len(corners) == 4:
            problems.append(f"{text}, line {number}: a box; {ACCEPTED}")
        elif len(corners) < 6 or len(corners) % 2 or not ((corners >= -0.01) & (corners <= 1.01)).all():
            problems.append(f"{text}, line {number}: {len(corners)} numbers; {ACCEPTED}")
        elif kind < 0 or (count is not None and kind >= count):
            problems.append(f"{text}, line {number}: class {kind}; accepted are 0 to {(count or 1) - 1}")
        else:
            covered = fill(corners.reshape(-1, 2) * np.array([[width, height]]), height, width)
            mask[covered] = number if objects else kind + 1
    if problems:
        raise DataError(problems)
    return array, mask
