"""A folder of images and masks enters; a `Dataset` in memory leaves.

`train.folder` says what a folder may look like. Without a folder the data is the brain of `train.brain`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from flaxunet import intensity as intensities
from flaxunet.losses import IGNORE
from train import brain, folder
from train.folder import DataError

INFERRED = 32  # more classes than this have to be asked for: such labels are likelier to be instance ids
_HINT = "; for instance ids, and for masks of 0 and 255, use --target foreground"


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
    `channels` is that of every image.
    """

    name: str
    class_names: tuple[str, ...]
    classes: int
    channels: int
    train: Split
    validation: Split
    test: Split


def load(
    data: str | None,
    *,
    classes: int | None,
    target: str,
    ignore_label: int | None,
    size: int,
    fit: str,
    seed: int,
    workers: int,
    intensity: str = "type",
    fold: tuple[int, int] = (1, 1),
) -> Dataset:
    """Read a whole dataset into memory (4 bytes a value), trying every file before complaining of any.

    Where gray and RGB images meet, the gray ones are repeated to three channels.

    Args:
      data: a folder, or None for the brain.
      classes: K; 1 is one sigmoid channel for labels 0 and 1, K >= 2 takes labels 0..K-1. None infers it: 1
        for labels within {0, 1}, else the largest label plus one.
      target: "foreground" makes every label above 0 a 1, for instance ids and for masks of 0 and 255.
      ignore_label: the stored label of pixels that shall not count; becomes IGNORE.
      size: the longer side of every image in pixels, for fit="resize" only.
      intensity: "type", "percentile" or "zscore"; see `flaxunet.intensity.apply`.
      fit: "resize" keeps the aspect ratio and resizes images bilinearly with antialiasing, labels to the
        nearest; "crop" leaves them as they are.
      seed: of the cut where a split has no folder; the same seed and file names give the same splits.
      workers: threads that read files.
      fold: (i, k): validation is part i of k, counted from 1, of all that is not for testing; the other parts
        are for training, but of the brain what is within 10 mm. (1, 1) leaves the splits as they are.
    Returns: the dataset.
    Raises: DataError that lists every missing, extra, unreadable or unfitting file. ValueError for arguments
      other than those above.
    """
    if target not in ("classes", "foreground") or fit not in ("crop", "resize"):
        raise ValueError(f"target={target!r}, fit={fit!r}; accepted are classes, foreground and crop, resize")
    if size < 1 or (classes is not None and classes < 1):
        raise ValueError(f"size={size}, classes={classes}; accepted are numbers from 1")
    problems: list[str] = []
    pairs = _brain_pairs(fold, problems) if data is None else _folder_pairs(Path(data), seed, fold, problems)
    prepare = partial(
        _prepare,
        target=target,
        ignore_label=ignore_label,
        intensity=intensity,
        size=size if fit == "resize" else None,
    )
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        prepared = list(pool.map(prepare, pairs))
    problems += [line for one in prepared for line in one.problems]
    prepared = [one for one in prepared if not one.problems]
    classes = _check_classes(prepared, classes, problems)
    channels = _check_channels(prepared, problems)
    if problems:
        raise DataError(problems)

    class_names = ("background", "foreground")
    if classes > 2:
        class_names = ("background", *(f"class {label}" for label in range(1, classes)))
    if data is None and target == "classes":
        class_names = brain.CLASS_NAMES + class_names[len(brain.CLASS_NAMES) :]
    splits: dict[str, list[Sample]] = {"train": [], "validation": [], "test": []}
    for one in prepared:
        image = one.image if one.image.shape[-1] == channels else np.repeat(one.image, channels, axis=-1)
        splits[one.pair.split].append({"image": image, "label": one.label, "name": one.pair.name})
    name = brain.NAME if data is None else Path(data).resolve().name
    return Dataset(name, class_names, classes, channels, **splits)


