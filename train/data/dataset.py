"""A folder of images and masks enters; a `Dataset` leaves, in memory or read when it is looked at.

`flaxunet.data` says what a folder may look like. Without a folder the data is that of
`flaxunet.data.layouts.brain`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np

from flaxunet import labels as targets
from flaxunet import preprocessing
from flaxunet.data import LAYOUTS, DataError, Listing, Record, split_samples
from flaxunet.data.classes import SampleSummary, check_channels, check_classes, find_for_target
from flaxunet.data.layouts import brain
from flaxunet.io.images import mask_colors
from flaxunet.labels import Color
from train.config.settings import Data
from train.data import cache
from train.data.samples import Arrays, Prepared, Stored


class Sample(TypedDict):
    """One image (H, W, C) float32, its label (H, W) int32 (classes or IGNORE), and its name.

    The image is in [0, 1], unless it holds z-scores.
    """

    image: np.ndarray
    label: np.ndarray
    name: str


Split = Sequence[Sample]


@dataclass(frozen=True)
class Dataset:
    """Everything a run needs to know about its data.

    `classes` is K, the number of logits. `class_names` starts with the background and has max(K, 2) entries.
    `channels` is that of every image. `about` has a line for each thing in the folder that was taken for
    another, and `origins` where each sample is from, in the order of the splits. `axis` is that of the slices
    if they are from volumes, and `colors` are those of the labels from 1 on if the masks tell them.
    """

    name: str
    class_names: tuple[str, ...]
    classes: int
    channels: int
    train: Split
    validation: Split
    test: Split
    about: tuple[str, ...] = ()
    origins: tuple["Origin", ...] = ()
    axis: str | None = None
    colors: tuple[Color, ...] | None = None


@dataclass(frozen=True)
class Origin:
    """Where a sample is from: its split, its name, its group if it has one, and its image and mask."""

    split: str
    name: str
    group: str | None
    image: str
    mask: str


def load(settings: Data, seed: int) -> Dataset:
    """Read a whole dataset, trying every file before complaining of any.

    It is kept in memory (4 bytes a value) or where the cache says; of what is not in memory, samples are read
    when they are looked at (`train.data.samples`), with the same bits. A TIFF image too large to be read at
    once becomes several samples (`flaxunet.data.large_images`).

    Where gray and RGB images meet, the gray ones are repeated to three channels.

    Args:
      settings: checked; without a folder, the data is the brain. Without `classes`, K follows from the target
        or from the layout's class names; else it is 1 for labels within {0, 1}, else the largest label plus
        one. The target is made of the masks after resizing (`flaxunet.labels.relabel`), so that boundaries
        are as wide in every image that is trained on.
      seed: of the cut where a split has no folder; the same seed and file names give the same splits.
    Returns: the dataset.
    Raises: DataError that lists every missing, extra, unreadable or unfitting file. ConfigError if the cache
      cannot hold the data.
    """
    problems: list[str] = []
    found, target = None, settings.target
    if settings.folder is not None:
        found = find_for_target(
            Path(settings.folder),
            target=target,
            layout=settings.layout,
            group=settings.group,
            axis=settings.axis,
        )
    fold = settings.fold_numbers
    pairs = _brain_records(fold, problems) if found is None else _split_records(found, seed, fold, problems)
    if settings.fit == "resize":
        problems += [
            f"{pair.image_location}: too large to be resized; expected with --fit crop"
            for pair in pairs
            if pair.is_patch
        ]
    preparation = {
        "target": target,
        "ignore_label": settings.ignore_label,
        "intensity": settings.intensity,
        "size": settings.size if settings.fit == "resize" else None,
    }
    prepared, pending = cache.keep(
        pairs,
        partial(_prepare, **preparation),
        settings=settings,
        preparation={**preparation, "layout": found and found.layout},
    )
    problems += [line for one in prepared for line in one.problems]
    prepared = [one for one in prepared if not one.problems]
    summaries = [
        SampleSummary(one.pair.image_location, one.pair.mask_location, one.shape[-1], one.values)
        for one in prepared
    ]
    names = found.class_names if found is not None else None
    classes = check_classes(summaries, settings.classes, problems, target=target, names=names)
    channels = check_channels(summaries, problems)
    if problems:
        raise DataError(problems)

    class_names = targets.class_names(target, classes, names)
    if found is None and target == "classes":
        class_names = brain.CLASS_NAMES + class_names[len(brain.CLASS_NAMES) :]
    splits = (
        Stored([one for one in prepared if one.pair.split == split], channels)
        for split in ("train", "validation", "test")
    )
    name = brain.NAME if settings.folder is None else Path(settings.folder).resolve().name
    train, validation, test = (split if pending else _read(split) for split in splits)
    about = () if found is None else (f"layout {found.layout}", *found.interpretation)
    order = ("train", "validation", "test")
    origins = tuple(
        Origin(pair.split, pair.name, pair.group, pair.image_location, pair.mask_location)
        for pair in sorted((one.pair for one in prepared), key=lambda pair: order.index(pair.split))
    )
    plane = settings.axis if found is not None and LAYOUTS[found.layout].has_volumes else None
    facts = name, class_names, classes, channels
    colors = None
    if found is not None and target == "classes":
        colors = mask_colors(found.records[0].mask, len(class_names))
    more = {"about": about, "origins": origins, "axis": plane, "colors": colors}
    return Dataset(*facts, train, validation, test, **more)


def _read(stored: Stored) -> list[Sample]:
    return [{"image": one["image"], "label": one["label"], "name": one["name"]} for one in stored]


def _brain_records(fold: tuple[int, int], problems: list[str]) -> list[Record]:
    """The default data, which are in memory already, so that there are no files to be read."""
    if fold[1] > len(brain.FOLDED):
        problems.append(f"{brain.NAME}: {fold[1]} folds; expected 2 to {len(brain.FOLDED)}")
        return []
    image, label = brain.read()
    return [
        Record(f"slice{z:03}", place, place, lambda z=z: (image[z], label[z]), split)
        for split, slab in brain.splits(fold).items()
        for z in slab
        for place in [Path(f"brain slice {z}")]
    ]


def _split_records(listing: Listing, seed: int, fold: tuple[int, int], problems: list[str]) -> list[Record]:
    problems += listing.problems
    splits = split_samples(listing, seed=seed, fold=fold, problems=problems)
    return [replace(one, split=split) for split, records in splits.items() for one in records]


def _prepare(
    pair: Record, *, target: str, ignore_label: int | None, intensity: str, size: int | None
) -> Prepared:
    """Read, relabel and resize one pair."""
    try:
        image, label = pair.read()
        image = pair.normalize(image, intensity)
    except ValueError as error:
        lines = error.problems if isinstance(error, DataError) else [f"{pair.image_location}: {error}"]
        nothing = np.empty(0, np.int32)
        return Prepared(pair, (), nothing, nothing, Arrays(nothing, nothing), lines)
    values = targets.target_values(label, target, ignore_label)
    label = targets.mark_ignored(label, ignore_label)
    if size is not None:
        fitted = preprocessing.fit_size((label.shape[0], label.shape[1]), size)
        image, label = preprocessing.resize_image(image, fitted), preprocessing.resize_labels(label, fitted)
    label = targets.relabel(label, target)
    return Prepared(pair, image.shape, values, np.unique(label), Arrays(image, label))
