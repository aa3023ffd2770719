"""Lists slices of the volumes in imagesTr/ and labelsTr/, as the Decathlon and nnU-Net store them.

A volume is one file, of one channel or with channels as the fourth axis, or a file NAME_0000, NAME_0001, ...
for each channel. It is turned to its closest anatomical axes; each of its slices is a sample, and the volume,
or the patient that --group finds in its name, is the group. The values of each channel are scaled linearly so
that the volume's smallest is 0 and its largest is 1.

Source: Antonelli et al. 2022, The Medical Segmentation Decathlon, Nature Communications 13; Isensee et al.
2021, nnU-Net, Nature Methods 18.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from flaxunet.data.record import DataError, Listing, Options, Pair, Record, named_errors, unmatched
from flaxunet.io import planes
from flaxunet.io.images import VOLUME_SUFFIXES, split_suffix
from flaxunet.io.pixels import DecodedPixels, to_labels
from flaxunet.io.volumes import is_volume_file, read_header, read_ras_voxels
from flaxunet.preprocessing import channel_range, rescale

TRAIN, TEST = ("imagesTr", "labelsTr"), ("imagesTs", "labelsTs")

_lock = Lock()


def recognize(root: Path) -> str | None:
    """Names the folders of images and labels; None if one is missing."""
    return "imagesTr/ with labelsTr/" if all((root / name).is_dir() for name in TRAIN) else None


def find(root: Path, options: Options) -> Listing:
    """Lists a sample for each slice. With labelsTs/, the volumes of imagesTs/ are the test split."""
    listing = Listing(root, "nifti")
    has_test = (root / TEST[1]).is_dir()
    for split, names in (("train", TRAIN), ("test", TEST)) if has_test else ((None, TRAIN),):
        images, labels = (root / name for name in names)
        volumes = _volumes(images, labels, listing.problems)
        records = [
            record
            for name, (channels, label) in volumes.items()
            for record in _slices(name, channels, label, split, options.axis, listing.problems)
        ]
        count = f"{len(volumes)} volumes, {len(records)} {options.axis} slices"
        listing.interpretation.append(f"{images} as images, {labels} as masks: {count}")
        listing.records += records
    path = root / "dataset.json"
    listing.class_names = _class_names(path, listing.problems)
    if listing.class_names is not None:
        listing.interpretation.append(f"{path} for the names of {len(listing.class_names)} classes")
    return listing


def _volumes(images: Path, labels: Path, problems: list[str]) -> dict[str, tuple[tuple[Path, ...], Path]]:
    """The files of the channels and of the labels of every volume that has both."""
    if not images.is_dir():
        problems.append(f"{images}: no such folder; expected one beside {labels.name}/")
        return {}
    targets = _files(labels)
    volumes: dict[str, list[Path]] = {}
    for name, path in _files(images).items():
        channel = re.fullmatch(r"(.+)_\d{4}", name)
        # A name that has labels of its own is no channel, even where it ends with digits, as BRATS_0001 does.
        volume = name if name in targets or channel is None else channel[1]
        volumes.setdefault(volume, []).append(path)
    alone = [name for name in volumes if name not in targets]
    problems += [f"{volumes[name][0]}: no {name}.nii.gz in {labels}" for name in alone]
    problems += unmatched(targets, volumes, "image", images)
    if not targets:
        problems.append(f"{labels}: no volumes; expected {', '.join(VOLUME_SUFFIXES)}")
    return {name: (tuple(volumes[name]), targets[name]) for name in sorted(volumes) if name in targets}


def _files(folder: Path) -> dict[str, Path]:
    """Volumes by name without suffix; hidden files, which Macs leave in archives, are skipped."""
    return {
        split_suffix(path.name)[0]: path
        for path in sorted(folder.iterdir())
        if is_volume_file(path) and not path.name.startswith(".")
    }


def _slices(
    name: str, channels: tuple[Path, ...], label: Path, split: str | None, axis: str, problems: list[str]
) -> list[Record]:
    headers = {}
    try:
        for path in (*channels, label):
            with named_errors(path):
                headers[path] = read_header(path)
        with named_errors(label):
            axes = planes.orientation(headers[label][1])[:, 0].tolist()
    except DataError as error:
        problems += error.problems
        return []
    size, affine = headers[label]
    for path, (shape, _) in headers.items():
        fits = shape[:3] == size and (len(shape) == 3 or (len(channels) == 1 and len(shape) == 4))
        if not fits or len(size) != 3:
            voxels, of_labels = (" x ".join(map(str, axes)) for axes in (shape, size))
            expected = "expected three equal axes, and a fourth for the channels of an image"
            problems.append(f"{path}: {voxels} voxels, its labels have {of_labels}; {expected}")
            return []
    if not np.allclose(affine, headers[channels[0]][1], atol=1e-2):
        problems.append(f"{label}: another position or orientation in space than {channels[0]}")
        return []
    depth = size[axes.index(planes.AXES[axis][0])]
    records = []
    for number in range(depth):
        slice_name, part = f"{name}/{axis}{number:0{len(str(depth))}}", f"{axis} slice {number}"
        read, files = partial(_read, channels, label, axis, number), (*channels, label)
        records.append(Record(slice_name, channels[0], label, read, split, name, part, part, files))
    return records


def _read(channels: tuple[Path, ...], label: Path, axis: str, number: int) -> Pair:
    """Reads a slice as radiologists see it: front or head up, the patient's right on the left."""
    with _lock:  # neighbouring slices share their volume, and threads wait for it instead of reading it twice
        images = [_image(path, path.stat().st_mtime_ns) for path in channels]
        mask = _label(label, label.stat().st_mtime_ns)
    image = [rescale(planes.slices(voxels, axis)[number], low, high) for voxels, low, high in images]
    section = planes.slices(mask, axis)[number]
    return np.ascontiguousarray(np.concatenate(image, axis=-1)), np.ascontiguousarray(section)