@dataclass(frozen=True)
class _Pair:
    """An image and its mask, not read yet; `image` and `mask` name them in messages."""

    split: str
    name: str
    image: str
    mask: str
    read: Callable[[], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class _Prepared:
    """A pair after reading, or what is wrong with it; `values` are the labels that occur and count."""

    pair: _Pair
    image: np.ndarray
    label: np.ndarray
    values: np.ndarray
    problems: Sequence[str] = ()


def _brain_pairs(fold: tuple[int, int], problems: list[str]) -> list[_Pair]:
    if fold[1] > len(brain.FOLDED):
        problems.append(f"{brain.NAME}: {fold[1]} folds; accepted are 2 to {len(brain.FOLDED)}")
        return []
    image, label = brain.read()
    return [
        _Pair(split, f"slice{z:03}", f"brain slice {z}", f"brain slice {z}", lambda z=z: (image[z], label[z]))
        for split, slab in brain.splits(fold).items()
        for z in slab
    ]


def _folder_pairs(root: Path, seed: int, fold: tuple[int, int], problems: list[str]) -> list[_Pair]:
    return [
        _Pair(split, name, str(image), str(mask), partial(folder.read, image, mask))
        for split, files in folder.find(root, seed=seed, fold=fold, problems=problems).items()
        for name, (image, mask) in files.items()
    ]


def _prepare(
    pair: _Pair, *, target: str, ignore_label: int | None, intensity: str, size: int | None
) -> _Prepared:
    """Read, relabel and resize one pair."""
    try:
        image, label = pair.read()
        image = intensities.apply(image, intensity)
    except ValueError as error:
        problems = error.problems if isinstance(error, DataError) else [f"{pair.image}: {error}"]
        nothing = np.empty(0, np.int32)
        return _Prepared(pair, nothing, nothing, nothing, problems)
    ignored = np.zeros(label.shape, bool) if ignore_label is None else label == ignore_label
    if target == "foreground":
        label = np.minimum(label, 1)
    values = np.unique(label[~ignored])
    label = np.where(ignored, np.int32(IGNORE), label)
    if size is not None:
        image, label = _resize(image, label, size)
    return _Prepared(pair, image, label, values)


def _resize(image: np.ndarray, label: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Make the longer side `size` and keep the aspect ratio."""
    height, width = (max(1, round(side * size / max(label.shape))) for side in label.shape)
    channels = [
        np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR))
        for channel in np.moveaxis(image, -1, 0)
    ]
    nearest = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)
    # Rounding may lead beyond the ends; those of [0, 1] stay the ends of what lies within.
    low, high = min(0, image.min()), max(1, image.max())
    return np.clip(np.stack(channels, axis=-1), low, high), np.asarray(nearest)


def _check_classes(prepared: Sequence[_Prepared], classes: int | None, problems: list[str]) -> int:
    """K, and a line for each mask with labels outside of it."""
    foreground = {int(label) for one in prepared for label in one.values if label > 0}
    top = max(foreground, default=0)
    # Instance ids go far beyond any class, and a mask of 0 and 255 leaves out all labels between.
    suspect = top >= INFERRED or (top > 1 and len(foreground) == 1)
    if classes is None:
        classes = 1 if top <= 1 else top + 1
        if suspect:
            mask = next(one.pair.mask for one in prepared if top in one.values)
            problems.append(f"{mask}: label {top}; accepted without --classes are 0..{INFERRED - 1}{_HINT}")
    most = max(classes, 2) - 1
    for one in prepared:
        wrong = one.values[(one.values < 0) | (one.values > most)]
        if wrong.size:
            listed = ", ".join(map(str, wrong[:8])) + (", ..." if wrong.size > 8 else "")
            alone = wrong[-1] > 0 and (one.values > 0).sum() == 1
            hint = _HINT if suspect or alone else ""
            problems.append(f"{one.pair.mask}: labels {listed}; accepted are 0..{most}{hint}")
    return classes


def _check_channels(prepared: Sequence[_Prepared], problems: list[str]) -> int:
    """The channels that all images can be given, and a line for each image that cannot."""
    counts = Counter(one.image.shape[-1] for one in prepared)
    if counts.keys() <= {1, 3}:
        return max(counts, default=0)
    usual = counts.most_common(1)[0][0]
    for one in prepared:
        channels = one.image.shape[-1]
        if channels != usual:
            accepted = "accepted are equal channels, or gray and RGB"
            problems.append(f"{one.pair.image}: {channels} channels, most images have {usual}; {accepted}")
    return usual
