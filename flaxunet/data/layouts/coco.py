"""COCO's JSON of polygons and run lengths enters; images with classes, or with numbered objects, leave.

A category's class is its place in the order of ids, from 1. Where annotations overlap, the later one wins.

Source: Lin et al. 2014, Microsoft COCO; the format at https://cocodataset.org/#format-data.
"""

import json
import mmap
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flaxunet.data.layouts.polygons import decode, fill
from flaxunet.data.record import (
    SPLITS,
    DataError,
    Listing,
    Options,
    Pair,
    Record,
    check_sizes,
    parse_split,
    read_or_refuse,
)

KEYS = (b'"images"', b'"annotations"', b'"categories"')
LOCALE = ("", "annotations", *(name for names in SPLITS.values() for name in names))


def recognize(root: Path) -> str | None:
    """What makes it this layout, or None."""
    return (
        ", ".join(str(path.relative_to(root)) if path != root else path.name for path in _files(root)) or None
    )


def find(root: Path, options: Options) -> Listing:
    """A sample for each image. The name of a JSON file, or of its folder, tells the split."""
    problems: list[str] = []
    interpretation: list[str] = []
    records: list[Record] = []
    categories: dict[int, str] = {}
    paths = list(_files(root))
    if not paths:
        problems.append(
            f"{root}: no JSON with images, annotations and categories; accepted is one for a split"
        )
    for path in paths:
        try:
            content = json.loads(path.read_bytes())
            mine = {int(one["id"]): str(one["name"]) for one in content["categories"]}
            if categories and mine != categories:
                problems.append(f"{path}: other categories than {paths[0]}; accepted are equal ones")
                continue
            categories = mine
            more = _records(path, content, options.objects, sorted(categories), problems)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problems.append(f"{path}: {type(error).__name__} {error}; accepted is JSON as COCO's")
            continue
        kind = "numbered objects" if options.objects else f"{len(categories)} classes"
        interpretation.append(
            f"{path}: {len(more)} images, {len(content['annotations'])} annotations as {kind}"
        )
        records += more
    names = ("background", *(categories[key] for key in sorted(categories)))
    return Listing(
        root,
        "coco",
        tuple(interpretation),
        tuple(records),
        tuple(problems),
        names if categories else None,
        options.objects,
    )


def _files(root: Path) -> Iterator[Path]:
    """JSON files that have the keys; none is parsed."""
    candidates = [root] if root.is_file() else []
    for folder in (root / name for name in LOCALE) if root.is_dir() else ():
        candidates += sorted(folder.glob("*.json"))
    for path in candidates:
        if path.suffix.lower() == ".json" and path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                if all(text.find(key) >= 0 for key in KEYS):
                    yield path


def _records(
    path: Path, content: dict[str, Any], objects: bool, ids: list[int], problems: list[str]
) -> list[Record]:
    """A record for each image, with its annotations checked."""
    classes = {key: place for place, key in enumerate(ids, 1)}
    drawn: dict[Any, list[tuple[int, Any]]] = {one["id"]: [] for one in content["images"]}
    for one in content["annotations"]:
        wrong = None
        if one["image_id"] not in drawn:
            wrong = f"image_id {one['image_id']}; accepted are ids of its images"
        elif one["category_id"] not in classes:
            wrong = f"category_id {one['category_id']}; accepted are ids of its categories"
        elif not one.get("segmentation"):
            wrong = "no segmentation; accepted are polygons and run lengths"
        if wrong:
            problems.append(f"{path}: annotation {one['id']} has {wrong}")
            continue
        mine = drawn[one["image_id"]]
        mine.append((len(mine) + 1 if objects else classes[one["category_id"]], one["segmentation"]))
    words = [*re.split(r"[^A-Za-z]+", path.stem), path.parent.name]
    split = next(filter(None, map(parse_split, words)), None)
    records = []
    for one in content["images"]:
        name, size = str(one["file_name"]), (int(one["height"]), int(one["width"]))
        image = next((place for place in _places(path, name) if place.is_file()), None)
        if image is None:
            problems.append(f"{path}: {name}: no such file; accepted are files beside it or in images/")
            continue
        read = partial(_read, image, path, size, tuple(drawn[one["id"]]))
        stem = str(Path(name).with_suffix(""))
        records.append(Record(stem, image, path, read, split, mask_part=f"image {stem}", files=(image, path)))
    return records


def _places(path: Path, name: str) -> Iterator[Path]:
    """Where an image may be: beside the JSON, above it, in images/ or in a folder of its name's words."""
    for parent in (path.parent, path.parent.parent):
        for folder in ("", "images", path.stem, *path.stem.split("_")):
            yield parent / folder / name
            yield parent / "images" / folder / name


def _read(image: Path, path: Path, size: tuple[int, int], annotations: tuple[tuple[int, Any], ...]) -> Pair:
    array = read_or_refuse(image)
    check_sizes(array.shape, size, f"{path} image {image.name}")
    mask = np.zeros(size, np.int32)
    for value, segmentation in annotations:
        try:
            mask[_covered(segmentation, *size)] = value
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise DataError([f"{path} image {image.name}: {error}"]) from error
    return array, mask


def _covered(segmentation: Any, height: int, width: int) -> np.ndarray:
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"run lengths of size {segmentation['size']}; accepted is that of the image")
        return decode(segmentation["counts"], height, width)
    covered = np.zeros((height, width), bool)
    for polygon in segmentation:
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or corners.size < 6 or corners.size % 2 or not np.isfinite(corners).all():
            raise ValueError(
                f"a polygon of {corners.size} numbers; accepted are x and y of 3 corners or more"
            )
        covered |= fill(corners.reshape(-1, 2), height, width)
    return covered
