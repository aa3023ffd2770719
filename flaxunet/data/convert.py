"""Records of any layout enter; a new folder with images/ and masks/ leaves."""

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from flaxunet.data.layouts.folders import CLASS_NAMES
from flaxunet.data.record import SPLITS, DataError, Listing, Record
from flaxunet.io.images import write_mask

COPIED = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
GROUPED = "__"  # between group and name


def write_folders(
    found: Listing, out: Path, *, threads: int = 2, done: Callable[[], None] = lambda: None
) -> list[str]:
    """Write every sample of a dataset as an image and a mask.

    Where the layout gives splits, each has a folder with images/ and masks/, else there is one of each. PNG,
    JPEG and TIFF files are copied as they are; what was a slice becomes a PNG if it has 8-bit values, else a
    TIFF of the float32 values that are read. Masks are indexed PNGs with a palette, or 16-bit gray ones if
    their labels go beyond 255. Names of classes go to class_names.txt. A sample of a group is named
    GROUP__NAME.

    Args:
      found: the dataset.
      out: the folder to be made, whole or not at all; it must not exist.
      threads: that read and write.
      done: called after each sample.
    Returns: the flags with which `python -m train` reads what was written.
    Raises: DataError for all that cannot be read or written; OSError.
    """
    problems = list(found.problems)
    names = {id(record): _name(record) for record in found.records}
    places: dict[tuple[str | None, str], Record] = {}
    for record in found.records:
        other = places.setdefault((record.split, names[id(record)]), record)
        if other is not record:
            problems.append(
                f"{record.image_location}: the same name as {other.image_location} in the new folder"
            )
    if out.exists():
        problems.append(f"{out}: exists; accepted is a folder to be made")
    if not found.records and not problems:
        problems.append(f"{found.root}: no samples")
    if problems:
        raise DataError(problems)

    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for split in {record.split for record in found.records}:
            for kind in ("images", "masks"):
                (_folder(part, split) / kind).mkdir(parents=True)
        write = partial(_write, part, names, done)
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            problems += [line for lines in pool.map(write, found.records) for line in lines]
        if problems:
            raise DataError(problems)
        if found.class_names is not None:
            (part / CLASS_NAMES).write_text("\n".join(found.class_names) + "\n", "utf-8")
        part.chmod(0o777 & ~_umask())
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    flags = ["--layout", "instances", "--target", "foreground"] if found.instances else []
    return flags + (["--group", f"(.+?){GROUPED}"] if any(r.group for r in found.records) else [])


def command(out: Path, flags: list[str]) -> str:
    """What trains on a folder that was written."""
    return shlex.join(["python", "-m", "train", "--data", str(out), *flags])


def _folder(part: Path, split: str | None) -> Path:
    return part if split is None else part / SPLITS[split][0]


def _name(record: Record) -> str:
    """A file's name without suffix; what is no letter, digit, or one of ._- becomes _."""
    name = record.name if record.group is None else f"{record.group}{GROUPED}{Path(record.name).name}"
    return re.sub(r"[^\w.-]", "_", name)


def _write(part: Path, names: dict[int, str], done: Callable[[], None], record: Record) -> list[str]:
    """Writes one sample; a line for each reason if it cannot."""
    try:
        image, mask = record.read()
        folder, name = _folder(part, record.split), names[id(record)]
        low, high = int(mask.min()), int(mask.max())
        if low < 0 or high > 65535:
            return [f"{record.mask_location}: labels between {low} and {high}; accepted are 0 to 65535"]
        if record.image.suffix.lower() in COPIED and not record.image_part:
            shutil.copyfile(record.image, folder / "images" / f"{name}{record.image.suffix.lower()}")
        else:
            _write_image(folder / "images" / name, image)
        write_mask(folder / "masks" / f"{name}.png", mask)
    except DataError as error:
        return list(error.problems)
    done()
    return []


def _write_image(path: Path, image: np.ndarray) -> None:
    """A PNG where it has the very same values, else a TIFF of them."""
    levels = np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)
    if image.shape[-1] in (1, 3) and (levels / np.float32(255) == image).all():
        Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels).save(f"{path}.png")
        return
    planes = np.moveaxis(image, -1, 0) if image.shape[-1] > 1 else image[..., 0]
    kind = "separate" if image.shape[-1] > 1 else None
    tifffile.imwrite(f"{path}.tif", planes, photometric="minisblack", compression="zlib", planarconfig=kind)


def _umask() -> int:
    """Of this process; there is no way to read it without setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