@lru_cache(maxsize=8)
def _image(path: Path, _stamp: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, Y, Z, C), and the smallest and the largest value (C,) float32 of each channel."""
    voxels = _values(path)
    return voxels, *channel_range(voxels)


@lru_cache(maxsize=4)
def _label(path: Path, _stamp: int) -> np.ndarray:
    """(X, Y, Z) int32."""
    values = _values(path)
    with named_errors(path):
        return to_labels(DecodedPixels(values))


def _values(path: Path) -> np.ndarray:
    """(X, Y, Z, C) integers or finite floats, of 32 bits at most."""
    with named_errors(path):
        array = read_ras_voxels(path)
    if array.dtype.kind not in "iuf":
        raise DataError([f"{path}: voxels of type {array.dtype}; expected integers or floats"])
    if array.dtype.kind == "f" and (bad := int((~np.isfinite(array)).sum())):
        raise DataError([f"{path}: {bad} NaN or infinite voxels; expected finite numbers"])
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _class_names(path: Path, problems: list[str]) -> tuple[str, ...] | None:
    """Reads class names, background first; "labels" maps numbers to names (Decathlon) or back (nnU-Net)."""
    if not path.is_file():
        return None
    try:
        labels = json.loads(path.read_text("utf-8"))["labels"]
        pairs: Sequence[tuple[Any, Any]] = list(labels.items())
        if not all(str(key).isdecimal() for key, _ in pairs):
            pairs = [(number, name) for name, number in pairs if name != "ignore"]
        numbered = {int(number): str(name) for number, name in pairs}
        if sorted(numbered) != list(range(len(numbered))) or not numbered:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        expected = "expected those of the Decathlon or nnU-Net"
        problems.append(f'{path}: "labels" do not number names from 0; {expected}')
        return None
    return tuple(numbered[number] for number in range(len(numbered)))
