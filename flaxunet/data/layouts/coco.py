"""Lists images with COCO's JSON of polygons and run lengths, filled as classes or as numbered objects.

A category's class is its rank among the ids, from 1. Where annotations overlap, the later one wins.

Source: Lin et al. 2014, Microsoft COCO; the format at https://cocodataset.org/#format-data.
"""

import json
import mmap
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flaxunet.data.layouts.polygons import decode, fill
from flaxunet.data.record import DataError, Listing, Options, Pair, Record, check_sizes, load_image
from flaxunet.data.split import SPLIT_NAMES, parse_split

KEYS = (b'"images"', b'"annotations"', b'"categories"')
FOLDERS = ("", "annotations", *SPLIT_NAMES)


def recognize(root: Path) -> str | None:
    """Names the JSON files of this layout; None if there are none."""
    names = (path.name if path == root else str(path.relative_to(root)) for path in _files(root))
    return ", ".join(names) or None


def find(root: Path, options: Options) -> Listing:
    """Lists a sample for each image. The name of a JSON file, or of its folder, tells the split."""
    listing = Listing(root, "coco", instances=options.objects)
    problems, categories, paths = listing.problems, {}, list(_files(root))
    if not paths:
        problems.append(
            f"{root}: no JSON with images, annotations and categories; expected one for each split"
        )
    for path in paths:
        try:
            content = json.loads(path.read_bytes())
            names_by_id = {int(one["id"]): str(one["name"]) for one in content["categories"]}
            if categories and names_by_id != categories:
                problems.append(f"{path}: other categories than {paths[0]}; expected equal ones")
                continue
            categories = names_by_id
            records = _records(path, content, sorted(categories), listing)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problems.append(f"{path}: {type(error).__name__} {error}; expected COCO's JSON")
            continue
        kind = "numbered objects" if options.objects else f"{len(categories)} classes"
        about = f"{len(records)} images, {len(content['annotations'])} annotations as {kind}"
        listing.interpretation.append(f"{path}: {about}")
        listing.records += records
    if categories:
        listing.class_names = ("background", *(categories[key] for key in sorted(categories)))
    return listing


def _files(root: Path) -> Iterator[Path]:
    """JSON files that contain the keys; none is parsed."""
    in_folders = (path for name in FOLDERS for path in sorted((root / name).glob("*.json")))
    for path in [root] if root.is_file() else in_folders:
        if path.suffix.lower() == ".json" and path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                if all(text.find(key) >= 0 for key in KEYS):
                    yield path


def _records(path: Path, content: dict[str, Any], ids: list[int], listing: Listing) -> list[Record]:
    """A record for each image, with its annotations checked."""
    classes = {key: rank for rank, key in enumerate(ids, 1)}
    annotations: dict[Any, list[tuple[int, Any]]] = {one["id"]: [] for one in content["images"]}
    for one in content["annotations"]:
        mistake = None
        if one["image_id"] not in annotations:
            mistake = f"image_id {one['image_id']}; expected an id of its images"
        elif one["category_id"] not in classes:
            mistake = f"category_id {one['category_id']}; expected an id of its categories"
        elif not one.get("segmentation"):
            mistake = "no segmentation; expected polygons or run lengths"
        if mistake:
            listing.problems.append(f"{path}: annotation {one['id']} has {mistake}")
            continue
        of_image = annotations[one["image_id"]]
        label = len(of_image) + 1 if listing.instances else classes[one["category_id"]]
        of_image.append((label, one["segmentation"]))
    words = [*re.split(r"[^A-Za-z]+", path.stem), path.parent.name]
    split = next(filter(None, map(parse_split, words)), None)
    records = []
    for one in content["images"]:
        name, size = str(one["file_name"]), (int(one["height"]), int(one["width"]))
        image = next(filter(Path.is_file, _candidates(path, name)), None)
        if image is None:
            listing.problems.append(f"{path}: {name}: no such file; expected one beside it or in images/")
            continue
        read = partial(_read, image, path, size, tuple(annotations[one["id"]]))
        stem = str(Path(name).with_suffix(""))
        records.append(Record(stem, image, path, read, split, mask_part=f"image {stem}", files=(image, path)))
    return records


def _candidates(path: Path, name: str) -> Iterator[Path]:
    """Where an image may be: beside the JSON, above it, in images/ or in a folder of its name's words."""
    for parent in (path.parent, path.parent.parent):
        for folder in ("", "images", path.stem, *path.stem.split("_")):
            yield parent / folder / name
            yield parent / "images" / folder / name


def _read(file: Path, path: Path, size: tuple[int, int], annotations: Sequence[tuple[int, Any]]) -> Pair:
    image, where = load_image(file), f"{path} image {file.name}"
    check_sizes(image.shape, size, where)
    mask = np.zeros(size, np.int32)
    for label, segmentation in annotations:
        try:
            mask[_fill(segmentation, *size)] = label
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise DataError([f"{where}: {error}"]) from error
    return image, mask


def _fill(segmentation: Any, height: int, width: int) -> np.ndarray:
    """(height, width) bool of what run lengths or polygons cover."""
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"run lengths of size {segmentation['size']}; expected {[height, width]}")
        return decode(segmentation["counts"], height, width)
    covered = np.zeros((height, width), bool)
    for polygon in segmentation:
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or corners.size < 6 or corners.size % 2 or not np.isfinite(corners).all():
            raise ValueError(f"a polygon of {corners.size} numbers; expected x and y of 3 corners or more")
        covered |= fill(corners.reshape(-1, 2), height, width)
    return covered
