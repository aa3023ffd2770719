"""Converts a dataset of any layout to a folder with images/ and masks/."""

import re
import shlex
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from flaxunet.data.layouts.folders import CLASS_NAMES
from flaxunet.data.record import DataError, Listing, Record
from flaxunet.data.split import SPLITS
from flaxunet.files import whole_folder
from flaxunet.io.images import FORMATS, write_mask

COPIED = tuple(suffix for name in ("png", "jpeg", "tiff") for suffix in FORMATS[name].suffixes)
FOLDERS = {None: "", **{split: names[0] for split, names in SPLITS.items()}}
SEPARATOR = "__"  # between group and name


def write_folders(listing: Listing, out: Path, *, threads: int = 2) -> list[str]:
    """Writes every sample of a dataset as an image and a mask.

    Where the layout gives splits, each has a folder with images/ and masks/, else there is one of each. PNG,
    JPEG and TIFF files are copied; a slice becomes a PNG if its values are those of 8 bits, else a TIFF of
    float32. Masks are indexed PNGs with a palette, or 16-bit gray ones if labels exceed 255. Class names go
    to class_names.txt. A sample of a group is named GROUP__NAME.

    Args:
      out: the new folder, written whole or not at all.
      threads: number that read and write.
    Returns: the flags with which `python -m train` reads the new folder.
    Raises: DataError that lists everything that cannot be read or written; OSError.
    """
    problems = list(listing.problems)
    first: dict[tuple[str | None, str], Record] = {}
    for one in listing.records:
        other = first.setdefault((one.split, _name(one)), one)
        if other is not one:
            where = f"{other.image_location} in the new folder"
            problems.append(f"{one.image_location}: the same name as {where}")
    if out.exists():
        problems.append(f"{out}: exists; expected a new folder")
    if not listing.records and not problems:
        problems.append(f"{listing.root}: no samples")
    if problems:
        raise DataError(problems)

    with whole_folder(out) as part:
        for split in {record.split for record in listing.records}:
            for kind in ("images", "masks"):
                (part / FOLDERS[split] / kind).mkdir(parents=True)
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            problems += chain.from_iterable(pool.map(partial(_write, part), listing.records))
        if problems:
            raise DataError(problems)
        if listing.class_names is not None:
            (part / CLASS_NAMES).write_text("\n".join(listing.class_names) + "\n", "utf-8")
    flags = ["--layout", "instances", "--target", "foreground"] if listing.instances else []
    return flags + (["--group", f"(.+?){SEPARATOR}"] if any(r.group for r in listing.records) else [])


def train_command(data: Path, flags: Sequence[str]) -> str:
    """Composes the command line that trains on a dataset."""
    return shlex.join(["python", "-m", "train", "--data", str(data), *flags])


def _name(record: Record) -> str:
    """A file's name without suffix; what is no letter, digit, or one of ._- becomes _."""
    name = record.name if record.group is None else f"{record.group}{SEPARATOR}{Path(record.name).name}"
    return re.sub(r"[^\w.-]", "_", name)


def _write(out: Path, record: Record) -> Sequence[str]:
    """Writes one sample; returns a line for each reason if that is impossible."""
    try:
        image, mask = record.read()
        folder, name, suffix = out / FOLDERS[record.split], _name(record), record.image.suffix.lower()
        low, high = int(mask.min()), int(mask.max())
        if low < 0 or high > 65535:
            return [f"{record.mask_location}: labels between {low} and {high}; expected 0 to 65535"]
        if suffix in COPIED and not record.image_part:
            shutil.copyfile(record.image, folder / "images" / f"{name}{suffix}")
        else:
            _write_image(folder / "images" / name, image)
        write_mask(folder / "masks" / f"{name}.png", mask)
    except DataError as error:
        return error.problems
    return ()


def _write_image(path: Path, image: np.ndarray) -> None:
    """Writes a PNG if it can hold the very same values, else a TIFF."""
    levels = np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)
    if image.shape[-1] in (1, 3) and (levels / np.float32(255) == image).all():
        Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels).save(f"{path}.png")
        return
    several = image.shape[-1] > 1
    planes, kind = (np.moveaxis(image, -1, 0), "separate") if several else (image[..., 0], None)
    tifffile.imwrite(f"{path}.tif", planes, photometric="minisblack", compression="zlib", planarconfig=kind)
