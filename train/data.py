"""A folder of images and masks enters; a `Dataset` leaves, in memory or read when it is looked at.

`train.folder` says what a folder may look like. Without a folder the data is the brain of `train.brain`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from flaxunet.images import ImageError
from flaxunet.losses import IGNORE
from train import brain, caching, folder, windows
from train.caching import Cache
from train.folder import DataError
from train.samples import Arrays, Prepared, Stored

INFERRED = 32  # more classes than this have to be asked for: such labels are likelier to be instance ids
_HINT = "; for instance ids, and for masks of 0 and 255, use --target foreground"


class Sample(TypedDict):
    """One image (H, W, C) float32 in [0, 1], its label (H, W) int32 (classes or IGNORE), and its name."""

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
    fold: tuple[int, int] = (1, 1),
    cache: Cache | None = None,
) -> Dataset:
    """Read a whole dataset, trying every file before complaining of any.

    It is kept in memory (4 bytes a value) or where the cache says; of what is not in memory, samples are read
    when they are looked at (`train.samples`), with the same bits. A TIFF image too large to be read at once
    becomes several samples (`train.windows`).

    Where gray and RGB images meet, the gray ones are repeated to three channels.

    Args:
      data: a folder, or None for the brain.
      classes: K; 1 is one sigmoid channel for labels 0 and 1, K >= 2 takes labels 0..K-1. None infers it: 1
        for labels within {0, 1}, else the largest label plus one.
      target: "foreground" makes every label above 0 a 1, for instance ids and for masks of 0 and 255.
      ignore_label: the stored label of pixels that shall not count; becomes IGNORE.
      size: the longer side of every image in pixels, for fit="resize" only.
      fit: "resize" keeps the aspect ratio and resizes images bilinearly with antialiasing, labels to the
        nearest; "crop" leaves them as they are.
      seed: of the cut where a split has no folder; the same seed and file names give the same splits.
      workers: threads that read files.
      fold: (i, k): validation is part i of k, counted from 1, of all that is not for testing; the other parts
        are for training, but of the brain what is within 10 mm. (1, 1) leaves the splits as they are.
      cache: where samples are kept; None is memory.
    Returns: the dataset.
    Raises: DataError that lists every missing, extra, unreadable or unfitting file. ValueError for arguments
      other than those above. ConfigError if the cache cannot hold the data.
    """
    if target not in ("classes", "foreground") or fit not in ("crop", "resize"):
        raise ValueError(f"target={target!r}, fit={fit!r}; accepted are classes, foreground and crop, resize")
    if size < 1 or (classes is not None and classes < 1):
        raise ValueError(f"size={size}, classes={classes}; accepted are numbers from 1")
    problems: list[str] = []
    pairs = _brain_pairs(fold, problems) if data is None else _folder_pairs(Path(data), seed, fold, problems)
    if fit == "resize":
        problems += [
            f"{pair.image}: too large to be resized; accepted with --fit crop" for pair in pairs if pair.part
        ]
    settings = {"target": target, "ignore_label": ignore_label, "size": size if fit == "resize" else None}
    prepared, pending = caching.keep(
        pairs,
        partial(_prepare, **settings),
        cache=cache or Cache("memory"),
        settings=settings,
        workers=workers,
    )
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
    splits = (
        Stored([one for one in prepared if one.pair.split == split], channels)
        for split in ("train", "validation", "test")
    )
    name = brain.NAME if data is None else Path(data).resolve().name
    train, validation, test = (split if pending else _read(split) for split in splits)
    return Dataset(name, class_names, classes, channels, train, validation, test)


def _read(stored: Stored) -> list[Sample]:
    return [{"image": one["image"], "label": one["label"], "name": one["name"]} for one in stored]


@dataclass(frozen=True)
class _Pair:
    """An image and its mask, not read yet; `image` and `mask` name them in messages.

    `files` are what `read` reads, none for the brain; `part` says that it is not the whole of an image.
    """

    split: str
    name: str
    image: str
    mask: str
    read: Callable[[], tuple[np.ndarray, np.ndarray]]
    files: tuple[Path, ...] = ()
    part: bool = False


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
    pairs = []
    for split, files in folder.find(root, seed=seed, fold=fold, problems=problems).items():
        for name, (image, mask) in files.items():
            whole = _Pair(
                split, name, str(image), str(mask), partial(folder.read, image, mask), (image, mask)
            )
            try:
                parts = windows.squares(image, mask) or {}
            except ImageError as error:
                problems.append(str(error))
                continue
            pairs += [replace(whole, name=name + part, read=read, part=True) for part, read in parts.items()]
            pairs += [] if parts else [whole]
    return pairs


def _prepare(pair: _Pair, *, target: str, ignore_label: int | None, size: int | None) -> Prepared:
    """Read, relabel and resize one pair."""
    try:
        image, label = pair.read()
    except (DataError, ImageError) as error:
        nothing, lines = np.empty(0, np.int32), getattr(error, "problems", (str(error),))
        return Prepared(pair, (), nothing, Arrays(nothing, nothing), lines)
    ignored = np.zeros(label.shape, bool) if ignore_label is None else label == ignore_label
    if target == "foreground":
        label = np.minimum(label, 1)
    values = np.unique(label[~ignored])
    label = np.where(ignored, np.int32(IGNORE), label)
    if size is not None:
        image, label = _resize(image, label, size)
    return Prepared(pair, image.shape, values, Arrays(image, label))


def _resize(image: np.ndarray, label: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Make the longer side `size` and keep the aspect ratio."""
    height, width = (max(1, round(side * size / max(label.shape))) for side in label.shape)
    channels = [
        np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR))
        for channel in np.moveaxis(image, -1, 0)
    ]
    nearest = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)
    return np.clip(np.stack(channels, axis=-1), 0, 1), np.asarray(nearest)


def _check_classes(prepared: Sequence[Prepared], classes: int | None, problems: list[str]) -> int:
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


def _check_channels(prepared: Sequence[Prepared], problems: list[str]) -> int:
    """The channels that all images can be given, and a line for each image that cannot."""
    counts = Counter(one.shape[-1] for one in prepared)
    if counts.keys() <= {1, 3}:
        return max(counts, default=0)
    usual = counts.most_common(1)[0][0]
    for one in prepared:
        channels = one.shape[-1]
        if channels != usual:
            accepted = "accepted are equal channels, or gray and RGB"
            problems.append(f"{one.pair.image}: {channels} channels, most images have {usual}; {accepted}")
    return usual
