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

from flaxunet import preprocessing as intensity
from flaxunet.data.record import DataError, Listing, Options, Pair, Record

SUFFIXES = (".nii", ".nii.gz")
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis across the slices, in volumes whose axes point to the right, the front and the top."""
FOLDERS = {None: ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}

_lock = Lock()


def recognize(root: Path) -> str | None:
    """The folders of images and labels, or None."""
    images, labels = FOLDERS[None]
    both = (root / images).is_dir() and (root / labels).is_dir()
    return f"{images}/ with {labels}/" if both else None


def find(root: Path, options: Options) -> Listing:
    """List a sample for each slice. With labelsTs/, the volumes of imagesTs/ are the test split."""
    problems: list[str] = []
    interpretation, records = [], []
    has_test = (root / FOLDERS["test"][1]).is_dir()
    for split, (images, labels) in FOLDERS.items():
        if split is None or has_test:
            name_of_split = "train" if has_test and split is None else split
            volumes = _volumes(root / images, root / labels, problems)
            slices = [
                record
                for name, (channels, label) in volumes.items()
                for record in _slices(name, channels, label, name_of_split, options.axis, problems)
            ]
            interpretation.append(
                f"{root / images} as images, {root / labels} as masks: {len(volumes)} volumes, "
                f"{len(slices)} {options.axis} slices"
            )
            records += slices
    class_names = _class_names(root / "dataset.json", problems)
    if class_names is not None:
        interpretation.append(f"{root / 'dataset.json'} for the names of {len(class_names)} classes")
    return Listing(root, "nifti", tuple(interpretation), tuple(records), tuple(problems), class_names)


def _volumes(images: Path, labels: Path, problems: list[str]) -> dict[str, tuple[tuple[Path, ...], Path]]:
    """The files of the channels and of the labels of every volume that has both."""
    if not images.is_dir():
        problems.append(f"{images}: no such folder; expected one beside {labels.name}/")
        return {}
    label_files = _files(labels)
    volumes: dict[str, list[Path]] = {}
    for name, path in _files(images).items():
        channel = re.fullmatch(r"(.+)_\d{4}", name)
        # A name that has labels of its own is no channel, even where it ends with digits, as BRATS_0001 does.
        volume = name if name in label_files or channel is None else channel[1]
        volumes.setdefault(volume, []).append(path)
    problems += [
        f"{files[0]}: no {name}.nii.gz in {labels}"
        for name, files in volumes.items()
        if name not in label_files
    ]
    problems += [
        f"{path}: no image of this name in {images}"
        for name, path in label_files.items()
        if name not in volumes
    ]
    if not label_files:
        problems.append(f"{labels}: no volumes; expected {', '.join(SUFFIXES)}")
    return {
        name: (tuple(files), label_files[name])
        for name, files in sorted(volumes.items())
        if name in label_files
    }


def _files(folder: Path) -> dict[str, Path]:
    """Volumes by name without suffix; hidden files, which Macs leave in archives, are passed over."""
    return {
        path.name.removesuffix(".gz").removesuffix(".nii"): path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")
    }


def _slices(
    name: str, channels: tuple[Path, ...], label: Path, split: str | None, axis: str, problems: list[str]
) -> list[Record]:
    import nibabel

    try:
        shapes = {path: _open(path).shape for path in (*channels, label)}
    except DataError as error:
        problems += error.problems
        return []
    wanted = shapes[label]
    for path, shape in shapes.items():
        fits = shape[:3] == wanted and (len(shape) == 3 or (len(channels) == 1 and len(shape) == 4))
        if not fits or len(wanted) != 3:
            sizes = " x ".join(map(str, shape))
            problems.append(
                f"{path}: {sizes} voxels, its labels have {' x '.join(map(str, wanted))}; "
                "expected three equal axes, and a fourth for the channels of an image"
            )
            return []
    affine, other = _open(label).affine, _open(channels[0]).affine
    axes = nibabel.io_orientation(affine)[:, 0]
    if not np.isfinite(axes).all():
        problems.append(f"{label}: its affine does not tell the axes; expected three directions")
        return []
    if not np.allclose(affine, other, atol=1e-2):
        problems.append(
            f"{label}: another place or orientation in space than {channels[0]}; expected equal ones"
        )
        return []
    depth = wanted[axes.tolist().index(AXES[axis])]
    return [
        Record(
            f"{name}/{axis}{number:0{len(str(depth))}}",
            channels[0],
            label,
            partial(_read, channels, label, axis, number),
            split,
            group=name,
            image_part=f"{axis} slice {number}",
            mask_part=f"{axis} slice {number}",
            files=(*channels, label),
        )
        for number in range(depth)
    ]


def _read(channels: tuple[Path, ...], label: Path, axis: str, number: int) -> Pair:
    """A slice as radiologists see it: front or head up, the patient's right on the left."""
    with _lock:  # neighbouring slices share their volume, and threads wait for it instead of reading it twice
        volumes = [_image(path, path.stat().st_mtime_ns) for path in channels]
        mask = _label(label, label.stat().st_mtime_ns)
    planes = [intensity.between(_cut(array, axis, number), low, high) for array, low, high in volumes]
    return np.concatenate(planes, axis=-1), _cut(mask, axis, number)


