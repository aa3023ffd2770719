"""Reads the data set of a run from a folder of images and masks.

`flaxunet.data` says what a folder may look like. Without a folder the data is that of
`flaxunet.data.layouts.brain`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from flaxunet import labels as targets
from flaxunet import preprocessing
from flaxunet.data import LAYOUTS, DataError, Record, split_samples
from flaxunet.data.classes import SampleSummary, check_channels, check_classes, find_for_target
from flaxunet.data.layouts import brain
from flaxunet.io.images import mask_colors
from flaxunet.labels import Color
from train.config.settings import Data
from train.data import cache
from train.data.samples import Arrays, LazySplit, Prepared


class Sample(TypedDict):
    """One image (H, W, C) float32, its label (H, W) int32 (classes or IGNORE), and its name.

    The image is in [0, 1], unless it holds z-scores.
    """

    image: np.ndarray
    label: np.ndarray
    name: str


Split = Sequence[Sample]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """The data of a run.

    Attributes:
      name: of the folder.
      class_names: background first; max(classes, 2) of them.
      classes, channels: the numbers of logits (K) and of channels of every image.
      train, validation, test: the samples to train on, to compare checkpoints on, and for the end of the run.
      about: a line for the layout and for each decision about how the folder is read.
      origins: where each sample is from, in the order of the splits.
      axis, colors: of the slices if they are from volumes, and of the labels from 1 on if masks have colours.
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
    """The split, the name and the group of a sample, and the files that it is from."""

    split: str
    name: str
    group: str | None
    image: str
    mask: str


def load(settings: Data, seed: int) -> Dataset:
    """Reads a whole data set; every file is tried before any is complained of.

    Samples are kept in memory (4 bytes a value) or where --cache says; those that are not in memory are read
    on access (`train.data.samples`), with the same bits. A TIFF image too large to be read at once becomes
    several samples (`flaxunet.data.large_images`).

    Where gray and RGB images meet, the gray ones are repeated to three channels.

    Args:
      settings: checked; without a folder, the data is the brain. Without `classes`, K follows from the target
        or from the layout's class names; else it is 1 for labels within {0, 1}, else the largest label plus
        one. The target is made of the masks after resizing (`flaxunet.labels.relabel`), so that boundaries
        are as wide in every image that is trained on.
      seed: of the random split where splits have no folders; the same seed and file names give the same
        splits.
    Returns: the dataset.
    Raises: DataError that lists every missing, extra, unreadable or unfitting file. ConfigError if the cache
      cannot hold the data.
    """
    problems: list[str] = []
    listing, target, fold = None, settings.target, settings.fold_numbers
    if settings.folder is None:
        pairs = _brain_records(fold, problems)
    else:
        how = {"layout": settings.layout, "group": settings.group, "axis": settings.axis}
        listing = find_for_target(Path(settings.folder), target=target, **how)
        problems += listing.problems
        splits = split_samples(listing, seed=seed, fold=fold, problems=problems)
        pairs = [replace(one, split=split) for split, records in splits.items() for one in records]
    if settings.fit == "resize":
        large = (pair.image_location for pair in pairs if pair.is_patch)
        problems += [f"{name}: too large to be resized; expected with --fit crop" for name in large]
    size = settings.size if settings.fit == "resize" else None
    preparation: dict[str, Any] = {"target": target, "ignore_label": settings.ignore_label}
    preparation |= {"intensity": settings.intensity, "size": size}
    prepare = partial(_prepare, **preparation)
    preparation["layout"] = listing and listing.layout
    prepared, lazy = cache.keep(pairs, prepare, settings=settings, preparation=preparation)
    problems += [line for one in prepared for line in one.problems]
    prepared = [one for one in prepared if not one.problems]
    summaries = [
        SampleSummary(one.pair.image_location, one.pair.mask_location, one.shape[-1], one.values)
        for one in prepared
    ]
    names = listing and listing.class_names
    classes = check_classes(summaries, settings.classes, problems, target=target, names=names)
    channels = check_channels(summaries, problems)
    if problems:
        raise DataError(problems)

    class_names = targets.class_names(target, classes, names)
    if listing is None and target == "classes":
        class_names = brain.CLASS_NAMES + class_names[len(brain.CLASS_NAMES) :]
    by_split = [[one for one in prepared if one.pair.split == split] for split in SPLITS]
    splits = (LazySplit(ones, channels) for ones in by_split)
    name = brain.NAME if settings.folder is None else Path(settings.folder).resolve().name
    parts = ("image", "label", "name")
    samples: list[Any] = [
        split if lazy else [{part: one[part] for part in parts} for one in split] for split in splits
    ]
    train, validation, test = samples
    about = () if listing is None else (f"layout {listing.layout}", *listing.interpretation)
    origins = tuple(
        Origin(pair.split, pair.name, pair.group, pair.image_location, pair.mask_location)
        for pair in (one.pair for ones in by_split for one in ones)
    )
    plane = settings.axis if listing is not None and LAYOUTS[listing.layout].has_volumes else None
    colors = None
    if listing is not None and target == "classes":
        colors = mask_colors(listing.records[0].mask, len(class_names))
    return Dataset(
        name, class_names, classes, channels, train, validation, test, about, origins, plane, colors
    )


def _brain_records(fold: tuple[int, int], problems: list[str]) -> list[Record]:
    """Reads the default data, which is in memory then; its records have no files."""
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


def _prepare(
    pair: Record, *, target: str, ignore_label: int | None, intensity: str, size: int | None
) -> Prepared:
    """Reads, relabels and resizes one pair."""
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
