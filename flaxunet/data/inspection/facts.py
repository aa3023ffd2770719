"""A record enters; the numbers about its image and its mask leave, without their pixels."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile

from flaxunet.data import DataError, Listing, Record
from flaxunet.data.inspection.duplicates import fingerprint


def _nothing() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Facts:
    """What one sample is made of, or why it cannot be read.

    Attributes:
      record: the sample.
      problems: a line for each reason; then the rest means nothing.
      shape: of the image, (H, W, C).
      kind: the type of the stored values, such as uint8.
      low, high: the smallest and the largest value of the image, which is in [0, 1].
      values, counts: the labels of the mask and their pixels, int64.
      digest: of the image's shape and values; equal for equal images.
      print: see `flaxunet.data.inspection.duplicates.fingerprint`.
    """

    record: Record
    problems: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    kind: str = ""
    low: float = 0.0
    high: float = 0.0
    values: np.ndarray = field(default_factory=_nothing)
    counts: np.ndarray = field(default_factory=_nothing)
    digest: str = ""
    print: np.ndarray = field(default_factory=_nothing)


def gather(found: Listing, threads: int) -> list[Facts]:
    """The facts of every record, in their order, each file read once."""
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        return list(pool.map(look, found.records))


def look(record: Record) -> Facts:
    """The facts of one record."""
    try:
        image, mask = record.read()
    except DataError as error:
        return Facts(record, error.problems)
    values, counts = np.unique(mask, return_counts=True)
    digest = hashlib.blake2b(
        repr(image.shape).encode() + np.ascontiguousarray(image).tobytes(), digest_size=16
    )
    return Facts(
        record,
        shape=image.shape,
        kind=stored_type(record.image),
        low=float(image.min()),
        high=float(image.max()),
        values=values.astype(np.int64),
        counts=counts.astype(np.int64),
        digest=digest.hexdigest(),
        print=fingerprint(image),
    )


def stored_type(path: Path) -> str:
    """The type of an image file's values, such as uint8, from its header, or "unknown"."""
    with path.open("rb") as file:
        head = file.read(26)
        if head.startswith(b"\x89PNG"):
            return f"uint{head[24]}"
        if head.startswith(b"\xff\xd8"):
            return "uint8 (JPEG)"
        if head[:2] in (b"II", b"MM"):
            file.seek(0)
            with tifffile.TiffFile(file) as tiff:
                return str(tiff.pages.first.dtype)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        import nibabel

        return str(nibabel.Nifti1Image.from_filename(path).get_data_dtype())
    return "unknown"