def _cut(volume: np.ndarray, axis: str, number: int) -> np.ndarray:
    plane = volume[(slice(None),) * AXES[axis] + (number,)][::-1, ::-1]
    return np.ascontiguousarray(plane.swapaxes(0, 1))


@lru_cache(maxsize=8)
def _image(path: Path, _stamp: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, y, z, C), and the smallest and the largest value (C,) float32 of each channel."""
    array = _values(path)
    array = array[..., None] if array.ndim == 3 else array
    return array, *intensity.ends(array)


@lru_cache(maxsize=4)
def _label(path: Path, _stamp: int) -> np.ndarray:
    """(x, y, z) int32."""
    array = _values(path)
    labels = array.astype(np.int32)
    if (labels != array).any():
        raise DataError([f"{path}: labels that are fractions; expected whole numbers"])
    return labels


def _values(path: Path) -> np.ndarray:
    import nibabel

    try:
        array = np.asanyarray(nibabel.as_closest_canonical(_open(path)).dataobj)
    except Exception as error:  # damaged archives make decoders raise anything
        raise DataError([f"{path}: {_first(error)}; expected a whole NIfTI file"]) from error
    if array.dtype.kind not in "iuf":
        raise DataError([f"{path}: voxels of type {array.dtype}; expected integers or floats"])
    bad = 0 if array.dtype.kind in "iu" else int((~np.isfinite(array)).sum())
    if bad:
        raise DataError([f"{path}: {bad} NaN or infinite voxels; expected finite numbers"])
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _open(path: Path) -> Any:
    import nibabel

    try:
        return nibabel.Nifti1Image.from_filename(path)
    except Exception as error:
        raise DataError([f"{path}: {_first(error)}; expected a NIfTI file"]) from error


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _class_names(path: Path, problems: list[str]) -> tuple[str, ...] | None:
    """Background first; "labels" maps numbers to names (Decathlon) or names to numbers (nnU-Net)."""
    if not path.is_file():
        return None
    try:
        labels = json.loads(path.read_text("utf-8"))["labels"]
        pairs: Sequence[tuple[Any, Any]] = list(labels.items())
        if all(str(key).isdecimal() for key, _ in pairs):
            numbered = {int(key): str(name) for key, name in pairs}
        else:
            numbered = {int(number): str(key) for key, number in pairs if key != "ignore"}
        if sorted(numbered) != list(range(len(numbered))) or not numbered:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        problems.append(
            f'{path}: "labels" do not number names from 0; expected those of the Decathlon or nnU-Net'
        )
        return None
    return tuple(numbered[number] for number in range(len(numbered)))
